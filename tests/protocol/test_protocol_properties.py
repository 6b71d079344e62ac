"""What must hold for any message and any bytes at all."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ryvion_protocol.any_message import Message
from ryvion_protocol.codec import decode_body, encode_body, pack_value
from ryvion_protocol.constants import MAX_DELTA_BYTES
from ryvion_protocol.errors import EncodingError, FramingError, ProtocolError, SchemaError
from ryvion_protocol.messages import ChatMessage, Delta, Error, JobRequest, Offer, ToolCall
from ryvion_protocol.packet import Packet, pack, unpack
from ryvion_protocol.signing import SigningIdentity
from specs.samples import EXECUTOR, JOB_REQUEST, OFFER, REQUESTER, sample_job
from tests.protocol.strategies import MESSAGE_CLASSES, legal

JOB = sample_job()
SIGNED = (pack(OFFER, EXECUTOR), JOB.quote, JOB.job_offer, JOB.envelope, JOB.acceptance)
ANY_VALUE = st.recursive(
    st.one_of(st.integers(-(2**63), 2**64 - 1), st.text(), st.binary(), st.booleans(), st.none(), st.floats()),
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(st.text(max_size=3), inner, max_size=2)),
    max_leaves=20,
)


def opened(raw: bytes) -> Packet | None:
    """What unpack makes of any bytes; R-00-14 is that it raises nothing but ProtocolError."""
    with contextlib.suppress(ProtocolError):
        return unpack(raw, MESSAGE_CLASSES)
    return None


@pytest.mark.parametrize("cls", MESSAGE_CLASSES, ids=lambda cls: cls.__name__)
@settings(max_examples=25)
@given(data=st.data())
def test_legal_fields_survive_a_round_trip(cls: Any, data: st.DataObject) -> None:
    message = data.draw(legal(cls))
    body = encode_body(message)
    assert decode_body(cls, body) == message
    assert encode_body(decode_body(cls, body)) == body


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_any_bytes_give_a_packet_or_a_protocol_error(raw: bytes) -> None:
    """R-00-14."""
    packet = opened(raw)
    assert packet is None or packet.raw == raw


@settings(max_examples=300)
@given(st.sampled_from(MESSAGE_CLASSES), ANY_VALUE, st.sampled_from((b"", bytes(64))))
def test_any_value_as_a_body_gives_a_packet_or_a_protocol_error(cls: Any, value: object, signature: bytes) -> None:
    """R-00-14, past the outer layer."""
    opened(pack_value((cls.TYPE, msgpack.packb(value), signature)))


@settings(max_examples=300)
@given(st.sampled_from(JOB.packets), st.data())
def test_a_mutated_packet_gives_a_packet_or_a_protocol_error(packet: Packet, data: st.DataObject) -> None:
    """R-00-14, and R-00-5: what is taken is canonical, so it packs to the same bytes again."""
    raw = bytearray(packet.raw)
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    taken = opened(bytes(raw))
    if taken is not None:
        assert encode_body(taken.message) == taken.body
        assert pack_value((taken.message.TYPE, taken.body, taken.signature)) == bytes(raw)


@settings(max_examples=200)
@given(st.sampled_from(SIGNED), st.data())
def test_a_flipped_bit_kills_a_signed_packet(packet: Packet, data: st.DataObject) -> None:
    """R-00-13 and R-01-4: whatever bit is flipped, anywhere in the packet."""
    bit = data.draw(st.integers(0, 8 * len(packet.raw) - 1))
    raw = bytearray(packet.raw)
    raw[bit // 8] ^= 1 << bit % 8
    assert opened(bytes(raw)) is None


@given(st.integers(0, 2**64), st.integers(0, 6))
def test_every_integer_has_one_encoding(value: int, width: int) -> None:
    """R-00-5 for the eight longer ways to write the same seq."""
    value %= 2**32
    head, size = [(b"\xcc", 1), (b"\xcd", 2), (b"\xce", 4), (b"\xcf", 8), (b"\xd1", 2), (b"\xd2", 4), (b"\xd3", 8)][
        width
    ]
    if value >= 2 ** (8 * size - 1):
        return
    longer = b"\x97" + head + value.to_bytes(size, "big") + b"\x00\xa0\x90\xa0\x90\x90"
    canonical = pack(Delta(value, 0, "", ())).body
    if longer != canonical:
        assert opened(pack_value(("delta", longer, b""))) is None


def test_pack_refuses_what_no_peer_would_take() -> None:
    with pytest.raises(SchemaError, match=r"Delta.text: the string holds a lone surrogate"):
        pack(Delta(0, 0, "\ud800", ()))
    with pytest.raises(SchemaError, match=r"JobRequest.messages\[1\].role"):
        pack(JobRequest(bytes(16), (JOB_REQUEST.messages[0], ChatMessage("", "", "")), (), ()))
    with pytest.raises(SchemaError, match="integer wanted, bool found"):
        pack(Delta(True, 0, "", ()))
    with pytest.raises(SchemaError, match="array wanted, list found"):
        pack(Delta(0, 0, "", [1]))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        encode_body("no message")


def test_a_packet_above_the_cap_of_its_class_is_refused_both_ways() -> None:
    """R-00-11."""
    texts = tuple(ChatMessage("user", "x" * 200_000, "") for _ in range(2))
    with pytest.raises(FramingError):
        pack(JobRequest(bytes(16), texts, (), ()))
    raw = pack_value(("delta", encode_body(Delta(0, 0, "x" * 60_000, (2**31,) * 1200)), b""))
    assert len(raw) > MAX_DELTA_BYTES
    with pytest.raises(FramingError):
        unpack(raw, (Delta,))
    with pytest.raises(FramingError):
        unpack(raw, ())


def test_a_body_of_too_many_small_values_is_refused_both_ways() -> None:
    """R-00-19: 32,768 values are legal, one more is not, however short the packet."""
    call = ToolCall("a", "a", "")
    stops = ("x",) * 3
    turns = (ChatMessage("assistant", "", "", (call,) * 128),) * 63 + (ChatMessage("assistant", "", "", (call,) * 27),)
    most = JobRequest(bytes(16), turns, stops, ())
    raw = pack(most).raw
    assert unpack(raw, (JobRequest,)).message == most
    with pytest.raises(SchemaError, match="more than 32768 values"):
        pack(replace(most, stop=(*stops, "x")))
    calls = tuple((turn.role, "", "", tuple((c.id, c.name, "") for c in turn.tool_calls), "") for turn in turns)
    rest = ((), ((), "auto", "", True), ("text", ""), (), False, 0, b"")
    assert pack_value(("job-request", pack_value((bytes(16), calls, stops, *rest)), b"")) == raw
    with pytest.raises(SchemaError, match="more than 32768 values"):
        unpack(pack_value(("job-request", pack_value((bytes(16), calls, (*stops, "x"), *rest)), b"")), (JobRequest,))
    with pytest.raises(EncodingError):
        unpack(pack_value(("job-request", pack_value((bytes(16), calls, (1.5,), *rest)), b"")), (JobRequest,))
    deep = b"\x91" * 900 + pack_value(bytes(40_000))
    with pytest.raises(EncodingError):
        unpack(pack_value(("job-request", deep, b"")), (JobRequest,))


@pytest.mark.parametrize("signer", [None, REQUESTER, SigningIdentity(bytes(32))])
def test_pack_signs_with_the_named_key_only(signer: SigningIdentity | None) -> None:
    with pytest.raises(ValueError, match="must be signed by the key it names"):
        pack(OFFER, signer)
    unsigned: Message = Error(400, "a", "", 0)
    with pytest.raises(ValueError, match="only if its class is signed"):
        pack(unsigned, EXECUTOR)


def test_the_received_bytes_are_kept() -> None:
    """R-00-13: hash and signature are over them."""
    taken = unpack(bytes(JOB.quote.raw), (Offer, type(JOB.quote.message)))
    assert (taken.raw, taken.body, taken.signature) == (JOB.quote.raw, JOB.quote.body, JOB.quote.signature)
    assert taken.hash == JOB.quote.hash
