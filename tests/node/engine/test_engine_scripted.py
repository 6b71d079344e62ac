"""The scripted engine: what its models do, and that nobody starts it by accident."""

from __future__ import annotations

import json
from dataclasses import replace

import jsonschema
import pytest
import trio

from ryvion_node.config import ConfigInvalid, load_config
from ryvion_node.engine import scripted_tools
from ryvion_node.engine.interface import (
    Ended,
    EngineError,
    GenerationRequest,
    OutputFormat,
    Piece,
    PromptRead,
    Sampling,
    Tool,
    ToolUse,
    Turn,
)
from ryvion_node.engine.scripted import KEEP_ALIVES, VARIABLE, ScriptedEngine, ScriptedEngineRefused, Vanished

pytestmark = pytest.mark.virtual_time
TEST = {VARIABLE: "1"}
SAID = "one two  three"


def ask(model: str, owner: bytes = b"somebody", stop: tuple[str, ...] = (), said: str = SAID) -> GenerationRequest:
    return GenerationRequest(model, (Turn("user", said),), 50, Sampling(0.0), stop, owner=owner)


async def run(engine: ScriptedEngine, request: GenerationRequest, into: list[object]) -> None:
    async with engine.generate(request) as events:
        async for event in events:
            into.append(event)


def text_of(events: list[object]) -> str:
    return "".join(event.text for event in events if isinstance(event, Piece))


@pytest.mark.parametrize("environment", [{}, {VARIABLE: ""}, {VARIABLE: "0"}, {VARIABLE: "true"}])
def test_it_starts_only_where_somebody_said_that_it_is_a_test(environment: dict[str, str]) -> None:
    with pytest.raises(ScriptedEngineRefused, match=f"{VARIABLE}=1"):
        ScriptedEngine(1.0, environment)


def test_it_cannot_be_mixed_with_real_models() -> None:
    with pytest.raises(ConfigInvalid, match="scripted"):
        load_config(
            None,
            {"executor.enabled": True, "executor.engine": "scripted", "executor.models": [{"name": "ryvion-tiny"}]}
            | {"node.jurisdiction": "DE"},
        )


async def test_echo_ends_at_stop_texts_and_remembers_nothing() -> None:
    engine, events = ScriptedEngine(1.0, TEST), list[object]()
    await run(engine, ask("mock-echo"), events)
    assert text_of(events) == SAID
    events.clear()
    await run(engine, ask("mock-echo", stop=("never", " two")), events)
    assert text_of(events) == "one"
    assert engine.requests == []


@pytest.mark.parametrize(("model", "error"), [("mock-midstream-error", EngineError), ("mock-drop", Vanished)])
async def test_answers_break_after_words_that_have_had_time_to_leave(model: str, error: type[Exception]) -> None:
    events: list[object] = []
    with pytest.raises(error):
        await run(ScriptedEngine(1.0, TEST), ask(model), events)
    assert sum(isinstance(event, Piece) for event in events) >= 3
    assert not isinstance(events[-1], Ended)


async def test_slow_start_waits_longer_than_the_keep_alives_and_its_bid_says_so() -> None:
    engine, events = ScriptedEngine(15.0, TEST), list[object]()
    (model,) = [model for model in engine.models() if model.name == "mock-slow-start"]
    began = trio.current_time()
    async with engine.generate(ask("mock-slow-start")) as coming:
        async for event in coming:
            events.append(event)
            if isinstance(event, Piece):
                break
    assert isinstance(events[0], PromptRead)
    assert trio.current_time() - began > KEEP_ALIVES * 15.0
    assert model.load_ms >= KEEP_ALIVES * 15_000


PEOPLE = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 2, "maxLength": 8},
        "age": {"anyOf": [{"type": "integer", "minimum": 18, "maximum": 99}, {"type": "null"}]},
        "role": {"enum": ["buyer", "seller"]},
        "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}, "minItems": 1},
        "active": {"type": "boolean"},
    },
    "required": ["name", "age", "role", "tags", "active"],
    "additionalProperties": False,
    "$defs": {"tag": {"type": ["string", "null"]}},
}


@pytest.mark.parametrize("said", ["", "Set the age to 7 for 你好", "a" * 5000])
def test_schemas_are_filled_with_what_was_said(said: str) -> None:
    value = scripted_tools.filled(PEOPLE, said)
    jsonschema.validate(value, PEOPLE)
    assert value["tags"] == [said]


def with_tools(said: str, choice: str = "auto", *, parallel: bool = True, after: str = "") -> GenerationRequest:
    names = ("weather", "clock", "nothing")
    tools = tuple(Tool(name, "", json.dumps(PEOPLE) if name == "weather" else "") for name in names)
    turns = (Turn("user", said), *((Turn("assistant", ""), Turn("tool", after)) if after else ()))
    use = ToolUse(tools, choice, "clock", parallel)  # type: ignore[arg-type]
    return GenerationRequest("mock-tools", turns, 500, Sampling(0.0), tools=use)


@pytest.mark.parametrize(
    ("request_", "called"),
    [
        (with_tools("What weather?"), ["weather"]),
        (with_tools("Hello"), ["weather"]),
        (with_tools("clock or weather?"), ["weather", "clock"]),
        (with_tools("clock or weather?", parallel=False), ["weather"]),
        (with_tools("What weather?", "named"), ["clock"]),
        (with_tools("What weather?", "none"), []),
        (with_tools("What weather?", after="sunny"), []),
    ],
)
async def test_mock_tools_calls_what_the_user_names(request_: GenerationRequest, called: list[str]) -> None:
    events: list[object] = []
    await run(ScriptedEngine(1.0, TEST), request_, events)
    pieces = [call for event in events if isinstance(event, Piece) for call in event.calls]
    assert [piece.name for piece in pieces if piece.name] == called
    assert isinstance(events[-1], Ended)
    assert events[-1].reason == ("tool_calls" if called else "stop")
    spoken = "" if called else "sunny" if request_.turns[-1].role == "tool" else "What weather?"
    assert text_of(events) == spoken


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (OutputFormat("json_object"), {"setup": "Keys 'setup' and 'end'", "end": "Keys 'setup' and 'end'"}),
        (OutputFormat("json_schema", '{"type": "array", "items": {"type": "integer"}}'), [0]),
    ],
)
async def test_mock_tools_answers_in_the_format_asked_for(output: OutputFormat, expected: object) -> None:
    events: list[object] = []
    await run(
        ScriptedEngine(1.0, TEST), replace(ask("mock-tools", said="Keys 'setup' and 'end'"), output=output), events
    )
    assert json.loads(text_of(events)) == expected


async def test_each_prompt_is_turned_away_once_and_everybody_from_the_full_one() -> None:
    engine = ScriptedEngine(1.0, TEST)
    for owner, said in ((b"one", SAID), (b"another", SAID), (b"one", "something else")):
        with pytest.raises(EngineError) as refused:
            await run(engine, ask("mock-429-once", owner, said=said), [])
        assert refused.value.code == "rate_limited"
        events: list[object] = []
        await run(engine, ask("mock-429-once", owner, said=said), events)
        assert text_of(events) == said
    for _ in range(2):
        with pytest.raises(EngineError) as full:
            await run(engine, ask("mock-503"), [])
        assert full.value.code == "busy"
