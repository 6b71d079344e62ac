"""Puts a built model into the package."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path
from typing import Final

PACKAGE_MODELS: Final = Path(__file__).resolve().parents[2] / "ryvion_node" / "models"


def install(file: Path) -> None:
    """Copy the file into the package and write its digest into the catalogue."""
    shutil.copyfile(file, PACKAGE_MODELS / file.name)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    catalogue = PACKAGE_MODELS / "models.toml"
    entry = re.compile(rf'(file = "{re.escape(file.name)}"(?:\n[^\n]+)*?\ndigest = ")[0-9a-f]*(")')
    text, count = entry.subn(rf"\g<1>{digest}\g<2>", catalogue.read_text(encoding="utf-8"))
    if count != 1:
        raise SystemExit(f"{catalogue} has no entry for {file.name}")
    catalogue.write_text(text, encoding="utf-8")
