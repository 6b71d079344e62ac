"""Every vector of specs/vectors, and that its generator still makes the same file."""

from __future__ import annotations

import importlib
import json

import pytest

from ryvion_protocol.errors import ProtocolError
from specs.vector_form import family_text
from tests.protocol.vector_runner import FOLDER, Case, load_cases, run

CASES = load_cases()
FAMILIES = {path.stem: path for path in sorted(FOLDER.glob("*.json"))}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_vector_gives_what_it_expects(case: Case) -> None:
    vector = case.content
    if vector["expect"] == "ok":
        came = run(vector)
        assert {key: came[key] for key in vector["gives"]} == vector["gives"]
        return
    with pytest.raises(ProtocolError) as caught:
        run(vector)
    assert (caught.value.layer, caught.value.code) == (vector["expect"], vector["error_code"])


@pytest.mark.parametrize("family", FAMILIES)
def test_generator_makes_the_same_file(family: str) -> None:
    generator = importlib.import_module(f"specs.generate_{family}")
    text = FAMILIES[family].read_text(encoding="utf-8")
    assert family_text(json.loads(text)["spec"], family, generator.vectors()) == text


def test_vector_ids_are_unique() -> None:
    ids = [case.id for case in CASES]
    assert len(ids) == len(set(ids))
