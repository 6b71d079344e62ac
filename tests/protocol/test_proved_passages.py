"""Passages of prompts, proved from a signed envelope: one verifies alone, and every forgery is told (R-02-17 .. R-02-19)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ryvion_protocol.exported import export_receipt, read_receipts, verify_exported
from ryvion_protocol.findings import Verdict
from ryvion_protocol.merkle import merkle_root
from ryvion_protocol.messages import AuditEnvelope
from ryvion_protocol.packet import pack
from ryvion_protocol.passages import PassageNotUsed, passage_hash, prove_passage, recognised
from tests.protocol.test_exported_receipts import SELLER, STRANGER, failed, make_envelope, make_receipt

TEXTS = tuple(f"Passage {number}: the ferry leaves at {number}." for number in range(5))
SOURCE = {"filename": "ferries.pdf", "page": 2, "start": 0, "end": 40}


def grounded_envelope(texts: tuple[str, ...] = TEXTS) -> AuditEnvelope:
    hashes = tuple(map(passage_hash, texts))
    return replace(make_envelope(make_receipt()), chunk_hashes=hashes, chunk_root=merkle_root(hashes))


def make_proof(*numbers: int, texts: tuple[str, ...] = TEXTS) -> dict[str, Any]:
    envelope = grounded_envelope(texts)
    proof = export_receipt(make_receipt(), pack(envelope, SELLER).raw)
    proof["passages"] = [prove_passage(envelope, texts[number], SOURCE) for number in numbers]
    return dict(json.loads(json.dumps(proof)))


def outcomes(verdict: Verdict) -> dict[str, str]:
    return {finding.name: finding.outcome for finding in verdict.findings}


@given(st.lists(st.text(), min_size=1, max_size=64, unique=True), st.data())
def test_each_passage_is_proved_alone_with_nothing_but_the_file(texts: list[str], data: st.DataObject) -> None:
    """R-02-17, R-02-18."""
    number = data.draw(st.integers(0, len(texts) - 1))
    proof = make_proof(number, texts=tuple(texts))
    (read,) = read_receipts(json.dumps(proof).encode())
    verdict = verify_exported(read)
    assert verdict.valid
    assert outcomes(verdict)[f"passage_{number + 1}"] == "passed"


def test_a_proof_shows_no_other_text() -> None:
    written = json.dumps(make_proof(1))
    assert [text for text in TEXTS if text in written] == [TEXTS[1]]


def test_several_passages_are_proved_in_one_file() -> None:
    verdict = verify_exported(make_proof(4, 0))
    assert verdict.valid
    assert {"passage_1", "passage_5"} <= outcomes(verdict).keys()


def test_what_the_envelope_does_not_name_cannot_be_proved() -> None:
    with pytest.raises(PassageNotUsed):
        prove_passage(grounded_envelope(), "Passage 9", SOURCE)


FORGERIES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "another text": lambda one: one.update(text=one["text"] + " "),
    "the text of another place": lambda one: one.update(text=TEXTS[2]),
    "another place": lambda one: one.update(index=2),
    "a place beyond the last": lambda one: one.update(index=5),
    "a place before the first": lambda one: one.update(index=-1),
    "a place that is no number": lambda one: one.update(index=True),
    "a longer path": lambda one: one["path"].append("00" * 32),
    "a shorter path": lambda one: one["path"].pop(),
    "a path in another order": lambda one: one["path"].reverse(),
    "a path with another hash": lambda one: one["path"].__setitem__(0, "00" * 32),
    "a path with words in it": lambda one: one["path"].insert(0, "up"),
    "a path in capitals": lambda one: one.update(path=[node.upper() for node in one["path"]]),
    "a path of numbers": lambda one: one.update(path=[1, 2, 3]),
    "no path": lambda one: one.pop("path"),
    "no text": lambda one: one.pop("text"),
    "no Unicode text": lambda one: one.update(text="\ud800"),
    "a hash for its text": lambda one: one.update(text=passage_hash(TEXTS[1]).hex()),
}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES)
def test_a_forged_passage_proves_nothing(forge: Callable[[dict[str, Any]], Any]) -> None:
    """R-02-18."""
    proof = make_proof(1)
    forge(proof["passages"][0])
    (wrong,) = failed(verify_exported(proof))
    assert wrong.startswith("passage")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("00" * 32),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["index", "text", "path"]), inner),
    max_leaves=10,
)


@given(JSON | st.lists(st.fixed_dictionaries({"index": JSON, "text": JSON, "path": JSON}), min_size=1, max_size=2))
def test_whatever_stands_there_is_a_finding_and_no_crash(passages: object) -> None:
    """R-02-17."""
    assert failed(verify_exported(make_proof(1) | {"passages": passages}))


@pytest.mark.parametrize("passages", [[], {}, None, "x", [1], [{}] * 65], ids=repr)
def test_a_list_of_nothing_proves_nothing(passages: object) -> None:
    """R-02-17."""
    assert failed(verify_exported(make_proof(1) | {"passages": passages}))


def test_an_envelope_that_another_signed_proves_nothing() -> None:
    proof = make_proof(1)
    forged = replace(grounded_envelope(), executor_key=STRANGER.public_key)
    proof["audit_envelope"] = export_receipt(make_receipt(), pack(forged, STRANGER).raw)["audit_envelope"]
    assert failed(verify_exported(proof)) == ["same_job"]


@pytest.mark.parametrize("envelope", [None, {}, {"packet": "AAAA"}])
def test_without_a_signed_envelope_nothing_is_proved(envelope: object) -> None:
    """R-02-19."""
    assert "passage_2" in failed(verify_exported(make_proof(1) | {"audit_envelope": envelope}))


def test_a_proof_of_an_envelope_without_passages_fails() -> None:
    proof = make_proof(1)
    bare = export_receipt(make_receipt(), pack(make_envelope(make_receipt()), SELLER).raw)
    assert failed(verify_exported(proof | {"audit_envelope": bare["audit_envelope"]})) == ["passage_2"]


def test_passages_are_recognised_by_their_text() -> None:
    envelope = grounded_envelope()
    places = {passage_hash(text): f"ferries.pdf, page {number}" for number, text in enumerate(TEXTS, start=1)}
    found = list(recognised(envelope, places))
    assert [one.outcome for one in found] == ["passed"] * 6
    assert "ferries.pdf, page 3" in found[2].detail and envelope.chunk_root.hex() in found[-1].detail
    del places[passage_hash(TEXTS[3])]
    assert [one.name for one in recognised(envelope, places) if one.outcome == "failed"] == ["passage_4"]


@pytest.mark.parametrize("envelope", [None, make_envelope(make_receipt())])
def test_without_passages_there_is_nothing_to_recognise(envelope: AuditEnvelope | None) -> None:
    (finding,) = recognised(envelope, {})
    assert finding.outcome == "failed"
