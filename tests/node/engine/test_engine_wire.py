"""Frames between node and worker: any bytes give messages or a WireError."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ryvion_node.engine.constants import MAX_FRAME_BYTES
from ryvion_node.engine.wire import Frames, Generate, JobPiece, Message, Ping, Ready, WireError, pack, unpack

MESSAGES: list[Message] = [
    Generate(
        1,
        (("user", "hi", "", (), ""),),
        10,
        (0.5, 1.0, 0, 0.0, 0.0, 0.0, 1.0, 2**64 - 1, ((5, -1.5),)),
        ("a", "b"),
        ((), "auto", "", True),
        ("", ""),
        -1,
        b"",
        64,
    ),
    JobPiece(3, "\u20ac", (1, 2, 3), "", ((0, "a", "b", "{}"),), ((b"\xe2", -0.5, ((b"x", -1.0),)),)),
    Ready(b"\0" * 32, (1, 2, 3), "Q8_0", "chat", 0, 512, 1, 2, (7, 8)),
]


@given(st.lists(st.integers(1, 40), max_size=30))
def test_messages_survive_any_cutting(sizes: list[int]) -> None:
    data = pack(MESSAGES) + pack([Ping(1)])
    frames, got = Frames(), []
    for size in [*sizes, len(data)]:
        got += frames.feed(data[:size])
        data = data[size:]
    assert got == [*MESSAGES, Ping(1)]


@given(st.binary(max_size=200))
def test_any_body_is_messages_or_an_error(body: bytes) -> None:
    try:
        unpack(body)
    except WireError:
        return


@pytest.mark.parametrize(
    "rows",
    [
        5,
        [5],
        [[]],
        [["Nonsense"]],
        [["Ping"]],
        [["Ping", 1, 2]],
        [["Ping", True]],
        [["Ping", "1"]],
        [["JobPiece", 1, "x", [1, "2"]]],
        [["JobPiece", 1, "x", 5]],
    ],
)
def test_malformed_messages_are_refused(rows: object) -> None:
    with pytest.raises(WireError):
        unpack(msgpack.packb(rows))


def test_frames_have_a_limit_both_ways() -> None:
    with pytest.raises(WireError):
        Frames().feed((MAX_FRAME_BYTES + 1).to_bytes(4, "big"))
    with pytest.raises(WireError):
        pack([JobPiece(1, "x" * MAX_FRAME_BYTES, (), "", (), ())])
