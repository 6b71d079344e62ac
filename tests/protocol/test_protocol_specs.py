"""The specs themselves: generated parts are current, every MUST has an id, every id is tested."""

from __future__ import annotations

import re
from dataclasses import is_dataclass
from pathlib import Path

import pytest

from ryvion_protocol import messages
from ryvion_protocol.errors import ProtocolError
from specs.generate_tables import filled
from tests.protocol.vector_runner import CLASSES, OPERATIONS, load_cases

ROOT = Path(__file__).parents[2]
SPECS = sorted((ROOT / "specs").glob("[0-9][0-9]-*.md"))
PAGES = sorted((ROOT / "specs").glob("*.md"))
ID = re.compile(r"R-\d\d-\d+")
HEADINGS = (
    "Worked example",
    "Errors",
    "Limits and timers",
    "Versioning",
    "Security",
    "Rationale",
)


def defined() -> dict[str, Path]:
    return {match: path for path in SPECS for match in re.findall(r"\*\*(R-\d\d-\d+)\*\* ", path.read_text("utf-8"))}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_generated_parts_are_current(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert filled(text) == text, f"run python -m specs.generate_tables: {page.name} is out of date"


@pytest.mark.parametrize("spec", SPECS, ids=lambda path: path.name)
def test_every_must_is_in_a_numbered_requirement(spec: Path) -> None:
    text = spec.read_text(encoding="utf-8")
    number = spec.name[:2]
    ids = re.findall(r"\*\*(R-\d\d-\d+)\*\* ", text)
    assert len(ids) == len(set(ids))
    assert all(name.startswith(f"R-{number}-") for name in ids)
    assert sorted(int(name.split("-")[2]) for name in ids) == list(range(1, len(ids) + 1))
    for paragraph in re.split(r"\n(?=- )|\n\n", text):
        if "MUST" in paragraph:
            assert re.match(r"- \*\*R-\d\d-\d+\*\* ", paragraph), paragraph
    for name in ids:
        bullet = re.search(rf"- \*\*{name}\*\* (?:.|\n)*?(?=\n- |\n\n)", text)
        assert bullet is not None
        assert "MUST" in bullet[0], f"{name} requires nothing"


@pytest.mark.parametrize("spec", SPECS, ids=lambda path: path.name)
def test_every_spec_has_the_parts_of_the_template(spec: Path) -> None:
    text = spec.read_text(encoding="utf-8")
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert [heading for heading in headings if heading in HEADINGS] == list(HEADINGS)
    for key in ("status", "version", "depends on", "implemented in", "vectors"):
        assert f"| {key} |" in text
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert (spec.parent / target).exists(), target
    for target, anchor in re.findall(r"\]\((\d\d-\w+\.md)#([\w-]+)\)", text):
        titles = re.findall(r"^#+ (.+)$", (spec.parent / target).read_text(encoding="utf-8"), re.MULTILINE)
        assert anchor in {title.lower().replace(" ", "-") for title in titles}, f"{target}#{anchor}"


def test_every_requirement_is_named_by_a_vector_or_a_test() -> None:
    named = {name for case in load_cases() for name in case.content["requirements"]}
    for path in (ROOT / "tests").rglob("test_*.py"):
        named |= set(ID.findall(path.read_text(encoding="utf-8")))
    assert sorted(set(defined()) - named) == []
    assert sorted(named - set(defined())) == []


def test_every_operation_and_layer_of_the_readme_is_used() -> None:
    readme = (ROOT / "specs" / "README.md").read_text(encoding="utf-8")
    cases = [case.content for case in load_cases()]
    assert {case["operation"] for case in cases} == set(OPERATIONS)
    assert all(f"`{operation}`" in readme for operation in OPERATIONS)
    layers = {cls.layer for cls in ProtocolError.__subclasses__()} | {"ok"}
    assert {case["expect"] for case in cases} == layers
    assert all(f"`{layer}`" in readme for layer in layers)


def test_every_message_has_a_vector_and_a_field_table() -> None:
    allowed = {case.content["gives"].get("type") for case in load_cases()}
    assert set(CLASSES) <= allowed
    text = "".join(path.read_text(encoding="utf-8") for path in SPECS)
    parts = [cls for cls in vars(messages).values() if is_dataclass(cls) and cls.__module__ == messages.__name__]
    assert [cls.__name__ for cls in parts if f"<!-- generated: fields {cls.__name__} -->" not in text] == []
