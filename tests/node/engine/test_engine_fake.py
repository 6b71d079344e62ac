"""The shipped fake keeps the promises of the interface."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio

from ryvion_node.engine.fake import FakeCounter, FakeEngine, Script, count_words, fake_model, words
from ryvion_node.engine.interface import Ended, EngineError, GenerationRequest, Piece, PromptRead, Sampling, Turn

pytestmark = pytest.mark.virtual_time
REQUEST = GenerationRequest("fake", (Turn("user", "one two  three\n"),), 50, Sampling(0.0))


async def events_of(engine: FakeEngine, request: GenerationRequest) -> list[object]:
    async with engine.generate(request) as events:
        return [event async for event in events]


async def test_echo() -> None:
    engine = FakeEngine([fake_model()])
    events = await events_of(engine, REQUEST)
    assert isinstance(events[0], PromptRead)
    assert events[0].prompt_tokens == await engine.count_prompt("fake", REQUEST.turns)
    text = "".join(event.text for event in events if isinstance(event, Piece))
    assert text == "one two  three\n"
    assert events[-1] == Ended("stop", await engine.count_texts("fake", [text]))
    assert engine.requests == [REQUEST]
    assert engine.cancelled == 0


async def test_limits_scripts_and_time() -> None:
    script = Script("a b c", prompt_s=10, token_s=1)
    engine = FakeEngine([fake_model()], lambda _request: script)
    start = trio.current_time()
    assert (await events_of(engine, replace(REQUEST, max_tokens=2)))[-1] == Ended("length", 2)
    assert trio.current_time() - start == pytest.approx(12)
    async with engine.generate(REQUEST) as events:
        await anext(events)
    assert engine.cancelled == 1


async def test_failures() -> None:
    lost = EngineError("worker_crashed", "gone")
    engine = FakeEngine([fake_model(context_tokens=8)], lambda _request: Script("a b", error=lost))
    with pytest.raises(EngineError, match="gone"):
        await events_of(engine, REQUEST)
    with pytest.raises(EngineError) as caught:
        await events_of(engine, replace(REQUEST, turns=(Turn("user", "x " * 9),)))
    assert caught.value.code == "context_overflow"
    engine.withdraw("fake")
    assert engine.models() == ()
    with pytest.raises(EngineError) as caught:
        await events_of(engine, REQUEST)
    assert caught.value.code == "model_unknown"


async def test_slots_are_shared_in_turn() -> None:
    engine = FakeEngine([fake_model(slots=1)], lambda _request: Script("a", token_s=1))
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(events_of, engine, REQUEST)
    assert trio.current_time() - start == pytest.approx(3)


async def test_counter_agrees_or_errs_on_purpose() -> None:
    engine, digest = FakeEngine([fake_model()]), fake_model().digest
    honest, wrong = FakeCounter([digest]), FakeCounter([digest], extra=3)
    assert honest.knows(digest)
    assert not honest.knows(b"other")
    assert await honest.count_prompt(digest, REQUEST.turns) == await engine.count_prompt("fake", REQUEST.turns)
    assert await wrong.count_texts(digest, ["a b"]) == 5
    with pytest.raises(EngineError):
        await honest.count_texts(b"other", ["a"])


def test_words_join_to_the_text() -> None:
    for text in ("", " ", "a", " a  b\n", "caf\u00e9 \u20ac\n\n"):
        assert "".join(words(text)) == text
        assert count_words(text) == len(words(text))
