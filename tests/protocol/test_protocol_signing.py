"""Keys and signatures beyond the vectors."""

from __future__ import annotations

import dataclasses
from typing import Any

import nacl.bindings
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ryvion_protocol.ed25519 import verify
from ryvion_protocol.errors import PayloadInvalid, ProtocolError, SignatureInvalid
from ryvion_protocol.messages import Receipt
from ryvion_protocol.receipt import (
    ReceiptFields,
    fields_of,
    issue_receipt,
    receipt_from_json,
    receipt_to_json,
    verify_receipt,
)
from ryvion_protocol.schema import JobId
from ryvion_protocol.signing import SigningIdentity, signing_input, verify_typed
from specs.samples import EXECUTOR, REQUESTER
from tests.protocol.vector_runner import load_cases

JOB_IDS = st.text("0123456789abcdef-", min_size=1, max_size=64).map(JobId)
FIELDS = st.builds(
    ReceiptFields,
    JOB_IDS,
    st.just(EXECUTOR.public_key),
    st.binary(min_size=32, max_size=32),
    st.integers(0, 2**53 - 1),
)


@given(FIELDS, st.data())
def test_a_receipt_verifies_until_one_field_changes(fields: ReceiptFields, data: st.DataObject) -> None:
    """R-02-2."""
    receipt = issue_receipt(fields, EXECUTOR)
    verify_receipt(receipt)
    assert receipt_from_json(receipt_to_json(receipt)) == receipt
    assert fields_of(receipt) == fields
    change: dict[str, Any] = data.draw(
        st.sampled_from(
            (
                {"metering_units": (fields.metering_units + 1) % 2**53},
                {"job_id": f"{fields.job_id[:63]}0" if fields.job_id[-1:] != "0" else f"{fields.job_id[:-1]}1"},
                {"result_hash": bytes([fields.result_hash[0] ^ 1]) + fields.result_hash[1:]},
                {"node_key": REQUESTER.public_key},
                {"signature": receipt.signature[:-1] + bytes([receipt.signature[-1] ^ 1])},
                {"signature": receipt.signature[:-1]},
            )
        )
    )
    with pytest.raises(SignatureInvalid):
        verify_receipt(dataclasses.replace(receipt, **change))


@given(st.recursive(st.one_of(st.none(), st.integers(), st.text(), st.booleans()), st.lists), st.data())
def test_any_json_gives_a_receipt_or_a_protocol_error(value: object, data: st.DataObject) -> None:
    """R-02-7."""
    good: dict[str, object] = dict(
        receipt_to_json(issue_receipt(ReceiptFields(JobId("0"), EXECUTOR.public_key, bytes(32), 1), EXECUTOR))
    )
    good[data.draw(st.sampled_from(sorted(good)))] = value
    for candidate in (value, good):
        try:
            verify_receipt(receipt_from_json(candidate))
        except ProtocolError:
            continue


@given(st.text(max_size=20))
def test_no_job_id_can_make_another_receipts_preimage(job_id: str) -> None:
    """R-02-4: splitting a preimage at its separators gives the fields back."""
    fields = ReceiptFields(JobId(job_id), EXECUTOR.public_key, bytes(32), 7)
    try:
        parts = fields.preimage().decode("ascii").split("|")
    except PayloadInvalid:
        return
    assert parts == ["RYV1", "receipt", job_id, EXECUTOR.public_key.hex(), "00" * 32, "7"]


def test_a_typed_input_is_never_a_receipt_digest() -> None:
    """R-01-6: shorter inputs are not signed, and there is no other way to have bytes signed."""
    with pytest.raises(ValueError, match="more than 32 bytes"):
        EXECUTOR.sign_typed("x", bytes(12))
    with pytest.raises(SignatureInvalid, match="more than 32 bytes"):
        verify_typed(EXECUTOR.public_key, "x", bytes(12), bytes(64))
    verify_typed(EXECUTOR.public_key, "x", bytes(13), EXECUTOR.sign_typed("x", bytes(13)))
    assert len(signing_input("x", bytes(13))) == 33
    public = {name for name in dir(SigningIdentity) if not name.startswith("_")}
    assert public == {"public_key", "sign_typed", "sign_receipt"}
    with pytest.raises(ValueError, match="signed by the node it names"):
        REQUESTER.sign_receipt(ReceiptFields(JobId("0"), EXECUTOR.public_key, bytes(32), 0))


def test_an_identity_does_not_show_its_secret() -> None:
    assert bytes(range(32)).hex() not in repr(EXECUTOR)
    assert repr(EXECUTOR) == f"SigningIdentity({EXECUTOR.public_key.hex()})"
    with pytest.raises(ValueError, match="32 bytes"):
        SigningIdentity(bytes(31))


def test_low_order_keys_are_refused_even_where_the_library_alone_says_yes() -> None:
    """R-01-3, over everything that a key of small order could be given."""
    torsion = bytes([1]) + bytes(31)
    assert not nacl.bindings.crypto_core_ed25519_is_valid_point(torsion)
    for key in (torsion, bytes(32), b"\xff" * 32):
        with pytest.raises(SignatureInvalid):
            verify(key, b"anything", torsion + bytes(32))


def test_the_mixed_order_vector_is_one_that_the_library_accepts() -> None:
    """R-01-3: without our own check of the key, this signature would count."""
    vector = next(case.content for case in load_cases() if case.id == "key-mixed-order")
    data = signing_input("withdraw", bytes.fromhex(vector["input_hex"]))
    key, signature = bytes.fromhex(vector["given"]["key"]), bytes.fromhex(vector["given"]["signature"])
    assert nacl.bindings.crypto_sign_open(signature + data, key) == data
    with pytest.raises(SignatureInvalid, match="main subgroup"):
        verify(key, data, signature)


def test_verifying_takes_no_shortcut_for_a_known_key() -> None:
    """R-01-2: the lengths are looked at first, also for a key that was seen before."""
    signature = EXECUTOR.sign_typed("delta", b"a body of some length")
    verify_typed(EXECUTOR.public_key, "delta", b"a body of some length", signature)
    for key, sig in ((EXECUTOR.public_key, signature[:-1]), (EXECUTOR.public_key + b"\0", signature)):
        with pytest.raises(SignatureInvalid):
            verify_typed(key, "delta", b"a body of some length", sig)


def test_a_receipt_with_impossible_fields_is_a_protocol_error() -> None:
    """R-02-5."""
    receipt = Receipt(JobId("0"), EXECUTOR.public_key, bytes(31), 1, bytes(64))
    for wrong in (receipt, dataclasses.replace(receipt, result_hash=bytes(32), metering_units=True)):
        with pytest.raises(PayloadInvalid):
            verify_receipt(wrong)
