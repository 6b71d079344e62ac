"""Tool calls on a real worker: forced ones keep to their schema, and what is counted is what was said."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace

import jsonschema
import pytest
from engine_support import REQUEST, TINY, collect, end_of, failure, running, text_of

from ryvion_node.engine.interface import (
    GenerationEvent,
    GenerationRequest,
    ModelSpec,
    OutputFormat,
    Piece,
    Sampling,
    Tool,
    ToolCall,
    ToolUse,
    Turn,
)
from ryvion_node.engine.llama_engine import LlamaEngine

SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 8},
        "days": {"type": "integer", "minimum": 1, "maximum": 5},
        "units": {"type": "array", "items": {"enum": ["c", "f"]}, "maxItems": 2},
    },
    "required": ["city", "days", "units"],
    "additionalProperties": False,
}
WEATHER = Tool("get_weather", "The weather of a city", json.dumps(SCHEMA))
USE = ToolUse((WEATHER, Tool("now", "", "")), "named", "get_weather", parallel=False)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "trio"


@pytest.fixture(scope="module")
async def engine(anyio_backend: str) -> AsyncIterator[LlamaEngine]:
    async with running(ModelSpec("small", TINY)) as engine:
        yield engine


def asking(use: ToolUse, seed: int = 1) -> GenerationRequest:
    return replace(REQUEST, tools=use, max_tokens=160, sampling=Sampling(temperature=1.0, seed=seed))


def calls_of(events: list[GenerationEvent]) -> list[tuple[str, str, str]]:
    """Id, name and arguments of each call."""
    calls: list[tuple[str, str, str]] = []
    for piece in (piece for event in events if isinstance(event, Piece) for piece in event.calls):
        if piece.index == len(calls):
            assert piece.id
            assert piece.name
            calls.append((piece.id, piece.name, ""))
        call_id, name, arguments = calls[piece.index]
        calls[piece.index] = (call_id, name, arguments + piece.arguments)
    return calls


async def test_forced_calls_keep_to_their_schema(engine: LlamaEngine) -> None:
    for seed in range(8):
        events = await collect(engine, asking(USE, seed))
        ((_id, name, arguments),) = calls_of(events)
        assert name == "get_weather"
        jsonschema.validate(json.loads(arguments), SCHEMA)
        assert text_of(events) == ""
        end = end_of(events)
        assert end.reason == "tool_calls"
        assert end.completion_tokens == await engine.count_texts("small", (name, arguments))
        assert end.reasoning_tokens == 0


async def test_tools_are_part_of_the_prompt_that_is_counted(engine: LlamaEngine) -> None:
    turns = (
        *REQUEST.turns,
        Turn("assistant", "", tool_calls=(ToolCall("a", "now", "{}"),)),
        Turn("tool", "noon", tool_call_id="a"),
    )
    for each in (REQUEST.turns, turns):
        for use in (ToolUse(), USE, replace(USE, choice="auto"), replace(USE, choice="none")):
            events = await collect(engine, replace(asking(use), turns=each, max_tokens=1))
            assert events[0].prompt_tokens == await engine.count_prompt("small", each, use)  # type: ignore[union-attr]
    plain, told, hidden = [
        await engine.count_prompt("small", turns, use) for use in (ToolUse(), USE, replace(USE, choice="none"))
    ]
    assert plain == hidden < told


async def test_a_call_cut_short_by_its_limit_ends_with_length(engine: LlamaEngine) -> None:
    events = await collect(engine, replace(asking(USE), max_tokens=30))
    assert end_of(events).reason == "length"


async def test_refusals_are_typed(engine: LlamaEngine) -> None:
    async def code(use: ToolUse, output: OutputFormat | None = None) -> str:
        return (await failure(engine, replace(asking(use), output=output))).code

    def one(parameters: str) -> ToolUse:
        return ToolUse((Tool("x", "", parameters),), "required")

    assert await code(one("nonsense")) == "grammar_invalid"
    assert await code(one('{"type": "nonsense"}')) == "grammar_invalid"
    assert await code(one('{"$ref": "http://example.org/"}')) == "grammar_invalid"
    assert await code(replace(USE, name="other")) == "grammar_invalid"
    assert await code(replace(USE, choice="auto"), OutputFormat("lark", "start: /x/")) == "grammar_invalid"
