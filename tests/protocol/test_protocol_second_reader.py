"""The codec against a second reader written from the text of spec 00 (R-00-5, R-00-6, R-00-7)."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ryvion_protocol.codec import check_kinds, pack_value, unpack_value
from ryvion_protocol.errors import EncodingError
from tests.protocol.strict_msgpack import NotCanonical, read
from tests.protocol.vector_runner import Case, load_cases

HEADS = [0x00, 0x7F, 0x80, 0x90, 0x91, 0x92, 0x9F, 0xA0, 0xA1, 0xA2, 0xBF, 0xFF, *range(0xC0, 0xE0)]
PIECES = st.lists(
    st.one_of(
        st.sampled_from(HEADS).map(lambda head: bytes([head])),
        st.sampled_from(
            (b"\x00", b"\x01", b"\x1f", b"\x20", b"\x7f", b"\x80", b"\xff", b"\x01\x00", bytes(2), bytes(4))
        ),
        st.integers(0, 2**64 - 1).map(pack_value),
        st.text(max_size=40).map(pack_value),
        st.binary(max_size=40).map(pack_value),
    ),
    max_size=8,
).map(b"".join)


def by_codec(data: bytes) -> object:
    value = unpack_value(data)
    check_kinds(value)
    return value


def agree(data: bytes) -> None:
    try:
        wanted = read(data)
    except NotCanonical:
        with pytest.raises(EncodingError):
            by_codec(data)
        return
    assert by_codec(data) == wanted
    assert pack_value(wanted) == data


@settings(max_examples=400)
@given(PIECES)
@example(b"\xd9\x20" + b"x" * 32)
@example(b"\xda\x01\x00" + b"x" * 256)
@example(b"\xda\x00\xff" + b"x" * 255)
@example(b"\xdb\x00\x01\x00\x00" + b"x" * 65536)
@example(b"\xdb\x00\x00\xff\xff" + b"x" * 65535)
@example(b"\xc5\x00\xff" + b"x" * 255)
@example(b"\xc5\x01\x00" + b"x" * 256)
@example(b"\xc6\x00\x00\xff\xff" + b"x" * 65535)
@example(b"\xdc\x00\x10" + bytes(16))
@example(b"\xdc\x00\x0f" + bytes(15))
@example(b"\xdd\x00\x00\xff\xff" + bytes(65535))
@example(b"\xdd\x00\x01\x00\x00" + bytes(65536))
@example(b"\xdd\xff\xff\xff\xff")
@example(b"\x91" * 6 + b"\x00")
@example(b"\x91" * 6 + b"\x90")
@example(b"\x91" * 5 + b"\x90")
def test_both_readers_agree_on_any_bytes(data: bytes) -> None:
    agree(data)


@pytest.mark.parametrize(
    "case", [case for case in load_cases() if case.content["operation"] == "packet"], ids=lambda case: case.id
)
def test_both_readers_agree_on_every_packet_vector(case: Case) -> None:
    raw = bytes.fromhex(case.content["input_hex"])
    agree(raw)
    with contextlib.suppress(NotCanonical):
        value = read(raw)
        if isinstance(value, tuple) and len(value) > 1 and isinstance(value[1], bytes):
            agree(value[1])
