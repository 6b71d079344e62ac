"""POST /v1/responses by the official client, and on the wire: every object and event as its types have it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from openai.types import responses as shapes
from openai.types.responses import Response
from proxy_clients import async_client, sync_client
from proxy_harness import serving
from proxy_responses import AGENTS, ALL, WEATHER, ask, events_of
from pydantic import BaseModel, ConfigDict

from ryvion_node.market.fake import Hold, Script, calls, says
from ryvion_node.market.interface import Piece
from ryvion_node.proxy.settings import Settings
from ryvion_protocol.exported import read_receipts, verify_exported
from ryvion_protocol.messages import Alternative, TokenLogprob

pytestmark = [
    pytest.mark.filterwarnings("ignore:Async generator '(httpx|httpcore|openai):ResourceWarning"),
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <async_generator object:pytest.PytestUnraisableExceptionWarning"
    ),
]


class Weather(BaseModel):
    model_config = ConfigDict(extra="forbid")
    city: str
    degrees: int


# --- streams ----------------------------------------------------------------------------------------------


async def test_events_come_in_order_and_fit_the_types_of_the_client() -> None:
    async with serving({"echo": ALL}) as endpoint:
        reply = await ask(endpoint, stream=True, tools=[WEATHER])
    events = events_of(reply)
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    assert b"[DONE]" not in reply.body
    assert [event["output_index"] for event in events if event["type"].endswith("item.added")] == [0, 1, 2]
    items = [event["item"] for event in events if event["type"].endswith("item.done")]
    final = events[-1]["response"]
    assert final["output"] == items
    assert [item["type"] for item in items] == ["reasoning", "message", "function_call"]
    assert items[0]["content"] == [{"type": "reasoning_text", "text": "hm"}]
    assert items[1]["content"][0]["text"] == "It is"
    assert (items[2]["name"], items[2]["arguments"], items[2]["call_id"]) == ("weather", '{"city":"Bern"}', "call_0")
    for event in events:
        if "item_id" in event:
            assert event["item_id"] == items[event["output_index"]]["id"]
    ids = {event["response"]["id"] for event in events if "response" in event}
    assert ids == {endpoint.market.orders[0].account.completion_id}
    assert events[0]["response"]["output"] == []
    assert events[0]["response"]["status"] == events[1]["response"]["status"] == "in_progress"
    assert events[0]["response"]["ryvion"]["jurisdiction"] == "CA"
    assert events[0]["response"]["ryvion"]["route"]
    assert final["ryvion"]["receipt"]
    assert final["status"] == "completed"
    assert final["usage"] == {
        "input_tokens": 1,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 1},
        "total_tokens": 8,
    }


async def test_streamed_and_whole_are_the_same_response() -> None:
    async with serving({"echo": ALL}) as endpoint:
        whole = (await ask(endpoint, tools=[WEATHER])).json()
        streamed = events_of(await ask(endpoint, tools=[WEATHER], stream=True))[-1]["response"]
    Response.model_validate(whole)

    def bare(response: Any) -> Any:
        """Without what differs from request to request."""
        differs = {"id", "created_at", "completed_at", "ryvion", "output"}
        items = [item | {"id": ""} for item in response["output"]]
        return {name: value for name, value in response.items() if name not in differs} | {"items": items}

    assert bare(whole) == bare(streamed)
    assert {"route", "receipt", "checks"} <= set(whole["ryvion"])


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_that_was_cut_is_incomplete(stream: bool) -> None:
    async with serving({"echo": Script((Piece("a"),), finish_reason="length")}) as endpoint:
        reply = await ask(endpoint, stream=stream, max_output_tokens=1)
    if stream:
        last = events_of(reply)[-1]
        assert last["type"] == "response.incomplete"
        response = last["response"]
    else:
        response = reply.json()
    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert response["output"][0]["status"] == "incomplete"
    assert response["max_output_tokens"] == 1
    assert endpoint.market.orders[0].max_completion_tokens == 1


async def test_an_empty_answer_has_an_empty_message() -> None:
    async with serving({"echo": Script()}) as endpoint:
        events = events_of(await ask(endpoint, stream=True))
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == ""


async def test_several_calls_are_items_of_their_own() -> None:
    script = Script((*calls("weather", "{}"), *calls("weather", "{", "}", index=1)), finish_reason="tool_calls")
    async with serving({"echo": script}) as endpoint:
        output = events_of(await ask(endpoint, stream=True, tools=[WEATHER]))[-1]["response"]["output"]
    assert [(item["call_id"], item["arguments"]) for item in output] == [("call_0", "{}"), ("call_1", "{}")]
    assert len({item["id"] for item in output}) == 2


async def test_logprobs_stand_with_the_text_of_the_answer_only() -> None:
    def logprob(token: bytes) -> tuple[TokenLogprob, ...]:
        said = Alternative(token, 500_000)
        return (TokenLogprob(said, (said, Alternative(b"z", 3_000_000))),)

    pieces = (
        Piece(reasoning="hm", logprobs=logprob(b"hm")),
        Piece(logprobs=logprob(b"\xc3")),
        Piece("é", logprobs=logprob(b"\xa9")),
    )
    async with serving({"echo": Script(pieces)}) as endpoint:
        events = events_of(await ask(endpoint, stream=True, include=["message.output_text.logprobs"], top_logprobs=2))
        whole = (await ask(endpoint, include=["message.output_text.logprobs"], top_logprobs=2)).json()
    assert endpoint.market.orders[0].logprobs == 2
    (delta,) = [event for event in events if event["type"] == "response.output_text.delta"]
    assert [one["bytes"] for one in delta["logprobs"]] == [[0xC3], [0xA9]]
    assert len(delta["logprobs"][0]["top_logprobs"]) == 2
    message = events[-1]["response"]["output"][1]
    assert message["content"][0]["logprobs"] == delta["logprobs"]
    Response.model_validate(whole)
    assert whole["output"][1]["content"] == message["content"]


async def test_who_wants_a_summary_gets_the_thoughts_as_one() -> None:
    async with serving({"echo": Script((Piece(reasoning="h"), Piece(reasoning="m"), Piece("a")))}) as endpoint:
        events = events_of(await ask(endpoint, stream=True, reasoning={"summary": "auto"}))
    reasoning = [event for event in events if event["type"].startswith("response.reasoning_")]
    assert [event["type"].removeprefix("response.reasoning_summary_") for event in reasoning] == [
        "part.added",
        "text.delta",
        "text.delta",
        "text.done",
        "part.done",
    ]
    assert {event["summary_index"] for event in reasoning} == {0}
    item = events[-1]["response"]["output"][0]
    assert (item["type"], item["summary"]) == ("reasoning", [{"type": "summary_text", "text": "hm"}])
    assert events[-1]["response"]["reasoning"]["summary"] == "auto"


async def test_functions_in_namespaces_are_called_by_joined_names() -> None:
    script = Script(calls("agents__close", "{}"), finish_reason="tool_calls")
    items = [
        {"role": "user", "content": "hi"},
        {"type": "function_call", "call_id": "1", "namespace": "agents", "name": "close", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": "ok"},
    ]
    async with serving({"echo": script}) as endpoint:
        reply = await ask(endpoint, input=items, tools=[WEATHER, AGENTS], stream=True)
        named = await ask(
            endpoint,
            tools=[WEATHER, AGENTS],
            tool_choice={"type": "function", "namespace": "agents", "name": "close"},
        )
    events = events_of(reply)
    order = endpoint.market.orders[0]
    assert [tool.name for tool in order.tools.tools] == ["weather", "agents__close"]
    assert order.tools.tools[1].description == "Tools for agents.\nCloses one."
    assert order.messages[1].tool_calls[0].name == "agents__close"
    assert endpoint.market.orders[1].tools.name == "agents__close"
    item = events[-1]["response"]["output"][0]
    assert (item["namespace"], item["name"], item["call_id"]) == ("agents", "close", "call_0")
    assert events[-1]["response"]["tools"][1] == AGENTS
    assert named.status == 200
    (receipt,) = read_receipts(json.dumps(events[-1]["response"]["ryvion"]).encode())
    answer = json.dumps(events[-1]["response"]).encode()
    assert [f.outcome for f in verify_exported(receipt, answer).findings if f.name == "answer"] == ["passed"]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("summary", [None, "auto"])
async def test_the_receipt_is_for_the_response_that_the_client_keeps(stream: bool, summary: str | None) -> None:
    async with serving({"echo": ALL}) as endpoint:
        reply = await ask(endpoint, tools=[WEATHER], stream=stream, reasoning={"summary": summary})
    response = events_of(reply)[-1]["response"] if stream else reply.json()
    (receipt,) = read_receipts(json.dumps(response["ryvion"]).encode())
    findings = {
        finding.name: finding.outcome for finding in verify_exported(receipt, json.dumps(response).encode()).findings
    }
    assert (findings["signature"], findings["answer"]) == ("passed", "passed")


async def test_silence_is_filled() -> None:
    script = Script((Hold(seconds=0.05), Piece("a")))
    async with serving({"echo": script}, Settings(port=0, keep_alive_s=0.01)) as endpoint:
        reply = await ask(endpoint, stream=True)
    assert b": keep-alive\n\n" in reply.body
    assert events_of(reply)[-1]["type"] == "response.completed"


# --- the official client ----------------------------------------------------------------------------------


async def test_create() -> None:
    async with serving({"echo": says("Hel", "lo")}) as endpoint, async_client(endpoint) as client:
        answer = await client.responses.create(
            model="echo",
            input="hi",
            instructions="Be brief.",
            temperature=0.2,
            top_p=0.9,
            store=True,
            metadata={"a": "b"},
            user="me",
            extra_body={"jurisdiction": "CA", "seed": 7},
        )
    order = endpoint.market.orders[0]
    assert [(turn.role, turn.content) for turn in order.messages] == [("system", "Be brief."), ("user", "hi")]
    assert (order.temperature, order.top_p, order.seed, order.jurisdictions) == (0.2, 0.9, 7, ("CA",))
    assert answer.output_text == "Hello"
    assert (answer.status, answer.instructions, answer.temperature) == ("completed", "Be brief.", 0.2)
    assert answer.metadata == {"a": "b"}
    assert answer.model_extra is not None
    assert answer.model_extra["store"] is False
    assert answer.model_extra["ryvion"]["accepted"] is True
    assert answer.usage is not None
    assert answer.usage.total_tokens == 5


async def test_sync_client_streams() -> None:
    async with serving({"echo": says("Hel", "lo")}) as endpoint:

        def use() -> None:
            with sync_client(endpoint) as client:
                stream = client.responses.create(model="echo", input="hi", stream=True)
                assert "".join(event.delta for event in stream if event.type == "response.output_text.delta") == "Hello"

        await trio.to_thread.run_sync(use)
        assert len(endpoint.market.finished) == 1


async def test_stream_helper() -> None:
    async with (
        serving({"echo": ALL}) as endpoint,
        async_client(endpoint) as client,
        client.responses.stream(model="echo", input="hi", tools=[WEATHER]) as stream,
    ):
        snapshots = [event.snapshot async for event in stream if event.type == "response.output_text.delta"]
        final = await stream.get_final_response()
    assert snapshots == ["It ", "It is"]
    assert final.output_text == "It is"
    call = final.output[-1]
    assert isinstance(call, shapes.ParsedResponseFunctionToolCall)
    assert call.parsed_arguments == {"city": "Bern"}


@pytest.mark.parametrize("stream", [True, False])
async def test_parse_holds_the_answer_to_a_schema(stream: bool) -> None:
    said = says('{"city":"Bern",', '"degrees":7}')
    async with serving({"echo": said}) as endpoint, async_client(endpoint) as client:
        if stream:
            async with client.responses.stream(model="echo", input="hi", text_format=Weather) as answer:
                parsed = (await answer.get_final_response()).output_parsed
        else:
            parsed = (await client.responses.parse(model="echo", input="hi", text_format=Weather)).output_parsed
    assert parsed == Weather(city="Bern", degrees=7)
    output = endpoint.market.orders[0].output
    assert output.kind == "json_schema"
    assert json.loads(output.grammar)["required"] == ["city", "degrees"]


async def test_a_tool_round_trip_with_the_items_that_were_answered() -> None:
    async with serving({"echo": ALL, "next": says("Sunny.")}) as endpoint, async_client(endpoint) as client:
        first = await client.responses.create(model="echo", input="Weather?", tools=[WEATHER], tool_choice="required")
        history: Any = [
            {"role": "user", "content": "Weather?"},
            *(item.to_dict() for item in first.output),
            {"type": "function_call_output", "call_id": "call_0", "output": "sun"},
        ]
        second = await client.responses.create(model="next", input=history, tools=[WEATHER])
    tools = endpoint.market.orders[0].tools
    assert (tools.choice, [tool.name for tool in tools.tools], tools.parallel) == ("required", ["weather"], True)
    assert json.loads(tools.tools[0].parameters) == WEATHER["parameters"]
    asked, said, answered = endpoint.market.orders[1].messages
    assert (asked.role, asked.content) == ("user", "Weather?")
    assert (said.role, said.content) == ("assistant", "It is")
    assert [(call.id, call.name, call.arguments) for call in said.tool_calls] == [
        ("call_0", "weather", '{"city":"Bern"}')
    ]
    assert (answered.role, answered.content, answered.tool_call_id) == ("tool", "sun", "call_0")
    assert second.output_text == "Sunny."


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("none", ("auto", "", [])),
        ({"type": "function", "name": "weather"}, ("named", "weather", ["weather", "other"])),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "other"}]},
            ("required", "", ["other"]),
        ),
    ],
)
async def test_tool_choices(choice: object, expected: tuple[str, str, list[str]]) -> None:
    async with serving({"echo": says("a")}) as endpoint:
        reply = await ask(
            endpoint, tools=[WEATHER, WEATHER | {"name": "other"}], tool_choice=choice, parallel_tool_calls=False
        )
    assert reply.json()["tool_choice"] == choice
    assert reply.json()["parallel_tool_calls"] is False
    Response.model_validate(reply.json())
    tools = endpoint.market.orders[0].tools
    assert (tools.choice, tools.name, [tool.name for tool in tools.tools]) == expected


async def test_content_parts_roles_and_calls_in_a_row() -> None:
    items = [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "a"}]},
        {"role": "user", "content": [{"type": "input_text", "text": "b"}, {"type": "input_text", "text": "c"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"},
        {"type": "item_reference", "id": "rs_2"},
        {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}", "id": "fc_1", "status": "completed"},
        {"type": "function_call", "call_id": "2", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": [{"type": "input_text", "text": "x"}]},
        {"type": "function_call_output", "call_id": "2", "output": ""},
        {"role": "assistant", "content": [{"type": "output_text", "text": "d", "annotations": []}]},
        {"role": "user", "content": "e"},
    ]
    async with serving({"echo": says("a")}) as endpoint:
        reply = await ask(endpoint, input=items, instructions="Be brief.", include=["reasoning.encrypted_content"])
    assert reply.status == 200
    messages = endpoint.market.orders[0].messages
    assert [(turn.role, turn.content, len(turn.tool_calls)) for turn in messages] == [
        ("system", "Be brief.\n\na", 0),
        ("user", "b\nc", 0),
        ("assistant", "", 2),
        ("tool", "x", 0),
        ("tool", "", 0),
        ("assistant", "d", 0),
        ("user", "e", 0),
    ]
