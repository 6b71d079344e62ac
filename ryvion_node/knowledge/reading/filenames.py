"""Names of files as labels: clients choose them, so they are never used as paths."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from ryvion_node.knowledge.constants import MAX_FILENAME_CHARS

_UNNAMED: Final = "document"


def safe_filename(name: str) -> str:
    """The last part of a path, without characters that steer a terminal or turn text around, bounded in length."""
    last = re.split(r"[/\\]", name.rstrip("/\\"))[-1][: 4 * MAX_FILENAME_CHARS]
    shown = "".join(char if not unicodedata.category(char).startswith(("C", "Z")) else " " for char in last)
    words = " ".join(unicodedata.normalize("NFC", shown).split())
    if len(words) > MAX_FILENAME_CHARS:
        ending = extension(words)
        words = words[: MAX_FILENAME_CHARS - len(ending) - 2] + "…" + (f".{ending}" if ending else "")
    return words if words.strip(". ") else _UNNAMED


def extension(name: str) -> str:
    """`pdf` of `A.PDF`; empty where there is none, or nothing that looks like one."""
    found = re.search(r"[^./\\]\.([A-Za-z0-9]{1,12})$", name)
    return found[1].lower() if found else ""
