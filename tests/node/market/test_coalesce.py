"""When frames leave and how large they are."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ryvion_node.engine.interface import Alternative, CallPiece, EngineError, Piece, TokenLogprob
from ryvion_node.executor.coalesce import DeltaBuffer, next_frame_at
from ryvion_node.executor.constants import FRAME_MAX_S, MAX_FRAME_TEXT_BYTES
from ryvion_node.executor.request import wire_logprob
from ryvion_protocol.constants import MAX_DELTA_BYTES, MAX_TOKENS_PER_DELTA
from ryvion_protocol.packet import pack
from ryvion_protocol.transcript import ResultBuilder


@given(st.floats(0, 1e7), st.integers(1, 1000))
def test_next_frame_is_soon_and_never_in_the_past(now_s: float, jobs: int) -> None:
    assert now_s <= next_frame_at(now_s, jobs) <= now_s + FRAME_MAX_S + 1e-6


def test_jobs_of_a_node_send_at_the_same_tick() -> None:
    assert next_frame_at(10.001, 8) == next_frame_at(10.019, 8)


def test_one_job_sends_every_30_ms_and_many_every_120() -> None:
    one, many = next_frame_at(0.0, 1), next_frame_at(0.0, 100)
    assert abs(one - 0.03) < 1e-9
    assert abs(many - 0.12) < 1e-9


alternatives = st.builds(Alternative, st.binary(max_size=300), st.floats())
logprobs = st.builds(TokenLogprob, alternatives, st.lists(alternatives, max_size=22).map(tuple))


@st.composite
def answers(draw: st.DrawFn) -> list[Piece]:
    """Pieces as an engine may make them; with log-probabilities there is one for each token, or no token ids."""
    told, with_ids = draw(st.booleans()), draw(st.booleans())
    pieces, begun = [], 0
    for kind in draw(st.lists(st.sampled_from(["text", "reasoning", "call", "arguments"]), max_size=12)):
        said = draw(st.text(max_size=30)) * draw(st.sampled_from([1, 1, 1, 2000]))
        tokens = tuple(range(draw(st.integers(0, 3))))
        piece = Piece("", tokens if with_ids else (), logprobs=tuple(draw(logprobs) for _ in tokens) if told else ())
        if kind == "text":
            piece = replace(piece, text=said)
        elif kind == "reasoning":
            piece = replace(piece, reasoning=said)
        elif kind == "call":
            piece = replace(piece, calls=(CallPiece(begun, f"id{begun}", f"f{begun}", said),))
            begun += 1
        elif begun:
            piece = replace(piece, calls=(CallPiece(begun - 1, "", "", said),))
        pieces.append(piece)
    return pieces


@given(answers(), st.integers(0, 12))
@settings(deadline=None)
def test_nothing_is_lost_or_reordered_and_every_frame_is_legal(pieces: list[Piece], taken_early: int) -> None:
    buffer, deltas = DeltaBuffer(), []
    for number, piece in enumerate(pieces):
        buffer.add(piece)
        if number == taken_early:
            deltas += buffer.take()
    deltas += buffer.take()
    assert buffer.take() == []
    result = ResultBuilder()
    for seq, delta in enumerate(deltas):
        assert delta.seq == seq
        assert len(pack(delta).raw) <= MAX_DELTA_BYTES  # packing checks all that spec 04 asks of a Delta
        result.add(delta)
    assert result.content == "".join(piece.text for piece in pieces)
    assert result.reasoning == "".join(piece.reasoning for piece in pieces)
    arguments: dict[int, str] = {}
    for call in (call for piece in pieces for call in piece.calls):
        arguments[call.index] = arguments.get(call.index, "") + call.arguments
    assert [call.arguments for call in result.calls] == list(arguments.values())
    assert [call.name for call in result.calls] == [f"f{index}" for index in arguments]
    assert [token for delta in deltas for token in delta.tokens] == [t for piece in pieces for t in piece.tokens]
    told = [wire_logprob(one) for piece in pieces for one in piece.logprobs]
    assert [one for delta in deltas for one in delta.logprobs] == told


def test_the_fullest_frames_fit() -> None:
    worst = Alternative(b"x" * 256, -4000.0)
    piece = Piece(
        "é" * 40_000,
        (2**32 - 1,) * 3000,
        reasoning="😀" * 20_000,
        calls=tuple(CallPiece(index, "i" * 64, "n" * 64, "{}" * 300) for index in range(128)),
        logprobs=(TokenLogprob(worst, (worst,) * 20), *(TokenLogprob(Alternative(b"", -0.1), ()) for _ in range(2999))),
    )
    buffer = DeltaBuffer()
    buffer.add(piece)
    assert all(len(pack(delta).raw) <= MAX_DELTA_BYTES for delta in buffer.take())


def test_ids_that_do_not_match_their_log_probabilities_are_left_out() -> None:
    buffer = DeltaBuffer()
    buffer.add(Piece("a", (1, 2), logprobs=(TokenLogprob(Alternative(b"a", -0.5), ()),)))
    (delta,) = buffer.take()
    assert (delta.tokens, len(delta.logprobs)) == ((), 1)


@pytest.mark.parametrize(
    "calls",
    [
        [CallPiece(1, "a", "f", "")],
        [CallPiece(0, "", "", "x")],
        [CallPiece(0, "a", "", "x")],
        [CallPiece(0, "a", "no spaces", "x")],
        [CallPiece(0, "a", "f", ""), CallPiece(0, "b", "g", "")],
        [CallPiece(0, "a", "f", ""), CallPiece(1, "b", "g", ""), CallPiece(0, "", "", "x")],
        [CallPiece(index, "a", "f", "") for index in range(129)],
    ],
)
def test_calls_that_no_frame_can_carry_are_the_engines_fault(calls: list[CallPiece]) -> None:
    buffer = DeltaBuffer()
    with pytest.raises(EngineError, match="no legal order"):
        buffer.add(Piece("", calls=tuple(calls)))


def test_large_texts_are_cut_between_characters() -> None:
    buffer = DeltaBuffer()
    buffer.add(Piece("é😀" * 20_000, tuple(range(MAX_TOKENS_PER_DELTA + 1))))
    deltas = buffer.take()
    assert len(deltas) > 1
    assert all(len(delta.text.encode()) <= MAX_FRAME_TEXT_BYTES for delta in deltas)
    assert "".join(delta.text for delta in deltas) == "é😀" * 20_000
