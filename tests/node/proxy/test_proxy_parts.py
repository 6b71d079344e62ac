"""Tool calls, thoughts and log-probabilities: the exact chunks, and what the official client makes of them."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
import trio
from proxy_harness import Endpoint, serving
from pydantic import BaseModel
from test_proxy_clients import async_client, sync_client

from ryvion_node.market.fake import Script, calls, says
from ryvion_node.market.interface import MarketError, Piece
from ryvion_protocol.messages import Alternative, CallPiece, OutputFormat, TokenLogprob, Tool, ToolUse

pytestmark = [
    pytest.mark.filterwarnings("ignore:Async generator '(httpx|httpcore|openai):ResourceWarning"),
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <async_generator object (AsyncResponseStream|PoolByteStream|Response|Async|safe_async|"
        "HTTP11|SSEDecoder|_):pytest.PytestUnraisableExceptionWarning"
    ),
]

SCHEMA: dict[str, object] = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS: Any = [{"type": "function", "function": {"name": "weather", "description": "How is it?", "parameters": SCHEMA}}]
MESSAGES: Any = [{"role": "user", "content": "hi"}]
LOGPROBS = (
    TokenLogprob(Alternative(b"\xf0\x9f", 250_000), (Alternative(b"\xf0\x9f", 250_000), Alternative(b"a", 2**32 - 1))),
    TokenLogprob(Alternative(b"\x99\x82", 0), ()),
)
TALKS = Script(
    (
        Piece(reasoning="let me "),
        Piece(reasoning="see"),
        Piece("I look. "),
        *calls("weather", '{"city":', ' "Rome"}'),
        Piece(calls=(CallPiece(1, "call_1", "weather", '{"city": "Oslo"}'),)),
    ),
    finish_reason="tool_calls",
)
SURE = Script((Piece("🙂", logprobs=LOGPROBS), Piece("!", logprobs=LOGPROBS[1:])))


async def chunks_of(endpoint: Endpoint, model: str, **extra: object) -> list[dict[str, Any]]:
    reply = await endpoint.chat(model, stream=True, **extra)
    *events, done = reply.events()
    assert done == "[DONE]"
    return [json.loads(event)["choices"][0] for event in events]


async def test_each_part_streams_in_the_form_that_clients_read() -> None:
    async with serving({"m": TALKS}) as endpoint:
        choices = await chunks_of(endpoint, "m", tools=TOOLS)

    def call(index: int, **fields: object) -> dict[str, object]:
        return {"tool_calls": [{"index": index, **fields}]}

    begun = {"type": "function", "function": {"name": "weather", "arguments": ""}}
    assert [choice["delta"] for choice in choices] == [
        {"role": "assistant", "content": ""},
        {"reasoning_content": "let me "},
        {"reasoning_content": "see"},
        {"content": "I look. "},
        call(0, id="call_0", **begun),
        call(0, function={"arguments": '{"city":'}),
        call(0, function={"arguments": ' "Rome"}'}),
        call(1, id="call_1", **begun),
        call(1, function={"arguments": '{"city": "Oslo"}'}),
        {},
    ]
    assert [choice["finish_reason"] for choice in choices] == [None] * 9 + ["tool_calls"]
    assert all(choice["index"] == 0 and choice["logprobs"] is None for choice in choices)


async def test_one_piece_with_everything_becomes_one_chunk_each() -> None:
    piece = Piece("b", "a", (CallPiece(0, "c", "weather", "{}"),), LOGPROBS)
    async with serving({"m": Script((piece,), finish_reason="tool_calls")}) as endpoint:
        choices = await chunks_of(endpoint, "m", tools=TOOLS, logprobs=True, top_logprobs=2)
    assert [list(choice["delta"]) for choice in choices[1:-1]] == [
        ["reasoning_content"],
        ["content"],
        ["tool_calls"],
        ["tool_calls"],
    ]
    assert [choice["logprobs"] is not None for choice in choices[1:-1]] == [True, False, False, False]


async def test_log_probabilities_have_the_form_that_clients_read() -> None:
    async with serving({"m": SURE}) as endpoint:
        choices = await chunks_of(endpoint, "m", logprobs=True, top_logprobs=2)
    assert choices[1]["logprobs"] == {
        "content": [
            {
                "token": "\ufffd",
                "logprob": -0.25,
                "bytes": [0xF0, 0x9F],
                "top_logprobs": [
                    {"token": "\ufffd", "logprob": -0.25, "bytes": [0xF0, 0x9F]},
                    {"token": "a", "logprob": -9999.0, "bytes": [97]},
                ],
            },
            {"token": "\ufffd\ufffd", "logprob": 0.0, "bytes": [0x99, 0x82], "top_logprobs": []},
        ],
        "refusal": None,
    }
    assert choices[0]["logprobs"] is None
    assert choices[-1]["logprobs"] is None


async def test_log_probabilities_that_come_last_are_not_lost() -> None:
    async with serving({"m": Script((Piece("a"), Piece(logprobs=LOGPROBS[1:])))}) as endpoint:
        choices = await chunks_of(endpoint, "m", logprobs=True)
        whole = (await endpoint.chat("m", logprobs=True)).json()
    assert choices[2]["delta"] == {}
    assert len(choices[2]["logprobs"]["content"]) == 1
    told: Any = whole["choices"]
    assert told[0]["logprobs"] == choices[2]["logprobs"]


async def test_whole_answer_has_the_same_parts() -> None:
    async with serving({"m": TALKS, "sure": SURE, "plain": says("x")}) as endpoint:
        called: Any = (await endpoint.chat("m", tools=TOOLS)).json()
        sure: Any = (await endpoint.chat("sure", logprobs=True, top_logprobs=2)).json()
        plain: Any = (await endpoint.chat("plain")).json()
    assert called["choices"][0]["message"] == {
        "role": "assistant",
        "content": "I look. ",
        "refusal": None,
        "reasoning_content": "let me see",
        "tool_calls": [
            {"id": "call_0", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}},
            {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}},
        ],
    }
    assert called["choices"][0]["finish_reason"] == "tool_calls"
    assert called["usage"]["completion_tokens_details"] == {"reasoning_tokens": 3}
    assert len(sure["choices"][0]["logprobs"]["content"]) == 3
    assert plain["choices"][0]["logprobs"] is None
    assert set(plain["choices"][0]["message"]) == {"role", "content", "refusal"}


async def test_answer_of_calls_alone_has_null_content() -> None:
    async with serving({"m": Script(calls("weather", "{}"), finish_reason="tool_calls")}) as endpoint:
        whole: Any = (await endpoint.chat("m", tools=TOOLS)).json()
    assert whole["choices"][0]["message"]["content"] is None


async def test_models_tell_what_they_can_do() -> None:
    async with serving({"m": says("x")}) as endpoint:
        listed: Any = (await endpoint.ask("GET", "/v1/models/m", authorization="Bearer sk-buyer")).json()
    assert {"tools", "json_schema", "logprobs"} <= set(listed["ryvion"]["features"])


async def test_sync_client_runs_a_conversation_with_a_tool() -> None:
    answers = {
        "asks": Script(calls("weather", '{"city": "Rome"}'), finish_reason="tool_calls"),
        "tells": says("Sunny."),
    }
    async with serving(answers) as endpoint:

        def use() -> None:
            with sync_client(endpoint) as client:
                create = client.chat.completions.create
                first = create(model="asks", messages=MESSAGES, tools=TOOLS, tool_choice="required")
                message = first.choices[0].message
                assert first.choices[0].finish_reason == "tool_calls"
                assert message.tool_calls is not None
                (call,) = message.tool_calls
                assert call.type == "function"
                assert json.loads(call.function.arguments) == {"city": "Rome"}
                result: Any = {"role": "tool", "tool_call_id": call.id, "content": "25 degrees"}
                turns = [*MESSAGES, message.model_dump(exclude_none=True), result]
                second = create(model="tells", messages=turns, tools=TOOLS, parallel_tool_calls=False)
                assert second.choices[0].message.content == "Sunny."

        await trio.to_thread.run_sync(use)
        first, second = endpoint.market.orders
    tool = Tool("weather", "How is it?", json.dumps(SCHEMA, separators=(",", ":")))
    assert first.tools == ToolUse((tool,), "required")
    assert second.tools == ToolUse((tool,), parallel=False)
    assert [turn.role for turn in second.messages] == ["user", "assistant", "tool"]
    assert second.messages[1].tool_calls[0].id == second.messages[2].tool_call_id == "call_0"


@pytest.mark.parametrize("script", [TALKS, SURE], ids=["calls", "logprobs"])
async def test_streamed_and_whole_are_the_same_to_the_async_client(script: Script) -> None:
    async with serving({"m": script}) as endpoint, async_client(endpoint) as client:
        whole = await client.chat.completions.create(model="m", messages=MESSAGES, seed=3, logprobs=True)
        async with client.chat.completions.stream(
            model="m", messages=MESSAGES, seed=3, logprobs=True, stream_options={"include_usage": True}
        ) as stream:
            streamed = await stream.get_final_completion()
    one, other = whole.choices[0], streamed.choices[0]
    assert (other.message.content or None) == (one.message.content or None)
    assert other.finish_reason == one.finish_reason
    assert [_call(call) for call in other.message.tool_calls or []] == [
        _call(call) for call in one.message.tool_calls or []
    ]
    assert getattr(other.message, "reasoning_content", None) == getattr(one.message, "reasoning_content", None)
    assert streamed.usage == whole.usage
    if one.logprobs is not None and one.logprobs.content:
        assert other.logprobs is not None
        assert [token.logprob for token in other.logprobs.content or []] == [t.logprob for t in one.logprobs.content]


def _call(call: Any) -> tuple[str, str, str]:
    return call.id, call.function.name, call.function.arguments


class City(BaseModel):
    """What the client parses the answer into."""

    city: str


async def test_parse_helper_sends_its_schema_and_reads_the_answer() -> None:
    async with serving({"m": says('{"city"', ': "Rome"}')}) as endpoint, async_client(endpoint) as client:
        parsed = await client.chat.completions.parse(model="m", messages=MESSAGES, response_format=City)
    assert parsed.choices[0].message.parsed == City(city="Rome")
    output = endpoint.market.orders[0].output
    assert output.kind == "json_schema"
    assert json.loads(output.grammar)["properties"]["city"]["type"] == "string"


async def test_extra_sampling_rules_go_in_the_extra_body() -> None:
    async with serving({"m": says("x")}) as endpoint, async_client(endpoint) as client:
        await client.chat.completions.create(
            model="m",
            messages=MESSAGES,
            presence_penalty=0.5,
            frequency_penalty=-0.5,
            logit_bias={"5": -100},
            response_format={"type": "json_object"},
            extra_body={"top_k": 40, "min_p": 0.05, "repetition_penalty": 1.1},
        )
    (made,) = endpoint.market.orders
    assert (made.presence_penalty, made.frequency_penalty) == (0.5, -0.5)
    assert (made.top_k, made.min_p, made.repetition_penalty) == (40, 0.05, 1.1)
    assert made.output == OutputFormat("json_object")


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("error", "param"),
    [
        (MarketError("unsupported", "nobody can: json_object", features=("json_object",)), "response_format"),
        (MarketError("grammar_invalid", "the schema is none"), "response_format"),
    ],
)
async def test_what_cannot_be_done_is_a_bad_request(error: MarketError, param: str, stream: bool) -> None:
    async with serving({"m": Script(before=(error,))}) as endpoint, async_client(endpoint) as client:
        with pytest.raises(openai.BadRequestError, match=str(error)) as caught:
            await client.chat.completions.create(
                model="m", messages=MESSAGES, response_format={"type": "json_object"}, stream=stream
            )
        assert caught.value.param == param
