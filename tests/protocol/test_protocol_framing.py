"""The frame decoder: the same frames and the same errors, however the bytes are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ryvion_protocol.errors import FramingError
from ryvion_protocol.framing import FrameDecoder, frame

LIMIT = 64
PAYLOADS = st.lists(st.binary(min_size=1, max_size=LIMIT), max_size=6)


def decoded(pieces: list[bytes]) -> tuple[list[bytes], str]:
    """All payloads, then the code of the error that ended it, if any."""
    decoder, payloads = FrameDecoder(LIMIT), []
    try:
        for piece in pieces:
            payloads += decoder.feed(piece)
        decoder.finish()
    except FramingError as exc:
        return payloads, exc.code
    return payloads, ""


@given(PAYLOADS, st.data())
def test_frames_come_out_whole_however_they_are_cut(payloads: list[bytes], data: st.DataObject) -> None:
    """R-00-1."""
    stream = b"".join(map(frame, payloads))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert decoded(pieces) == (payloads, "")
    assert decoded([stream[index : index + 1] for index in range(len(stream))]) == (payloads, "")


@given(st.binary(max_size=300))
def test_any_bytes_decode_alike_whole_and_byte_by_byte(stream: bytes) -> None:
    """R-00-2 and R-00-3."""
    assert decoded([stream]) == decoded([stream[index : index + 1] for index in range(len(stream))])


@given(PAYLOADS, st.binary(min_size=1, max_size=3))
def test_trailing_bytes_are_a_truncated_frame(payloads: list[bytes], rest: bytes) -> None:
    """R-00-3."""
    assert decoded([b"".join(map(frame, payloads)) + rest]) == (payloads, "frame_truncated")


def test_a_large_header_is_refused_before_its_payload_comes() -> None:
    """R-00-2."""
    decoder = FrameDecoder(LIMIT)
    with pytest.raises(FramingError):
        decoder.feed((LIMIT + 1).to_bytes(4, "big"))
    with pytest.raises(FramingError):
        decoder.feed(frame(b"later"))
    with pytest.raises(FramingError):
        decoder.finish()


def test_good_frames_before_a_bad_header_are_not_lost() -> None:
    decoder = FrameDecoder(LIMIT)
    assert decoder.feed(frame(b"good") + bytes(4)) == [b"good"]
    with pytest.raises(FramingError):
        decoder.finish()


def test_the_limit_may_change_between_frames() -> None:
    decoder = FrameDecoder(4)
    assert decoder.feed(frame(b"four")) == [b"four"]
    decoder.max_bytes = 8
    assert decoder.feed(frame(b"eight by")) == [b"eight by"]


def test_an_empty_frame_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="at least one byte"):
        frame(b"")
