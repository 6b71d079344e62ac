"""What a request may say: every field, every refusal with the name of what is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ryvion_node.proxy.errors import ApiError
from ryvion_node.proxy.orders import order_of
from ryvion_node.proxy.requests import IGNORED, NOT_HONOURED, parse_chat_request
from ryvion_protocol.messages import ChatMessage, LogitBias, OutputFormat, ToolUse

HELLO = {"role": "user", "content": "hi"}
BASE = {"model": "m", "messages": [HELLO]}


def parse(**extra: object) -> Any:
    return parse_chat_request(json.dumps(BASE | extra).encode())


def order(*, within: tuple[str, ...] = (), **extra: object) -> Any:
    return order_of(parse(**extra), within)


def refusal(**extra: object) -> tuple[str, str | None]:
    with pytest.raises(ApiError) as caught:
        order(**extra)
    return caught.value.code, caught.value.param


def test_defaults() -> None:
    plain = order()
    assert plain.model == "m"
    assert plain.messages == (ChatMessage("user", "hi", ""),)
    assert (plain.temperature, plain.top_p, plain.seed, plain.stop) == (0.7, 1.0, None, ())
    assert (plain.max_completion_tokens, plain.jurisdictions, plain.max_price) == (None, (), None)
    assert not parse().stream


OPTIONAL = [
    "stream",
    "stream_options",
    "temperature",
    "top_p",
    "max_tokens",
    "max_completion_tokens",
    "stop",
    "seed",
    "jurisdiction",
    "n",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "response_format",
    "logprobs",
    "top_logprobs",
    "logit_bias",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "top_k",
    "min_p",
    "user",
    "metadata",
    "audio",
    "modalities",
    "knowledge_base",
    "ryvion",
    "functions",
]


@pytest.mark.parametrize("name", OPTIONAL)
def test_null_means_the_default(name: str) -> None:
    assert order(**{name: None}) == order()


@pytest.mark.parametrize("name", sorted(IGNORED))
@pytest.mark.parametrize("value", ["x", 7, {"a": [1]}, True, []])
def test_what_has_no_influence_is_accepted_and_ignored(name: str, value: object) -> None:
    assert order(**{name: value}) == order()


@pytest.mark.parametrize("value", ["x", 7, {"a": [1]}, True, []])
def test_unknown_keys_are_accepted(value: object) -> None:
    assert order(some_new_thing=value) == order()


@pytest.mark.parametrize(
    ("field", "value", "attribute", "expected"),
    [
        ("temperature", 0, "temperature", 0.0),
        ("temperature", 2, "temperature", 2.0),
        ("top_p", 0.5, "top_p", 0.5),
        ("top_p", 0, "top_p", 1e-6),
        ("top_k", 5, "top_k", 5),
        ("top_k", 0, "top_k", 0),
        ("top_k", -1, "top_k", 0),
        ("min_p", 0.25, "min_p", 0.25),
        ("presence_penalty", -2, "presence_penalty", -2.0),
        ("frequency_penalty", 0.5, "frequency_penalty", 0.5),
        ("repetition_penalty", 1.1, "repetition_penalty", 1.1),
        (
            "logit_bias",
            {"7": -100, "0": 0.5, "9": 0},
            "logit_bias",
            (LogitBias(0, 1_000_000), LogitBias(7, 199_999_999)),
        ),
        ("logit_bias", {}, "logit_bias", ()),
        ("logprobs", False, "logprobs", None),
        ("logprobs", True, "logprobs", 0),
        ("top_logprobs", 0, "logprobs", None),
        ("response_format", {"type": "text"}, "output", OutputFormat()),
        ("response_format", {"type": "json_object"}, "output", OutputFormat("json_object")),
        ("tools", [], "tools", ToolUse()),
        ("tool_choice", "none", "tools", ToolUse()),
        ("tool_choice", "auto", "tools", ToolUse()),
        ("seed", 7, "seed", 7),
        ("seed", -1, "seed", 2**64 - 1),
        ("stop", "END", "stop", ("END",)),
        ("stop", ["a", "b", "c", "d"], "stop", ("a", "b", "c", "d")),
        ("stop", [], "stop", ()),
        ("max_tokens", 5, "max_completion_tokens", 5),
        ("max_completion_tokens", 6, "max_completion_tokens", 6),
        ("jurisdiction", "ca", "jurisdictions", ("CA",)),
        ("jurisdiction", ["DE", "CA"], "jurisdictions", ("CA", "DE")),
    ],
)
def test_fields_reach_the_order(field: str, value: object, attribute: str, expected: object) -> None:
    assert getattr(order(**{field: value}), attribute) == expected


def test_groups_of_countries_are_expanded() -> None:
    assert len(order(jurisdiction="EU").jurisdictions) == 27
    assert "CA" in order(jurisdiction=["EU", "CA"]).jurisdictions


def test_both_names_of_the_answer_limit_may_say_the_same() -> None:
    assert order(max_tokens=5, max_completion_tokens=5).max_completion_tokens == 5
    assert order_of(parse(), (), 99).max_completion_tokens == 99
    assert order_of(parse(max_tokens=5), (), 99).max_completion_tokens == 5


def test_a_key_bound_to_a_place_buys_there_and_nowhere_else() -> None:
    assert order(within=("CA", "US")).jurisdictions == ("CA", "US")
    assert order(within=("CA", "US"), jurisdiction="CA").jurisdictions == ("CA",)
    assert refusal(within=("CA", "US"), jurisdiction=["CA", "DE"]) == ("jurisdiction_not_allowed", "jurisdiction")


def test_roles_names_and_parts() -> None:
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "system", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "user", "name": "Ann", "content": ""},
        {"role": "assistant", "content": "I think", "tool_calls": [], "refusal": None, "annotations": []},
        {"role": "assistant", "content": None, "refusal": "I will not"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "Nor now"}]},
    ]
    assert order(messages=messages).messages == (
        ChatMessage("system", "be brief", ""),
        ChatMessage("system", "a\nb", ""),
        ChatMessage("user", "", "Ann"),
        ChatMessage("assistant", "I think", ""),
        ChatMessage("assistant", "I will not", ""),
        ChatMessage("assistant", "Nor now", ""),
    )


@pytest.mark.parametrize("name", sorted(NOT_HONOURED))
def test_what_would_change_the_answer_is_refused_by_name_and_its_harmless_values_are_not(name: str) -> None:
    assert refusal(**{name: {"type": "something else"}}) == ("unsupported_parameter", name)
    for harmless in NOT_HONOURED[name]:
        assert order(**{name: harmless}) == order()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("guided_json", {"type": "object"}),
        ("min_tokens", 5),
        ("modalities", ["text", "audio"]),
    ],
)
def test_values_that_ask_for_something(name: str, value: object) -> None:
    assert refusal(**{name: value}) == ("unsupported_parameter", name)


def message(**fields: object) -> dict[str, object]:
    return {"messages": [HELLO, fields]}


@pytest.mark.parametrize(
    ("extra", "code", "param"),
    [
        ({"model": None}, "invalid_type", "model"),
        ({"model": 5}, "invalid_type", "model"),
        ({"model": ""}, "model_not_found", "model"),
        ({"model": "no such/ name"}, "model_not_found", "model"),
        ({"messages": "hi"}, "invalid_type", "messages"),
        ({"messages": []}, "invalid_value", "messages"),
        ({"messages": ["hi"]}, "invalid_type", "messages[0]"),
        (message(), "missing_required_parameter", "messages[1].role"),
        (message(role="robot", content="x"), "invalid_value", "messages[1].role"),
        (message(role=5, content="x"), "invalid_type", "messages[1].role"),
        (message(role="user"), "missing_required_parameter", "messages[1].content"),
        (message(role="user", refusal="no"), "missing_required_parameter", "messages[1].content"),
        (message(role="assistant", content=None), "missing_required_parameter", "messages[1].content"),
        (message(role="user", content=5), "invalid_type", "messages[1].content"),
        (message(role="user", content={"text": "x"}), "invalid_type", "messages[1].content"),
        (message(role="user", content=["x"]), "invalid_type", "messages[1].content[0]"),
        (message(role="user", content=[{"text": "x"}]), "missing_required_parameter", "messages[1].content[0].type"),
        (message(role="user", content=[{"type": "text"}]), "missing_required_parameter", "messages[1].content[0].text"),
        (message(role="user", content=[{"type": "text", "text": 5}]), "invalid_type", "messages[1].content[0].text"),
        (
            message(role="user", content=[{"type": "image_url", "image_url": {"url": "x"}}]),
            "unsupported_parameter",
            "messages[1].content[0].type",
        ),
        (message(role="user", content="x", name=5), "invalid_type", "messages[1].name"),
        (message(role="user", content="x", name="é" * 33), "invalid_value", "messages[1].name"),
        (message(role="function", content="x", name="f"), "unsupported_parameter", "messages[1].role"),
        ({"temperature": -0.1}, "invalid_value", "temperature"),
        ({"temperature": 2.1}, "invalid_value", "temperature"),
        ({"temperature": "1"}, "invalid_type", "temperature"),
        ({"temperature": True}, "invalid_type", "temperature"),
        ({"top_p": 1.01}, "invalid_value", "top_p"),
        ({"top_k": -2}, "invalid_value", "top_k"),
        ({"top_k": 2**32}, "invalid_value", "top_k"),
        ({"top_k": 1.5}, "invalid_type", "top_k"),
        ({"min_p": 1.1}, "invalid_value", "min_p"),
        ({"presence_penalty": 2.1}, "invalid_value", "presence_penalty"),
        ({"frequency_penalty": -2.1}, "invalid_value", "frequency_penalty"),
        ({"repetition_penalty": 0}, "invalid_value", "repetition_penalty"),
        ({"logit_bias": [5]}, "invalid_type", "logit_bias"),
        ({"logit_bias": {"5": 101}}, "invalid_value", "logit_bias.5"),
        ({"logit_bias": {"5": "1"}}, "invalid_type", "logit_bias.5"),
        ({"logit_bias": {"word": 1}}, "invalid_value", "logit_bias"),
        ({"logit_bias": {"05": 1}}, "invalid_value", "logit_bias"),
        ({"logit_bias": {str(2**32): 1}}, "invalid_value", "logit_bias"),
        ({"logit_bias": {str(token): 1 for token in range(301)}}, "invalid_value", "logit_bias"),
        ({"logprobs": 0}, "invalid_type", "logprobs"),
        ({"top_logprobs": 1}, "invalid_value", "top_logprobs"),
        ({"top_logprobs": 1, "logprobs": False}, "invalid_value", "top_logprobs"),
        ({"top_logprobs": 21, "logprobs": True}, "invalid_value", "top_logprobs"),
        ({"max_tokens": 0}, "invalid_value", "max_tokens"),
        ({"max_tokens": 1.5}, "invalid_type", "max_tokens"),
        ({"max_tokens": True}, "invalid_type", "max_tokens"),
        ({"max_tokens": 2**31}, "invalid_value", "max_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "invalid_value", "max_tokens"),
        ({"stop": 5}, "invalid_type", "stop"),
        ({"stop": ["a", 5]}, "invalid_type", "stop[1]"),
        ({"stop": ""}, "invalid_value", "stop"),
        ({"stop": "x" * 257}, "invalid_value", "stop"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "invalid_value", "stop"),
        ({"seed": 1.5}, "invalid_type", "seed"),
        ({"seed": 2**64}, "invalid_value", "seed"),
        ({"stream": "yes"}, "invalid_type", "stream"),
        ({"stream": 1}, "invalid_type", "stream"),
        ({"stream_options": True}, "invalid_type", "stream_options"),
        ({"stream_options": {"include_usage": 1}}, "invalid_type", "stream_options.include_usage"),
        ({"jurisdiction": 5}, "invalid_type", "jurisdiction"),
        ({"jurisdiction": "Atlantis"}, "invalid_value", "jurisdiction"),
        ({"jurisdiction": ""}, "invalid_value", "jurisdiction"),
        ({"jurisdiction": []}, "invalid_value", "jurisdiction"),
        ({"jurisdiction": ["CA", None]}, "invalid_type", "jurisdiction[1]"),
        ({"messages": [HELLO] * 2049}, "context_length_exceeded", "messages"),
        ({"messages": [{"role": "user", "content": "x" * 300_000}]}, "context_length_exceeded", "messages"),
    ],
)
def test_what_is_wrong_is_named(extra: dict[str, object], code: str, param: str) -> None:
    assert refusal(**extra) == (code, param)


@pytest.mark.parametrize("missing", ["model", "messages"])
def test_required_fields(missing: str) -> None:
    body = {name: value for name, value in BASE.items() if name != missing}
    with pytest.raises(ApiError) as caught:
        parse_chat_request(json.dumps(body).encode())
    assert (caught.value.code, caught.value.param) == ("missing_required_parameter", missing)
    assert str(caught.value) == f"Missing required parameter: '{missing}'."


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b"nope",
        b'{"model": "m",}',
        b'{"a": "\\ud800"}',
        b"[" * 5000,
        b'{"temperature": 1e99999',
        b"{}x",
    ],
)
def test_bad_json(body: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        parse_chat_request(body)
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, "invalid_json", None)


@pytest.mark.parametrize("body", [b"[]", b"5", b'"x"', b"null", b"true"])
def test_a_body_that_is_no_object(body: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        parse_chat_request(body)
    assert (caught.value.code, caught.value.param) == ("invalid_type", None)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none_are_refused(number: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse_chat_request(
            b'{"model": "m", "messages": [{"role": "user", "content": "x"}], "temperature": %s}' % number.encode()
        )
    assert caught.value.status == 400


def test_an_error_does_not_repeat_the_prompt() -> None:
    with pytest.raises(ApiError) as caught:
        order(messages=[{"role": "user", "content": ["my secret"]}])
    assert "secret" not in caught.value.message
    assert caught.value.__cause__ is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
roles = st.sampled_from(["system", "developer", "user", "assistant", "tool", "function", "robot"]) | json_values
parts = st.fixed_dictionaries(
    {}, optional={"type": st.sampled_from(["text", "image_url"]) | json_values, "text": json_values}
)
functions = st.fixed_dictionaries(
    {}, optional={"name": st.just("f") | json_values, "arguments": json_values, "parameters": json_values}
)
calls = st.fixed_dictionaries(
    {}, optional={"id": json_values, "type": st.just("function") | json_values, "function": functions | json_values}
)
messages = st.fixed_dictionaries(
    {},
    optional={
        "role": roles,
        "content": st.text(max_size=20) | st.lists(parts, max_size=3) | json_values,
        "name": json_values,
        "tool_calls": json_values | st.lists(calls, max_size=2),
        "tool_call_id": json_values,
    },
)
fields: dict[str, st.SearchStrategy[object]] = dict.fromkeys([*OPTIONAL, *NOT_HONOURED], json_values)
fields["tools"] = json_values | st.lists(calls, max_size=3)
fields["tool_choice"] = json_values | calls
bodies = st.fixed_dictionaries(
    {"model": st.just("m") | json_values, "messages": st.lists(messages, max_size=3) | json_values}, optional=fields
)


@given(bodies)
@settings(max_examples=150, deadline=None)
def test_any_body_is_an_order_or_a_client_error(body: dict[str, object]) -> None:
    error = error_of(json.dumps(body).encode("utf-8", "surrogatepass"))
    if error is not None:
        assert 400 <= error.status < 500
        assert set(json.loads(error.body())["error"]) == {"message", "type", "param", "code"}


def error_of(body: bytes) -> ApiError | None:
    try:
        order_of(parse_chat_request(body), ("CA",))
    except ApiError as error:
        return error
    return None


@given(st.binary(max_size=60))
@settings(deadline=None)
def test_any_bytes_are_an_order_or_a_client_error(body: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        parse_chat_request(body)
    assert 400 <= caught.value.status < 500
