"""The repository as its own tests see it: the files that belong to it."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OURS = ("ryvion_node", "protocol", "tests", "scripts", "benchmarks", "docs", "specs", ".ci")
TEXT_SUFFIXES = {".py", ".mjs", ".md", ".toml", ".sh", ".txt", ".json", ".yml", ".yaml", ".cfg", ".jinja", ""}


def our_files() -> list[Path]:
    """Every file that we wrote, without build outputs and caches."""
    top = [path for path in ROOT.iterdir() if path.is_file() and not path.name.startswith(".git")]
    nested = [path for folder in OURS for path in (ROOT / folder).rglob("*") if path.is_file()]
    return sorted(path for path in top + nested if "__pycache__" not in path.parts)


def text_files() -> list[Path]:
    """Those of them that hold text."""
    return [path for path in our_files() if path.suffix in TEXT_SUFFIXES]


def shown(path: Path) -> str:
    """Relative to the root, for messages."""
    return str(path.relative_to(ROOT))
