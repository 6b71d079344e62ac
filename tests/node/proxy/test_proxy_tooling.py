"""Tools, tool turns and answer formats in requests: what reaches the order, and what is refused by its path."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ryvion_node.market.interface import MarketError
from ryvion_node.proxy.constants import MAX_PARAMETERS_DEPTH, MAX_SCHEMA_DEPTH, MAX_TOOLS_BYTES
from ryvion_node.proxy.errors import ApiError, from_market
from ryvion_node.proxy.orders import order_of
from ryvion_node.proxy.requests import parse_chat_request
from ryvion_protocol.constants import MAX_GRAMMAR_BYTES
from ryvion_protocol.messages import ChatMessage, JobRequest, OutputFormat, Tool, ToolCall, ToolUse
from ryvion_protocol.packet import pack

HELLO = {"role": "user", "content": "hi"}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string", "minLength": 1}}, "required": ["city"]}
SCHEMA_TEXT = json.dumps(SCHEMA, separators=(",", ":"))
WEATHER = {"type": "function", "function": {"name": "weather", "description": "How is it?", "parameters": SCHEMA}}
CLOCK = {"type": "function", "function": {"name": "clock"}}
TOOLS = (Tool("weather", "How is it?", SCHEMA_TEXT), Tool("clock", "", ""))


def order(**extra: object) -> Any:
    return order_of(parse_chat_request(json.dumps({"model": "m", "messages": [HELLO]} | extra).encode()), ())


def refusal(**extra: object) -> tuple[str, str | None]:
    with pytest.raises(ApiError) as caught:
        order(**extra)
    return caught.value.code, caught.value.param


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({}, ToolUse(TOOLS)),
        ({"tool_choice": "auto", "parallel_tool_calls": True}, ToolUse(TOOLS)),
        ({"tool_choice": "none"}, ToolUse()),
        ({"tool_choice": "required"}, ToolUse(TOOLS, "required")),
        ({"parallel_tool_calls": False}, ToolUse(TOOLS, parallel=False)),
        ({"tool_choice": {"type": "function", "function": {"name": "clock"}}}, ToolUse(TOOLS, "named", "clock")),
    ],
)
def test_tools_reach_the_order(extra: dict[str, object], expected: ToolUse) -> None:
    made = order(tools=[WEATHER, CLOCK], **extra)
    assert made.tools == expected
    pack(JobRequest(bytes(16), made.messages, (), (), made.tools))


def tool(**function: object) -> dict[str, object]:
    return {"type": "function", "function": {"name": "f"} | function}


def nested(depth: int) -> dict[str, object]:
    return {"properties": nested(depth - 1)} if depth > 1 else {}


@pytest.mark.parametrize(
    ("extra", "code", "param"),
    [
        ({"tools": {}}, "invalid_type", "tools"),
        ({"tools": [5]}, "invalid_type", "tools[0]"),
        ({"tools": [{"function": {"name": "f"}}]}, "missing_required_parameter", "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "missing_required_parameter", "tools[0].function"),
        ({"tools": [{"type": "custom", "custom": {}}]}, "unsupported_parameter", "tools[0].type"),
        ({"tools": [{"type": "function", "function": {}}]}, "missing_required_parameter", "tools[0].function.name"),
        ({"tools": [tool(name="no spaces")]}, "invalid_value", "tools[0].function.name"),
        ({"tools": [tool(name="x" * 65)]}, "invalid_value", "tools[0].function.name"),
        ({"tools": [tool(), tool()]}, "invalid_value", "tools[1].function.name"),
        ({"tools": [tool(parameters=[])]}, "invalid_type", "tools[0].function.parameters"),
        (
            {"tools": [tool(parameters=nested(MAX_PARAMETERS_DEPTH + 2))]},
            "invalid_value",
            "tools[0].function.parameters",
        ),
        (
            {"tools": [tool(parameters={"x": "y" * MAX_GRAMMAR_BYTES})]},
            "invalid_value",
            "tools[0].function.parameters",
        ),
        ({"tools": [tool(description="x" * MAX_TOOLS_BYTES)]}, "invalid_value", "tools"),
        ({"tools": [tool(name=f"f{number}") for number in range(129)]}, "invalid_value", "tools"),
        ({"tools": [tool()], "tool_choice": "any"}, "invalid_value", "tool_choice"),
        ({"tools": [tool()], "tool_choice": 5}, "invalid_type", "tool_choice"),
        ({"tools": [tool()], "tool_choice": {"type": "allowed_tools"}}, "unsupported_parameter", "tool_choice.type"),
        (
            {"tools": [tool()], "tool_choice": {"type": "function"}},
            "missing_required_parameter",
            "tool_choice.function",
        ),
        (
            {"tools": [tool()], "tool_choice": {"type": "function", "function": {"name": "g"}}},
            "invalid_value",
            "tool_choice.function.name",
        ),
        ({"tool_choice": "required"}, "invalid_value", "tool_choice"),
        ({"parallel_tool_calls": "yes"}, "invalid_type", "parallel_tool_calls"),
        ({"response_format": "json"}, "invalid_type", "response_format"),
        ({"response_format": {"type": "grammar"}}, "invalid_value", "response_format.type"),
        (
            {"response_format": {"type": "json_schema"}},
            "missing_required_parameter",
            "response_format.json_schema",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}},
            "missing_required_parameter",
            "response_format.json_schema.schema",
        ),
        *(
            (
                {"response_format": {"type": "json_schema", "json_schema": {"name": name, "schema": {}}}},
                "invalid_value",
                "response_format.json_schema.name",
            )
            for name in ("", "a b", "x" * 65, "é")
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": "x"}}},
            "invalid_type",
            "response_format.json_schema.schema",
        ),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "a", "schema": nested(MAX_SCHEMA_DEPTH + 2)},
                }
            },
            "invalid_value",
            "response_format.json_schema.schema",
        ),
        (
            {"tools": [tool(description="x" * 120_000)], "messages": [HELLO | {"content": "y" * 120_000}]},
            "context_length_exceeded",
            "messages",
        ),
    ],
)
def test_what_is_wrong_with_tools_and_formats_is_named(extra: dict[str, object], code: str, param: str) -> None:
    assert refusal(**extra) == (code, param)


@pytest.mark.parametrize("strict", [True, False, None])
def test_a_schema_is_enforced_whether_strict_or_not(strict: bool | None) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA, "strict": strict}}
    assert order(response_format=wanted).output == OutputFormat("json_schema", SCHEMA_TEXT)


def test_schemas_keep_their_order_and_their_letters() -> None:
    given = {"z": {"const": "héé 🙂"}, "a": {"maximum": 1e300, "minimum": -0.5, "multipleOf": 10**30}}
    text = order(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": given}}).output.grammar
    assert json.loads(text) == given
    assert list(json.loads(text)) == ["z", "a"]
    assert "🙂" in text


def test_number_that_is_none_is_refused_in_a_schema() -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":"x"}],"tools":[{"type":"function","function":'
    with pytest.raises(ApiError) as caught:
        order_of(parse_chat_request(body + b'{"name":"f","parameters":{"maximum":NaN}}}]}'), ())
    assert caught.value.status == 400


CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}


def test_turns_of_a_conversation_with_tools() -> None:
    messages = [
        HELLO,
        {"role": "assistant", "content": None, "tool_calls": [CALL], "refusal": None},
        {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "sunny"}]},
        {"role": "assistant", "content": "It is", "tool_calls": []},
    ]
    made = order(messages=messages, tools=[WEATHER])
    assert made.messages == (
        ChatMessage("user", "hi", ""),
        ChatMessage("assistant", "", "", (ToolCall("call_1", "weather", '{"city": "Rome"}'),)),
        ChatMessage("tool", "sunny", "", (), "call_1"),
        ChatMessage("assistant", "It is", ""),
    )
    pack(JobRequest(bytes(16), made.messages, (), (), made.tools))


def turn(**fields: object) -> dict[str, object]:
    return {"messages": [HELLO, fields]}


def calling(**changes: object) -> dict[str, object]:
    return turn(role="assistant", content=None, tool_calls=[CALL | changes])


@pytest.mark.parametrize(
    ("extra", "code", "param"),
    [
        (turn(role="tool", content="x"), "missing_required_parameter", "messages[1].tool_call_id"),
        (turn(role="tool", tool_call_id="c"), "missing_required_parameter", "messages[1].content"),
        (turn(role="tool", content="x", tool_call_id="c" * 65), "invalid_value", "messages[1].tool_call_id"),
        (turn(role="tool", content="x", tool_call_id="a\nb"), "invalid_value", "messages[1].tool_call_id"),
        (turn(role="user", content="x", tool_call_id="c"), "invalid_value", "messages[1].tool_call_id"),
        (turn(role="user", content="x", tool_calls=[CALL]), "invalid_value", "messages[1].tool_calls"),
        (turn(role="assistant", tool_calls=[]), "missing_required_parameter", "messages[1].content"),
        (turn(role="assistant", tool_calls=[CALL] * 129), "invalid_value", "messages[1].tool_calls"),
        (calling(id=5), "invalid_type", "messages[1].tool_calls[0].id"),
        (calling(id=""), "invalid_value", "messages[1].tool_calls[0].id"),
        (calling(type="custom"), "unsupported_parameter", "messages[1].tool_calls[0].type"),
        (calling(function=None), "missing_required_parameter", "messages[1].tool_calls[0].function"),
        (calling(function={"name": "f"}), "missing_required_parameter", "messages[1].tool_calls[0].function.arguments"),
        (
            calling(function={"name": "f", "arguments": {}}),
            "invalid_type",
            "messages[1].tool_calls[0].function.arguments",
        ),
        (
            calling(function={"name": "a b", "arguments": ""}),
            "invalid_value",
            "messages[1].tool_calls[0].function.name",
        ),
    ],
)
def test_what_is_wrong_with_a_tool_turn_is_named(extra: dict[str, object], code: str, param: str) -> None:
    assert refusal(**extra) == (code, param)


@pytest.mark.parametrize(
    ("extra", "error", "code", "param"),
    [
        ({"top_k": 3}, MarketError("unsupported", "no", features=("top_k",)), "unsupported_parameter", "top_k"),
        (
            {"frequency_penalty": 1},
            MarketError("unsupported", "no", features=("penalties",)),
            "unsupported_parameter",
            "frequency_penalty",
        ),
        ({}, MarketError("unsupported", "no", features=("prefix",)), "unsupported_parameter", "messages"),
        ({}, MarketError("unsupported", "no"), "unsupported_parameter", None),
        (
            {"response_format": {"type": "json_object"}},
            MarketError("unsupported", "no", features=("json_object",)),
            "unsupported_parameter",
            "response_format",
        ),
        ({"tools": [WEATHER]}, MarketError("grammar_invalid", "no"), "invalid_value", "tools"),
        (
            {"tools": [WEATHER], "response_format": {"type": "json_object"}},
            MarketError("grammar_invalid", "no"),
            "invalid_value",
            "response_format",
        ),
    ],
)
def test_what_no_executor_can_do_names_the_parameter(
    extra: dict[str, object], error: MarketError, code: str, param: str | None
) -> None:
    told = from_market(error, order(**extra))
    assert (told.status, told.code, told.param) == (400, code, param)
