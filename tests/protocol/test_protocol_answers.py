"""Answers of any shape: how they are put together from Deltas, hashed and counted (R-02-9, R-02-13, R-04-31)."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ryvion_protocol.errors import PayloadInvalid
from ryvion_protocol.messages import CallPiece, Delta, Finished, ToolCall
from ryvion_protocol.packet import pack, unpack
from ryvion_protocol.transcript import ResultBuilder, result_payload
from specs.samples import CALL_ANSWER, COMPLETION_TOKENS, PROMPT_TOKENS, evidence_of, message_of, sample_job
from tests.protocol.strategies import legal
from tests.protocol.strict_msgpack import read

TEXTS = st.text(st.characters(codec="utf-8"), max_size=12)
NAMES = st.text("abcXYZ019_-", min_size=1, max_size=8)
CALLS = st.lists(st.builds(ToolCall, id=NAMES, name=NAMES, arguments=TEXTS), max_size=4).map(tuple)


def cut(data: st.DataObject, text: str) -> list[str]:
    """The text in pieces, some of them perhaps empty."""
    marks = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=3)))
    return [text[start:end] for start, end in zip([0, *marks], [*marks, len(text)], strict=True)]


def streamed(data: st.DataObject, content: str, reasoning: str, calls: tuple[ToolCall, ...]) -> list[Delta]:
    """The same answer in some lawful order of frames."""
    deltas = [Delta(0, 0, "", (), piece) for piece in cut(data, reasoning)]
    deltas += [Delta(0, 0, piece, ()) for piece in cut(data, content)]
    for index, call in enumerate(calls):
        first, *rest = cut(data, call.arguments)
        pieces = [CallPiece(index, call.id, call.name, first), *(CallPiece(index, "", "", piece) for piece in rest)]
        if data.draw(st.booleans()):
            deltas.append(Delta(0, 0, "", (), "", tuple(pieces)))
        else:
            deltas += [Delta(0, 0, "", (), "", (piece,)) for piece in pieces]
    return [replace(delta, seq=seq) for seq, delta in enumerate(deltas)]


def built(deltas: list[Delta]) -> ResultBuilder:
    builder = ResultBuilder()
    for delta in deltas:
        builder.add(delta)
    return builder


@given(TEXTS, TEXTS, CALLS, st.data())
def test_an_answer_is_the_same_however_it_was_cut(
    content: str, reasoning: str, calls: tuple[ToolCall, ...], data: st.DataObject
) -> None:
    """R-02-9 and R-02-13, with the array read back by a reader of its own."""
    builder = built(streamed(data, content, reasoning, calls))
    assert (builder.content, builder.reasoning, builder.calls) == (content, reasoning, calls)
    assert builder.digest == hashlib.sha256(builder.payload).digest()
    if reasoning or calls:
        assert read(builder.payload) == (
            content,
            reasoning,
            tuple((call.id, call.name, call.arguments) for call in calls),
        )
        with pytest.raises(UnicodeDecodeError):
            builder.payload.decode()
    else:
        assert builder.payload.decode() == content


@given(TEXTS, TEXTS, CALLS, st.data())
def test_all_that_is_billed_is_counted_in_bytes(
    content: str, reasoning: str, calls: tuple[ToolCall, ...], data: st.DataObject
) -> None:
    """R-04-24: the bound of a requester without a tokenizer is over the texts that are billed (R-04-16)."""
    builder = built(streamed(data, content, reasoning, calls))
    expected = [content, reasoning, *(text for call in calls for text in (call.name, call.arguments))]
    assert builder.billable_texts() == tuple(text for text in expected if text)
    assert builder.text_bytes == sum(len(text.encode()) for text in expected)


@given(st.tuples(TEXTS, TEXTS, CALLS), st.tuples(TEXTS, TEXTS, CALLS))
def test_two_answers_have_the_same_payload_only_when_they_are_the_same(
    one: tuple[str, str, tuple[ToolCall, ...]], other: tuple[str, str, tuple[ToolCall, ...]]
) -> None:
    """R-02-13."""
    assert (result_payload(*one) == result_payload(*other)) == (one == other)


@given(st.lists(legal(Delta), max_size=4))
def test_any_deltas_are_put_together_or_refused(deltas: list[Delta]) -> None:
    """R-04-31: what a peer sends in a legal Delta is an answer, or PayloadInvalid."""
    with contextlib.suppress(PayloadInvalid):
        builder = built(deltas)
        assert [piece.index for delta in deltas for piece in delta.calls if piece.id] == list(range(len(builder.calls)))


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.booleans()), max_size=6))
def test_pieces_of_calls_come_in_order(steps: list[tuple[int, bool, bool]]) -> None:
    """R-04-31 against a plain model: the calls begun so far, and whether each piece may follow."""
    begun, lawful = 0, True
    builder = ResultBuilder()
    for index, has_id, has_name in steps:
        if has_id and has_name:
            lawful, begun = index == begun, begun + 1
        else:
            lawful = not has_id and not has_name and index == begun - 1
        piece = CallPiece(index, "c" if has_id else "", "f" if has_name else "", "x")
        if not lawful:
            with pytest.raises(PayloadInvalid, match="a piece of call"):
                builder.add(Delta(0, 0, "", (), "", (piece,)))
            return
        builder.add(Delta(0, 0, "", (), "", (piece,)))
    assert len(builder.calls) == begun


def test_the_sample_answer_with_calls_is_what_its_frames_say() -> None:
    job = sample_job(answer=CALL_ANSWER, reason="tool_calls")
    builder = built([message_of(Delta, unpack(packet.raw, (Delta,))) for packet in job.deltas])
    assert builder.digest == job.result_hash
    assert builder.calls == (
        ToolCall("call_b1", "get_weather", '{"city":"Montreal"}'),
        ToolCall("call_b2", "get_weather", "{}"),
    )
    assert evidence_of(job).billable_texts == len(builder.billable_texts()) == 5


def test_a_finish_with_calls_is_a_completed_one() -> None:
    """R-04-15 and R-02-10."""
    finished = Finished("tool_calls", PROMPT_TOKENS, COMPLETION_TOKENS, reasoning_tokens=COMPLETION_TOKENS)
    assert message_of(Finished, unpack(pack(finished).raw, (Finished,))) == finished
