"""What responses are refused, by the names that clients use, and how they fail."""

from __future__ import annotations

import openai
import pytest
import trio
from openai.types.responses import Response, ResponseStreamEvent
from proxy_clients import async_client
from proxy_harness import serving
from proxy_responses import AGENTS, WEATHER, ask, events_of

from ryvion_node.market.fake import Hold, Script, says
from ryvion_node.market.interface import MarketError, Piece

pytestmark = [
    pytest.mark.filterwarnings("ignore:Async generator '(httpx|httpcore|openai):ResourceWarning"),
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <async_generator object:pytest.PytestUnraisableExceptionWarning"
    ),
]

CALL = {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"}


@pytest.mark.parametrize(
    ("extra", "code", "param"),
    [
        ({"input": None}, "invalid_type", "input"),
        ({"input": 5}, "invalid_type", "input"),
        ({"input": []}, "missing_required_parameter", "input"),
        ({"input": [{"role": "user"}]}, "missing_required_parameter", "input[0].content"),
        ({"input": [{"role": "tool", "content": "a"}]}, "invalid_value", "input[0].role"),
        ({"input": [{"type": "message", "content": "a"}]}, "missing_required_parameter", "input[0].role"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "unsupported_parameter", "input[0]"),
        ({"input": [{"id": "msg_1"}]}, "unsupported_parameter", "input[0]"),
        ({"input": [{"type": "web_search_call", "id": "ws"}]}, "unsupported_parameter", "input[0].type"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            "unsupported_parameter",
            "input[0].content[0].type",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_text"}]}]},
            "missing_required_parameter",
            "input[0].content[0].text",
        ),
        ({"input": [CALL | {"call_id": None}]}, "missing_required_parameter", "input[0].call_id"),
        ({"input": [CALL, CALL | {"call_id": ""}]}, "invalid_value", "input[1].call_id"),
        ({"input": [CALL, CALL | {"name": "no name"}]}, "invalid_value", "input[1].name"),
        (
            {"input": [{"type": "function_call_output", "call_id": "x" * 65, "output": "a"}]},
            "invalid_value",
            "input[0].call_id",
        ),
        ({"input": "x" * 300_000}, "context_length_exceeded", "input"),
        ({"previous_response_id": "resp_1"}, "unsupported_parameter", "previous_response_id"),
        ({"conversation": "conv_1"}, "unsupported_parameter", "conversation"),
        ({"background": True}, "unsupported_parameter", "background"),
        ({"prompt": {"id": "p"}}, "unsupported_parameter", "prompt"),
        ({"truncation": "auto"}, "unsupported_parameter", "truncation"),
        ({"reasoning": {"effort": "high"}}, "unsupported_parameter", "reasoning.effort"),
        ({"tools": [{"type": "web_search"}]}, "unsupported_parameter", "tools[0].type"),
        ({"tools": [{"type": "custom", "name": "f"}]}, "unsupported_parameter", "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "missing_required_parameter", "tools[0].name"),
        ({"tools": [WEATHER, WEATHER]}, "invalid_value", "tools[1].name"),
        ({"tools": [AGENTS | {"name": None}]}, "missing_required_parameter", "tools[0].name"),
        ({"tools": [AGENTS | {"tools": [{"type": "custom"}]}]}, "unsupported_parameter", "tools[0].tools[0].type"),
        ({"tools": [WEATHER, AGENTS, AGENTS]}, "invalid_value", "tools[2].tools[0].name"),
        ({"tools": [WEATHER | {"name": "a b"}]}, "invalid_value", "tools[0].name"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "name": "x"}}, "invalid_value", "tool_choice.name"),
        ({"tools": [WEATHER], "tool_choice": {"type": "web_search"}}, "unsupported_parameter", "tool_choice.type"),
        ({"tools": [WEATHER], "tool_choice": "sometimes"}, "invalid_value", "tool_choice"),
        (
            {
                "tools": [WEATHER],
                "tool_choice": {"type": "allowed_tools", "tools": [{"type": "function", "name": "x"}]},
            },
            "invalid_value",
            "tool_choice.tools",
        ),
        ({"text": {"format": {"type": "json_schema"}}}, "missing_required_parameter", "text.format.name"),
        (
            {"text": {"format": {"type": "json_schema", "name": "x"}}},
            "missing_required_parameter",
            "text.format.schema",
        ),
        ({"text": {"format": {"type": "xml"}}}, "invalid_value", "text.format.type"),
        ({"max_output_tokens": 0}, "invalid_value", "max_output_tokens"),
        ({"top_logprobs": 21}, "invalid_value", "top_logprobs"),
        ({"temperature": "warm"}, "invalid_type", "temperature"),
        ({"model": "nobody has it"}, "model_not_found", "model"),
        ({"n": 2}, "unsupported_parameter", "n"),
        ({"best_of": 2}, "unsupported_parameter", "best_of"),
    ],
)
async def test_what_cannot_be_done_is_refused_by_the_name_it_was_asked_by(
    extra: dict[str, object], code: str, param: str
) -> None:
    async with serving({"echo": says("a")}) as endpoint:
        for stream in (True, False):
            reply = await ask(endpoint, stream=stream, **extra)
            assert (reply.error["code"], reply.error["param"]) == (code, param)
            assert "messages" not in str(reply.error["message"]) or code != "invalid_value"
    assert not endpoint.market.orders


