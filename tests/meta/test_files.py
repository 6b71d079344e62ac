"""Size, wording and links of every file in the repository."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tests.meta.repository import ROOT, shown, text_files

MAX_LINES = 500
GENERATED = {"locks"}
SOURCE = [path for path in text_files() if path.suffix in (".py", ".mjs") or path.parent.name in ("scripts", ".ci")]

# Written in pieces, so that this file does not hold what it forbids.
FORBIDDEN = {
    "an absolute home path": r"/(root|home/\w+|Users/\w+)/",
    "a path of one particular machine": r"(?<![\w.])/(wo" + r"rk|t" + r"mp/\w+)/",
    "a package index": r"https?://(py"
    + r"pi\.org|files\.python"
    + r"hosted\.org|test\.py"
    + r"pi\.org)|--(extra-)?index-url",
    "an unfinished note": r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b",
}


@pytest.mark.parametrize("path", SOURCE, ids=shown)
def test_no_source_file_outgrows_a_reader(path: Path) -> None:
    lines = path.read_text("utf-8").count("\n")
    assert lines <= MAX_LINES, f"{shown(path)} has {lines} lines; split it by idea"


@pytest.mark.parametrize("what", FORBIDDEN)
def test_nothing_names_one_machine_or_a_package_index(what: str) -> None:
    pattern = re.compile(FORBIDDEN[what])
    found = [
        f"{shown(path)}:{number}: {line.strip()[:100]}"
        for path in text_files()
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1)
        if pattern.search(line)
    ]
    assert not found, f"{what} in:\n" + "\n".join(found)


@pytest.mark.parametrize("path", [path for path in text_files() if path.suffix == ".md"], ids=shown)
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.DOTALL)
    targets = [target.split("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text)]
    local = [target for target in targets if target and not re.match(r"[a-z]+:", target)]
    broken = [target for target in local if not (path.parent / target).exists()]
    assert not broken, f"{shown(path)} links to {broken}"


def test_the_version_is_the_same_everywhere() -> None:
    from ryvion_node import __version__

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["version"] == __version__
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_one_lock_tool_only() -> None:
    assert not (ROOT / "uv.lock").exists(), "locks/*.txt are the lock; uv.lock would be a second one"
