"""When frames leave and how large they are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ryvion_node.engine.interface import Piece
from ryvion_node.executor.coalesce import DeltaBuffer, next_frame_at
from ryvion_node.executor.constants import FRAME_MAX_S, MAX_FRAME_TEXT_BYTES
from ryvion_protocol.constants import MAX_TOKENS_PER_DELTA


@given(st.floats(0, 1e7), st.integers(1, 1000))
def test_next_frame_is_soon_and_never_in_the_past(now_s: float, jobs: int) -> None:
    assert now_s <= next_frame_at(now_s, jobs) <= now_s + FRAME_MAX_S + 1e-6


def test_jobs_of_a_node_send_at_the_same_tick() -> None:
    assert next_frame_at(10.001, 8) == next_frame_at(10.019, 8)


def test_one_job_sends_every_30_ms_and_many_every_120() -> None:
    one, many = next_frame_at(0.0, 1), next_frame_at(0.0, 100)
    assert abs(one - 0.03) < 1e-9
    assert abs(many - 0.12) < 1e-9


@given(st.lists(st.tuples(st.text(max_size=50), st.lists(st.integers(0, 2**32 - 1), max_size=3)), max_size=30))
def test_nothing_is_lost_or_reordered(pieces: list[tuple[str, list[int]]]) -> None:
    buffer = DeltaBuffer()
    for text, tokens in pieces:
        buffer.add(Piece(text, tuple(tokens)))
    deltas = buffer.take()
    assert "".join(delta.text for delta in deltas) == "".join(text for text, _ in pieces)
    assert [token for delta in deltas for token in delta.tokens] == [t for _, tokens in pieces for t in tokens]
    assert [delta.seq for delta in deltas] == list(range(len(deltas)))
    assert buffer.take() == []


def test_large_texts_are_cut_between_characters() -> None:
    buffer = DeltaBuffer()
    buffer.add(Piece("é😀" * 20_000, tuple(range(MAX_TOKENS_PER_DELTA + 1))))
    deltas = buffer.take()
    assert len(deltas) > 1
    assert all(len(delta.text.encode()) <= MAX_FRAME_TEXT_BYTES for delta in deltas)
    assert "".join(delta.text for delta in deltas) == "é😀" * 20_000