async def test_a_missing_input_is_named() -> None:
    async with serving({"echo": says("a")}) as endpoint:
        reply = await endpoint.ask("POST", "/v1/responses", {"model": "echo"}, authorization="Bearer sk-buyer")
    assert (reply.error["code"], reply.error["param"]) == ("missing_required_parameter", "input")


async def test_nulls_and_harmless_values_are_defaults() -> None:
    optional = ("instructions", "tools", "tool_choice", "text", "reasoning", "include", "previous_response_id")
    harmless = dict.fromkeys(optional) | {
        "background": False,
        "store": True,
        "truncation": "disabled",
        "max_tool_calls": 3,
        "prompt_cache_key": "x",
        "service_tier": "auto",
        "stream_options": {"include_obfuscation": False},
        "reasoning": {"effort": None, "summary": "auto"},
        "text": {"verbosity": "low"},
    }
    async with serving({"echo": says("a")}) as endpoint:
        reply = await ask(endpoint, **harmless)
    Response.model_validate(reply.json())
    assert reply.json()["tool_choice"] == "auto"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_market_that_refuses_is_plain_http(stream: bool) -> None:
    lacking = MarketError("unsupported", "nobody has json_schema", features=("json_schema",))
    script = {"echo": Script(before=(lacking,)), "busy": Script(before=(MarketError("no_capacity", "later"),))}
    async with serving(script) as endpoint:
        reply = await ask(
            endpoint, stream=stream, text={"format": {"type": "json_schema", "name": "x", "schema": {"type": "object"}}}
        )
        busy = await ask(endpoint, "busy", stream=stream)
    assert (reply.status, reply.error["code"], reply.error["param"]) == (400, "unsupported_parameter", "text.format")
    assert (busy.status, busy.headers["retry-after-ms"]) == (503, "1000")


@pytest.mark.parametrize("said", [(), (Piece("a"), Piece("b"))])
async def test_a_failure_in_the_stream_ends_the_response_and_is_raised(said: tuple[Piece, ...]) -> None:
    script = Script((*said, MarketError("node_failed", "the executor went away")))
    async with serving({"echo": script}) as endpoint, async_client(endpoint) as client:
        events = events_of(await ask(endpoint, stream=True))
        seen: list[str] = []
        with pytest.raises(openai.APIError, match="the executor went away") as caught:
            await _read_into(seen, await client.responses.create(model="echo", input="hi", stream=True))
        with pytest.raises(openai.APIError, match="the executor went away"):
            await _read_helper(client)
    failed, error = events[-2:]
    assert failed["type"] == "response.failed" == seen[-1]
    assert failed["response"]["status"] == "failed"
    assert failed["response"]["error"] == {"code": "server_error", "message": "the executor went away"}
    assert [item["status"] for item in failed["response"]["output"]] == ["incomplete"] * bool(said)
    assert (error["type"], error["code"], error["error"]["code"]) == ("error", "node_failed", "node_failed")
    assert caught.value.code == "node_failed"
    assert "response.completed" not in seen


async def _read_into(seen: list[str], stream: openai.AsyncStream[ResponseStreamEvent]) -> None:
    async for event in stream:
        seen.append(event.type)


async def _read_helper(client: openai.AsyncOpenAI) -> None:
    async with client.responses.stream(model="echo", input="hi") as stream:
        await stream.get_final_response()


async def test_a_failure_of_a_whole_answer_is_not_to_be_retried() -> None:
    script = Script((Piece("a"), MarketError("node_failed", "the executor went away")))
    async with serving({"echo": script}) as endpoint:
        reply = await ask(endpoint)
    assert (reply.status, reply.error["code"], reply.headers["x-should-retry"]) == (502, "node_failed", "false")


@pytest.mark.parametrize("stream", [True, False])
async def test_leaving_ends_the_job(stream: bool) -> None:
    async with serving({"echo": Script((Piece("a"), Hold(trio.Event())))}) as endpoint:
        client = await endpoint.connect()
        body = {"model": "echo", "input": "x", "stream": stream}
        await client.send("POST", "/v1/responses", body, authorization="Bearer sk-buyer")
        if stream:
            await client.head()
            await client.chunk()
        while not endpoint.market.open_jobs:
            await trio.testing.wait_all_tasks_blocked(0.001)
        await client.stream.aclose()
        with trio.fail_after(1):
            await endpoint.market.left.wait()
        assert endpoint.market.left_early


async def test_a_node_that_stops_fails_its_responses() -> None:
    async with serving({"echo": Script((Piece("a"), Hold(trio.Event())))}) as endpoint:
        client = await endpoint.connect()
        body = {"model": "echo", "input": "x", "stream": True}
        await client.send("POST", "/v1/responses", body, authorization="Bearer sk-buyer")
        reply = await client.head()
        reply.body += await client.chunk() + await client.chunk()
        endpoint.stop.cancel()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
            reply.body += await client.chunk()
            await client.stream.aclose()
    assert [event["type"] for event in events_of(reply)[-2:]] == ["response.failed", "error"]


async def test_keys_hold_here_too() -> None:
    async with serving({"echo": says("a")}) as endpoint:
        body = {"model": "echo", "input": "x"}
        assert (await endpoint.ask("POST", "/v1/responses", body)).status == 401
        assert (await endpoint.ask("POST", "/v1/responses", body, authorization="Bearer sk-reader")).status == 403
        assert (await endpoint.ask("GET", "/v1/responses", authorization="Bearer sk-buyer")).status == 405
