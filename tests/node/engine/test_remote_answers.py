"""What servers of each kind stream, and every way in which they misbehave: a whole answer or a typed error, nothing else."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import trio
from engine_support import collect, failure, text_of
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_server import DONE, Body, Play, ScriptedServer, Step, chunk, event, refused, said, serving, usage

from ryvion_node.engine.interface import (
    Ended,
    EngineErrorCode,
    GenerationRequest,
    OutputFormat,
    Piece,
    PromptRead,
    Sampling,
    Tool,
    ToolCall,
    ToolUse,
    Turn,
)
from ryvion_node.engine.remote.answer import Answer
from ryvion_node.engine.remote.engine import RemoteEngine
from ryvion_node.engine.remote.faults import refusal, told_by
from ryvion_node.engine.remote.http import ServerRefused
from ryvion_node.engine.remote.spec import RemoteSpec
from ryvion_node.engine.remote.sse import EventStream, Garbled
from ryvion_node.engine.remote.stream import Timing

QUICK = Timing(connect_s=2, answer_s=2, first_s=2, gap_s=0.3, check_every_s=0.2)
GO = GenerationRequest(
    model="m", turns=(Turn("user", "go"),), max_tokens=32, sampling=Sampling(temperature=0.0, seed=9)
)
COUNTS = {"/tokenize": lambda body: _reply({"count": len(json.dumps(body).split())})}


def _reply(value: object) -> Play:
    return Play([json.dumps(value).encode()], media_type="application/json")


@asynccontextmanager
async def remote(server: ScriptedServer, **changes: Any) -> AsyncIterator[RemoteEngine]:
    spec = replace(RemoteSpec("m", server.url, context_tokens=512), **changes)
    engine = RemoteEngine([spec], timing=QUICK)
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        with trio.fail_after(20):
            await engine.settled()
        yield engine
        nursery.cancel_scope.cancel()


def sglang(job: Play, **changes: Any) -> ScriptedServer:
    """A server whose tokens nobody can count beforehand."""
    models = ({"id": "served", "owned_by": "sglang", "max_model_len": 512},)
    return ScriptedServer(job=lambda _: job, models=models, **changes)


async def test_whole_answer_with_the_servers_own_usage() -> None:
    async with serving(sglang(said("Par", "is", "."))) as server, remote(server) as engine:
        events = await collect(engine, GO)
    assert events[0] == PromptRead(511, is_exact=False)
    assert text_of(events) == "Paris."
    assert events[-1] == Ended("stop", 3, prompt_tokens=7)


async def test_chunks_that_come_together_are_one_piece() -> None:
    chunks = [chunk(delta) for delta in ({"reasoning_content": "Hm."}, {"content": "Pa"}, {"content": "ris"})]
    at_once = Play([b"".join((*chunks, chunk(finish="stop"), usage(7, 4), DONE))])
    async with serving(sglang(at_once)) as server, remote(server) as engine:
        events = await collect(engine, GO)
    assert events[1:] == [Piece("Paris", reasoning="Hm."), Ended("stop", 4, prompt_tokens=7)]


async def test_what_was_not_delivered_is_not_billed() -> None:
    hidden = Play([chunk({"content": "Hi"}), chunk(finish="stop"), usage(7, 500), DONE])
    async with serving(sglang(hidden)) as server, remote(server) as engine:
        assert (await collect(engine, GO))[-1] == Ended("stop", 2, prompt_tokens=7)


async def test_answer_without_usage_is_delivered_and_bills_nothing() -> None:
    silent = Play([chunk({"content": "Hi"}), chunk(finish="stop"), DONE])
    async with serving(sglang(silent)) as server, remote(server) as engine:
        events = await collect(engine, GO)
    assert text_of(events) == "Hi"
    assert events[-1] == Ended("stop", 0, prompt_tokens=0)


async def test_server_that_never_reports_usage_is_not_sold_without_a_tokenizer() -> None:
    mute = Play([chunk({"content": "ok"}), chunk(finish="stop"), DONE])
    async with serving(sglang(mute, trial=lambda _: mute)) as server, remote(server) as engine:
        assert engine.models() == ()
        assert engine.status()[0].state == "broken"
        assert "set tokenizer" in engine.status()[0].reason


async def test_reasoning_tools_and_log_probabilities_come_apart() -> None:
    chance = {
        "token": "\ufffd",
        "bytes": [226, 130],
        "logprob": -0.5,
        "top_logprobs": [{"token": "a", "logprob": -9999.0}],
    }
    job = Play(
        [
            chunk({"role": "assistant", "reasoning_content": "Hm", "reasoning": "Hm"}),
            chunk({"reasoning": ", yes"}),
            chunk({"content": "Look:"}, logprobs={"content": [chance]}),
            chunk({"tool_calls": [{"index": 0, "id": "a1", "function": {"name": "look", "arguments": ""}}]}),
            chunk({"tool_calls": [{"index": 0, "id": "a1", "function": {"name": "look", "arguments": '{"ok"'}}]}),
            chunk({"tool_calls": [{"index": 0, "function": {"arguments": ":true}"}}]}),
            chunk({"tool_calls": [{"index": 1, "id": "a2", "function": {"name": "look", "arguments": "{}"}}]}),
            chunk(finish="tool_calls"),
            usage(7, 30, completion_tokens_details={"reasoning_tokens": 4}),
            DONE,
        ]
    )
    tools = ToolUse((Tool("look", "", ""),))
    async with serving(sglang(job)) as server, remote(server) as engine:
        events = await collect(engine, replace(GO, tools=tools, logprobs=1))
    pieces = [piece for piece in events if isinstance(piece, Piece)]
    assert "".join(piece.reasoning for piece in pieces) == "Hm, yes"
    assert text_of(events) == "Look:"
    calls = [call for piece in pieces for call in piece.calls]
    assert [(call.index, call.id, call.name) for call in calls] == [
        (0, "a1", "look"),
        (0, "", ""),
        (0, "", ""),
        (1, "a2", "look"),
    ]
    assert "".join(call.arguments for call in calls) == '{"ok":true}{}'
    (told,) = (logprob for piece in pieces for logprob in piece.logprobs)
    assert told.chosen.piece == b"\xe2\x82"
    assert [(other.piece, other.logprob) for other in told.top] == [(b"a", -9999.0)]
    assert events[-1] == Ended("tool_calls", 30, 4, prompt_tokens=7)


async def test_ollamas_calls_without_index_or_id_get_both() -> None:
    job = Play(
        [
            chunk({"content": "", "tool_calls": [{"function": {"name": "look", "arguments": {"ok": True}}}]}),
            chunk({"tool_calls": [{"id": "", "function": {"name": "look", "arguments": "{}"}}]}),
            chunk(finish="stop"),
            usage(7, 9),
            DONE,
        ]
    )
    server = ScriptedServer(job=lambda _: job, models=({"id": "served", "owned_by": "library"},))
    server.routes["/api/version"] = lambda _: _reply({"version": "0.12.0"})
    async with serving(server), remote(server) as engine:
        assert "prefix" not in engine.models()[0].features
        events = await collect(engine, replace(GO, tools=ToolUse((Tool("look", "", ""),))))
        refusal = await failure(engine, replace(GO, tools=ToolUse((Tool("look", "", ""),), "required")))
    calls = [call for piece in events if isinstance(piece, Piece) for call in piece.calls]
    assert [(call.index, call.name, call.arguments) for call in calls] == [
        (0, "look", '{"ok":true}'),
        (1, "look", "{}"),
    ]
    assert calls[0].id.startswith("call_") and calls[0].id != calls[1].id
    assert isinstance(events[-1], Ended) and events[-1].reason == "tool_calls"
    assert refusal.code == "unsupported"
    assert "tool_choice" not in server.jobs()[0]


def _chance(logprob: str) -> bytes:
    return event(
        '{"choices": [{"delta": {"content": "x"}, "logprobs": {"content": [{"token": "x", "logprob": LOGPROB}]}}]}'.replace(
            "LOGPROB", logprob
        )
    )


HI = chunk({"content": "Hi"})
END = [chunk(finish="stop"), usage(7, 1), DONE]
MISBEHAVIOUR: dict[str, tuple[Sequence[Step], EngineErrorCode]] = {
    "no [DONE]": ([HI, chunk(finish="stop"), usage(7, 1)], "worker_crashed"),
    "no finish": ([HI, usage(7, 1), DONE], "worker_crashed"),
    "nothing": ([], "worker_crashed"),
    "cut off": ([HI, "hang up"], "worker_crashed"),
    "cut within a line": ([HI[:-9], "hang up"], "worker_crashed"),
    "no JSON": ([HI, event("{not json"), *END], "worker_crashed"),
    "no object": ([HI, event("[1, 2]"), *END], "worker_crashed"),
    "no number": ([event('{"choices": [], "usage": {"prompt_tokens": NaN}}'), *END], "worker_crashed"),
    "no events": ([b"<html>\n<p>hello</p>\n\n", *END], "worker_crashed"),
    "no UTF-8": ([b'data: {"choices": [{"delta": {"content": "\xff"}}]}\n\n', *END], "worker_crashed"),
    "deep": ([event("[" * 100_000), *END], "worker_crashed"),
    "an endless line": ([b"data: " + b"x" * 2_000_000], "worker_crashed"),
    "an endless event": ([b"data: x\n" * 300_000], "worker_crashed"),
    "an endless answer": ([chunk({"content": "x" * 30_000}), *END], "worker_crashed"),
    "an impossible probability": ([_chance("1e999"), *END], "worker_crashed"),
    "an enormous probability": ([_chance("-" + "9" * 400), *END], "worker_crashed"),
    "silence": ([HI, "stall"], "worker_stalled"),
    "silence with comments": ([HI, b": ping\n\n", "stall"], "worker_stalled"),
    "two choices": ([event({"choices": [{"delta": {}}, {"delta": {}}]}), *END], "worker_crashed"),
    "another choice": ([chunk({"content": "x"}, index=1), *END], "worker_crashed"),
    "text after the end": ([HI, chunk(finish="stop"), HI, *END], "worker_crashed"),
    "two ends": ([HI, chunk(finish="length"), *END], "worker_crashed"),
    "broken off": ([HI, chunk(finish="abort"), DONE], "worker_crashed"),
    "text that is none": ([chunk({"content": 3}), *END], "worker_crashed"),
    "calls that are none": ([chunk({"tool_calls": 3}), *END], "worker_crashed"),
    "call without a name": ([chunk({"tool_calls": [{"index": 0, "id": "a"}]}), *END], "worker_crashed"),
    "an error in the stream": ([HI, event({"error": {"code": 500, "message": "x"}})], "worker_crashed"),
    "an old error in the stream": ([HI, b'error: {"error": {"code": 503}}\n\n'], "busy"),
    "an error of the context": (
        [event({"error": {"code": 400, "type": "exceed_context_size_error", "message": "request exceeds"}})],
        "context_overflow",
    ),
}


@pytest.mark.parametrize("name", MISBEHAVIOUR)
async def test_misbehaviour_is_a_typed_error(name: str) -> None:
    steps, code = MISBEHAVIOUR[name]
    async with serving(sglang(Play(steps))) as server, remote(server) as engine:
        with trio.fail_after(5):
            error = await failure(engine, replace(GO, tools=ToolUse((Tool("look", "", ""),)), logprobs=1))
    assert error.code == code
    assert "127.0.0.1" not in str(error)


async def test_repeated_end_without_text_does_no_harm() -> None:
    twice = Play([HI, chunk(finish="stop"), *END])
    async with serving(sglang(twice)) as server, remote(server) as engine:
        assert text_of(await collect(engine, GO)) == "Hi"


REFUSALS: list[tuple[Play, EngineErrorCode]] = [
    (
        refused(400, "request (1205 tokens) exceeds the available context size", type="exceed_context_size_error"),
        "context_overflow",
    ),
    (
        refused(400, "This model's maximum context length is 512 tokens.", type="BadRequestError", code=400),
        "context_overflow",
    ),
    (
        Play(
            [
                b'{"object":"error","message":"The input (9 tokens) is longer than the model\'s context length (8 tokens).","code":400}'
            ],
            400,
        ),
        "context_overflow",
    ),
    (refused(400, "too long", code="context_length_exceeded"), "context_overflow"),
    (refused(413, ""), "context_overflow"),
    (refused(429, "slow down"), "busy"),
    (refused(503, "loading model"), "busy"),
    (refused(401, "no such key"), "model_broken"),
    (refused(404, "no such model"), "model_broken"),
    (refused(400, "Failed to parse grammar"), "grammar_invalid"),
    (refused(400, "Conversation roles must alternate"), "template_failed"),
    (refused(400, "what?"), "unsupported"),
    (refused(501, "not here"), "unsupported"),
    (refused(500, "secret prompt in a traceback"), "worker_crashed"),
    (Play([b"<h1>502</h1>"], 502, "text/html"), "worker_crashed"),
    (Play([], 307, headers={"location": "http://127.0.0.1:1/elsewhere"}), "worker_crashed"),
    (Play([b"{}"], 200, "application/json"), "worker_crashed"),
    (Play([b"\x1f\x8b"], 200, headers={"content-encoding": "gzip"}), "worker_crashed"),
]


@pytest.mark.parametrize("number", range(len(REFUSALS)))
async def test_refusal_is_a_typed_error_without_the_servers_words(number: int) -> None:
    play, code = REFUSALS[number]
    async with serving(sglang(play)) as server, remote(server) as engine:
        error = await failure(engine, GO)
    assert error.code == code
    assert "secret" not in str(error)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=60) | st.sampled_from((b"data: a", b"\n", b"\r", b"\n\r", b"\r\n\r")), max_size=12))
def test_any_bytes_are_events_or_garbled(parts: list[bytes]) -> None:
    whole, split = EventStream(), EventStream()
    outcomes = []
    for stream, pieces in ((whole, [b"".join(parts)]), (split, parts)):
        events: list[str] = []
        try:
            for piece in pieces:
                stream.feed(piece)
            stream.finish()
        except Garbled:
            outcomes.append(None)
            continue
        while (data := stream.take()) is not None:
            events.append(data)
        outcomes.append(events)
    assert outcomes[0] == outcomes[1]


KEYS = ("choices", "delta", "content", "tool_calls", "function", "name", "index", "finish_reason", "usage", "logprobs")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)
@given(st.lists(JSON, max_size=6))
def test_any_chunks_are_pieces_or_typed_faults(chunks: list[object]) -> None:
    answer = Answer(8, 1)
    try:
        for data in chunks:
            answer.add(json.dumps(data))
        answer.end()
    except (Garbled, ServerRefused):
        return
    raise AssertionError("an answer without [DONE] ended well")


@given(st.integers(100, 599), JSON | st.fixed_dictionaries({"error": JSON}))
@settings(deadline=None)
def test_any_refusal_is_an_engine_error(status: int, body: object) -> None:
    assert str(refusal("m", status, body))
    assert told_by(ServerRefused(status, body))


def test_arguments_that_are_nested_deep_are_a_typed_fault() -> None:
    for depth in (100, 500, 900, 5000):
        nested = '{"a":' * depth + "1" + "}" * depth
        call = '{"choices":[{"delta":{"tool_calls":[{"function":{"name":"x","arguments":NESTED}}]}}]}'
        try:
            Answer(10_000, None).add(call.replace("NESTED", nested))
        except Garbled:
            continue
        assert depth < 5000


@settings(deadline=None)
@given(st.text(), st.integers(1, 5))
def test_characters_are_whole_however_a_server_cuts_them(text: str, width: int) -> None:
    units = text.encode("utf-16-le", "surrogatepass")
    halves = [units[at : at + 2 * width].decode("utf-16-le", "surrogatepass") for at in range(0, len(units), 2 * width)]
    answer = Answer(1000, None)
    got = ""
    for half in halves:
        piece = answer.add(json.dumps({"choices": [{"index": 0, "delta": {"content": half}}]}))
        got += piece.text if piece is not None else ""
        got.encode()
    rest = answer.rest()
    assert got + (rest.text if rest is not None else "") == units.decode("utf-16-le", "replace")


def _body_of(flavour: str) -> Body:
    return {"id": "served", "owned_by": flavour, "max_model_len": 512}


RULES = Sampling(0.5, 0.9, 2**64 - 1, 40, 0.05, 0.1, 0.2, 1.1, ((5, -1.5),))


@pytest.mark.parametrize(
    ("owner", "routes", "expected"),
    [
        (
            "vllm",
            {"/version": {"version": "0.12.1"}},
            {"top_k": 40, "min_p": 0.05, "repetition_penalty": 1.1, "seed": 2**63 - 1},
        ),
        ("sglang", {}, {"top_k": 40, "min_p": 0.05, "repetition_penalty": 1.1, "seed": (2**64 - 1) % 2**31}),
        (
            "llamacpp",
            {},
            {"top_k": 40, "min_p": 0.05, "repeat_penalty": 1.1, "repeat_last_n": 512, "cache_prompt": False},
        ),
    ],
)
async def test_rules_and_schemas_travel_in_each_dialect(owner: str, routes: dict[str, Any], expected: Body) -> None:
    server = ScriptedServer(models=(_body_of(owner),))
    counts = {"/tokenize": {"count": 5, "tokens": [1] * 5}, "/apply-template": {"prompt": "x"}}
    for path, value in (counts | routes).items():
        server.routes[path] = lambda _, value=value: _reply(value)
    schema = '{"type":"object","properties":{"a":{"type":"integer"}}}'
    turns = (
        Turn("system", "Be brief."),
        Turn("assistant", "", tool_calls=(ToolCall("c", "look", "{}"),)),
        Turn("tool", "found", tool_call_id="c"),
        Turn("user", "go"),
    )
    job = replace(
        GO,
        turns=turns,
        sampling=RULES,
        stop=("###",),
        logprobs=2,
        output=OutputFormat("json_schema", schema),
        tools=ToolUse((Tool("look", "Looks.", '{"type":"object"}'),), "named", "look", parallel=False),
        owner=b"somebody",
    )
    async with serving(server), remote(server) as engine:
        await collect(engine, job)
        await collect(engine, replace(job, owner=b"somebody else"))
        if owner != "llamacpp":
            await collect(engine, replace(GO, output=OutputFormat("regex", "[ab]+")))
    first, second = server.jobs()[:2]
    assert {key: first[key] for key in expected} == expected
    assert first["logit_bias"] == {"5": -1.5}
    assert (first["logprobs"], first["top_logprobs"], first["stop"]) == (True, 2, ["###"])
    assert first["response_format"]["json_schema"]["schema"] == json.loads(schema)
    assert first["tool_choice"] == {"type": "function", "function": {"name": "look"}}
    assert first["parallel_tool_calls"] is False
    assert first["stream_options"] == {"include_usage": True}
    assert first["messages"][1]["tool_calls"][0]["function"] == {"name": "look", "arguments": "{}"}
    assert first["messages"][2] == {"role": "tool", "content": "found", "tool_call_id": "c"}
    if owner != "llamacpp":
        assert first["cache_salt"] != second["cache_salt"]
        assert b"somebody".hex() not in json.dumps(first)
        regex = server.jobs()[2]
        assert regex.get("regex", regex.get("structured_outputs", {}).get("regex")) == "[ab]+"


async def test_schema_that_kills_servers_never_reaches_one() -> None:
    deep = '{"items":' * 40 + "{}" + "}" * 40
    server = sglang(said("x"))
    async with serving(server), remote(server) as engine:
        for output in (
            OutputFormat("json_schema", deep),
            OutputFormat("json_schema", "[" * 100_000),
            OutputFormat("json_schema", '"x"'),
            OutputFormat("regex", "(" * 40 + ")" * 40),
            OutputFormat("regex", "x" * 70_000),
        ):
            assert (await failure(engine, replace(GO, output=output))).code == "grammar_invalid"
        assert (await failure(engine, replace(GO, output=OutputFormat("lark", "start: x")))).code == "unsupported"
    assert server.jobs() == []
