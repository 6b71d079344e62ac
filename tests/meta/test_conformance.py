"""The page that says what clients rely on names tests that exist, at least one on each of its lines."""

from __future__ import annotations

import re

from tests.meta.repository import ROOT

PAGE = ROOT / "docs" / "conformance.md"
_TEST = re.compile(r"`(\w+)::(test_\w+)`")
_DEFINED = re.compile(r"^(?:async )?def (test_\w+)\(", re.MULTILINE)


def lines() -> list[str]:
    """Those of the tables that name tests, without their heads."""
    text = PAGE.read_text(encoding="utf-8").partition("## Otherwise than")[0]
    heads = ("| Clients need", "|---")
    return [line for line in text.splitlines() if line.startswith("|") and not line.startswith(heads)]


def test_every_line_names_a_test() -> None:
    assert len(lines()) > 40
    assert [line for line in lines() if not _TEST.search(line)] == []


def test_every_test_that_is_named_exists() -> None:
    defined = {
        (path.stem, name)
        for path in (ROOT / "tests").rglob("*.py")
        for name in _DEFINED.findall(path.read_text(encoding="utf-8"))
    }
    named = set(_TEST.findall("\n".join(lines())))
    assert named - defined == set()
