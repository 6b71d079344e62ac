"""Offline verification of exported receipts: what is valid, and what each kind of tampering is told."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ryvion_protocol.exported import (
    ReceiptFileUnreadable,
    export_receipt,
    read_receipts,
    verify_exported,
)
from ryvion_protocol.findings import Verdict
from ryvion_protocol.messages import AuditEnvelope, Receipt, ToolCall
from ryvion_protocol.packet import pack
from ryvion_protocol.receipt import ReceiptFields, fields_of, issue_receipt
from ryvion_protocol.schema import JobId
from ryvion_protocol.signing import SigningIdentity
from ryvion_protocol.transcript import result_payload

SELLER = SigningIdentity(bytes(range(32)))
STRANGER = SigningIdentity(bytes(range(1, 33)))
ANSWER = "Paris."
JOB_ID = JobId("ab" * 32)
ZEROS = bytes(32)

FIELDS_VECTOR = {
    "job_id": "job-0001",
    "node_public_key": "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8",
    "result_hash": "315f5bdb76d078c43b8ac0064e4a0164612b1fce77c869345bfc94c75894edd3",
    "metering_units": 42,
    "signature": base64.b64encode(
        bytes.fromhex(
            "050fc1466fc9fb35e8066182a08f26b81fc3a1066a492cea7fdd21e1b26c4b8b"
            "61ae31814d647efaff623a7b33590d9e3ebd2a9b1e041b2f9dc8f2f4314c1f01"
        )
    ).decode(),
}
"""A receipt of another implementation, whose job id we would not issue."""


CALL = ToolCall("call_1", "get_weather", '{"city": "Paris"}')
MESSAGE = {
    "role": "assistant",
    "content": None,
    "reasoning_content": "A place is named.",
    "tool_calls": [
        {"id": CALL.id, "type": "function", "function": {"name": CALL.name, "arguments": CALL.arguments}},
    ],
}


def make_receipt(identity: SigningIdentity = SELLER, units: int = 9, payload: bytes = ANSWER.encode()) -> Receipt:
    result_hash = hashlib.sha256(payload).digest()
    return issue_receipt(ReceiptFields(JOB_ID, identity.public_key, result_hash, units), identity)


def make_envelope(receipt: Receipt) -> AuditEnvelope:
    return AuditEnvelope(
        job_id=receipt.job_id,
        executor_key=receipt.node_key,
        requester_key=STRANGER.public_key,
        receipt_digest=fields_of(receipt).digest(),
        quote_hash=ZEROS,
        transcript_hash=ZEROS,
        status="completed",
        prompt_units=7,
        completion_units=2,
        model="ryvion-tiny",
        model_digest=ZEROS,
        jurisdiction="DE",
        chunk_hashes=(),
        chunk_root=b"",
        started_ms=1_000,
        first_token_ms=1_005,
        finished_ms=1_010,
        previous_envelope=ZEROS,
    )


def make_export(receipt: Receipt | None = None) -> dict[str, Any]:
    receipt = receipt or make_receipt()
    return json.loads(json.dumps(export_receipt(receipt, pack(make_envelope(receipt), SELLER).raw)))


def failed(verdict: Verdict) -> list[str]:
    return [finding.name for finding in verdict.findings if finding.outcome == "failed"]


def test_an_exported_receipt_verifies_with_its_answer() -> None:
    verdict = verify_exported(make_export(), ANSWER.encode())
    assert verdict.valid
    assert [(f.name, f.outcome) for f in verdict.findings] == [
        (name, "passed") for name in ("fields", "signature", "envelope", "same_job", "units", "shown_fields", "answer")
    ]


def test_a_receipt_of_another_implementation_verifies() -> None:
    verdict = verify_exported(FIELDS_VECTOR, b"Hello, world!")
    assert verdict.valid
    assert {f.name: f.outcome for f in verdict.findings}["envelope"] == "absent"


def test_another_answer_is_noticed() -> None:
    assert failed(verify_exported(make_export(), b"Lyon.")) == ["answer"]


@pytest.mark.parametrize(
    ("key", "value"),
    [("metering_units", 8), ("job_id", "cd" * 32), ("result_hash", "00" * 32), ("node_public_key", "00" * 32)],
)
def test_a_changed_field_contradicts_cid_and_signature(key: str, value: object) -> None:
    changed = make_export() | {key: value}
    assert failed(verify_exported(changed)) == ["fields"]
    del changed["cid"]
    assert "signature" in failed(verify_exported(changed))


def test_a_signature_by_another_key_is_noticed() -> None:
    foreign = make_export() | {"signature": make_export(make_receipt(units=8))["signature"]}
    assert failed(verify_exported(foreign)) == ["signature"]


def test_an_envelope_of_another_receipt_is_noticed() -> None:
    swapped = make_export() | {"audit_envelope": make_export(make_receipt(units=8))["audit_envelope"]}
    assert failed(verify_exported(swapped)) == ["same_job"]


def test_an_envelope_that_bills_other_units_is_noticed() -> None:
    receipt = make_receipt(units=10)
    assert failed(verify_exported(make_export(receipt))) == ["units"]


def test_an_envelope_signed_by_a_stranger_is_noticed() -> None:
    receipt = make_receipt()
    envelope = replace(make_envelope(receipt), executor_key=STRANGER.public_key)
    exported = export_receipt(receipt, pack(envelope, STRANGER).raw)
    assert failed(verify_exported(exported)) == ["same_job"]


def test_readable_fields_that_differ_from_the_signed_ones_are_noticed() -> None:
    exported = make_export()
    exported["audit_envelope"]["fields"]["jurisdiction"] = "CA"
    verdict = verify_exported(exported)
    assert failed(verdict) == ["shown_fields"]
    assert "jurisdiction" in verdict.findings[-2].detail


@pytest.mark.parametrize("envelope", ["text", {}, {"packet": "!"}, {"packet": ""}, {"packet": 5}, []])
def test_an_envelope_that_is_none_is_noticed(envelope: object) -> None:
    assert failed(verify_exported(make_export() | {"audit_envelope": envelope})) == ["envelope"]


@given(st.integers(0, 10**6), st.integers(0, 7))
def test_no_bit_of_the_signed_envelope_can_be_changed(position: int, bit: int) -> None:
    exported = make_export()
    raw = bytearray(base64.b64decode(exported["audit_envelope"]["packet"]))
    raw[position % len(raw)] ^= 1 << bit
    exported["audit_envelope"]["packet"] = base64.b64encode(raw).decode()
    assert failed(verify_exported(exported)) == ["envelope"]


def test_a_file_holds_one_receipt_or_many() -> None:
    one = make_export()
    for value, count in ((one, 1), ([one, one], 2), ({"receipts": [one]}, 1)):
        assert len(read_receipts(json.dumps(value).encode())) == count


def test_what_the_endpoint_answers_is_read_too() -> None:
    exported = make_export()
    answered = {"gpu": "", "receipt": exported, "envelope": exported["audit_envelope"], "accepted": True}
    for value, count in (
        (answered, 1),
        ({"id": "chatcmpl-1", "choices": [], "ryvion": answered}, 1),
        ({"object": "list", "data": [{"object": "embedding"}], "ryvion": answered}, 1),
        ({"choices": [{"ryvion": answered}, {"ryvion": answered}], "ryvion": {"jobs": []}}, 2),
        ({"object": "list", "data": [answered]}, 1),
    ):
        read = read_receipts(json.dumps(value).encode())
        assert len(read) == count
        assert all(verify_exported(one, ANSWER.encode()).valid for one in read)


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"7", b'{"receipts": []}', b'["x"]', b'{"ryvion": {}, "choices": [7]}', b"\xff", b"[" * 100_000],
)
def test_what_is_no_receipt_file_is_told_apart(data: bytes) -> None:
    with pytest.raises(ReceiptFileUnreadable):
        read_receipts(data)


@given(st.binary(max_size=64))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        receipts = read_receipts(data)
    except ReceiptFileUnreadable:
        return
    for exported in receipts:
        with pytest.raises(ReceiptFileUnreadable):
            verify_exported(exported)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([*make_export(), "other"]), json_values, max_size=3))
def test_any_changed_values_give_a_verdict_or_a_refusal(changes: dict[str, object]) -> None:
    exported = make_export() | changes
    try:
        verdict = verify_exported(exported)
    except ReceiptFileUnreadable:
        return
    unchanged = all(exported[key] == value for key, value in make_export().items() if key != "audit_envelope")
    envelope_fine = exported["audit_envelope"] in (None, make_export()["audit_envelope"])
    assert verdict.valid == (unchanged and envelope_fine)


@pytest.mark.parametrize("whole", [False, True])
def test_an_answer_with_calls_is_read_from_the_message_that_clients_keep(whole: bool) -> None:
    """R-02-13."""
    export = make_export(make_receipt(payload=result_payload("", "A place is named.", [CALL])))

    def saved(message: dict[str, Any]) -> bytes:
        return json.dumps({"choices": [{"index": 0, "message": message}]} if whole else message).encode()

    assert verify_exported(export, saved(MESSAGE)).valid
    for other in ({"content": "x"}, {"tool_calls": None}, {"reasoning_content": "A plaice is named."}):
        assert failed(verify_exported(export, saved(MESSAGE | other))) == ["answer"]
    for text in (ANSWER, ""):
        receipt = make_receipt(payload=text.encode())
        assert verify_exported(make_export(receipt), saved({"role": "assistant", "content": text})).valid


def test_the_answers_of_the_other_endpoints_are_read_too() -> None:
    """R-02-13."""
    export = make_export(make_receipt(payload=result_payload("It is.", "A place is named.", [CALL])))
    items: list[dict[str, Any]] = [
        {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "A place is named."}]},
        {"type": "message", "content": [{"type": "output_text", "text": "It "}]},
        {"type": "function_call", "call_id": CALL.id, "name": CALL.name, "arguments": CALL.arguments},
        {"type": "message", "content": [{"type": "output_text", "text": "is."}]},
    ]

    def saved(*output: dict[str, Any]) -> bytes:
        return json.dumps({"object": "response", "output": output}).encode()

    assert verify_exported(export, saved(*items)).valid
    assert failed(verify_exported(export, saved(*items[1:]))) == ["answer"]
    assert failed(verify_exported(export, saved(*items, {"type": "web_search_call"}))) == ["answer"]
    for reasoning in ({}, {"reasoning_content": "Hm."}):
        receipt = make_receipt(payload=result_payload("It is.", "".join(reasoning.values()), []))
        choice = {"text": "It is.", "index": 0} | reasoning
        completion = {"object": "text_completion", "choices": [choice]}
        assert verify_exported(make_export(receipt), json.dumps(completion).encode()).valid
        completion["choices"] = [choice | {"text": "It was."}]
        assert failed(verify_exported(make_export(receipt), json.dumps(completion).encode())) == ["answer"]


@pytest.mark.parametrize("said", [{"message": {"role": "assistant", "content": ANSWER}}, {"text": ANSWER}])
def test_of_several_choices_the_one_of_the_receipts_job_is_compared(said: dict[str, Any]) -> None:
    receipt = make_receipt(payload=ANSWER.encode())
    other = {"message": {"role": "assistant", "content": "Lyon."}, "text": "Lyon.", "ryvion": {"job_id": "0" * 64}}

    def saved(job_id: str) -> bytes:
        own = said | {"ryvion": {"job_id": job_id}}
        return json.dumps({"object": "text_completion", "choices": [other, own, other]}).encode()

    assert verify_exported(make_export(receipt), saved(receipt.job_id)).valid
    assert failed(verify_exported(make_export(receipt), saved("1" * 64))) == ["answer"]


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3)))
def test_any_json_as_an_answer_is_compared_and_nothing_worse(value: object) -> None:
    for parts in (
        {"content": value},
        {"tool_calls": value},
        {"tool_calls": [{"id": value, "function": {"name": "f", "arguments": ""}}]},
    ):
        items = {"object": "response", "output": [{"type": "message", "content": value}, value]}
        choices = ({"choices": [{"message": parts}]}, {"choices": [value, {"ryvion": value}]})
        for answer in (value, {"role": "assistant"} | parts, *choices, items):
            assert failed(verify_exported(make_export(), json.dumps(answer).encode())) == ["answer"]
