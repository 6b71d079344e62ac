"""Any JSON makes a request or a refusal, in every dialect, and nothing worse."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ryvion_node.proxy.dialect import Asked
from ryvion_node.proxy.errors import ApiError
from ryvion_node.proxy.orders import order_of
from ryvion_node.proxy.responses import Responses
from ryvion_node.proxy.text_completions import TextCompletions

words = st.sampled_from(
    [
        "message", "function_call", "function_call_output", "reasoning", "item_reference", "namespace", "function",
        "user", "assistant", "system", "input_text", "output_text", "refusal", "json_schema", "auto", "required",
        "allowed_tools", "object", "f", "", "a b", "x" * 70,
    ]
)  # fmt: skip
names = st.sampled_from(
    [
        "type", "role", "content", "text", "call_id", "name", "namespace", "arguments", "output", "id", "tools",
        "parameters", "schema", "format", "mode", "effort", "summary", "refusal",
    ]
)  # fmt: skip
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=4) | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=5),
    max_leaves=20,
)
items = st.lists(st.dictionaries(names, words | values, max_size=6), max_size=4)
RESPONSE_FIELDS = (
    "input", "instructions", "tools", "tool_choice", "text", "reasoning", "include", "top_logprobs", "metadata",
    "max_output_tokens", "previous_response_id", "temperature", "stop", "stream", "n", "messages", "logprobs",
)  # fmt: skip
TEXT_FIELDS = (
    "prompt", "suffix", "echo", "logprobs", "best_of", "n", "max_tokens", "stop", "stream", "stream_options", "seed",
    "logit_bias", "response_format", "messages", "tools", "jurisdiction",
)  # fmt: skip


def refusal_of(read: Callable[[None, bytes], Asked], body: bytes) -> ApiError | None:
    """What a body is refused with; None when it makes an order."""
    try:
        asked = read(None, body)
    except ApiError as error:
        return error
    try:
        [order_of(chat, ()) for chat in asked.chats]
    except ApiError as error:
        return asked.told(error)
    return None


def check(read: Callable[[None, bytes], Asked], body: dict[str, object]) -> None:
    refusal = refusal_of(read, json.dumps(body).encode())
    if refusal is not None:
        assert refusal.status in {400, 404}
        assert "messages" in body or not (refusal.param or "").startswith("messages")


BUSY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""On a busy machine making the examples takes longer than Hypothesis thinks right."""


@BUSY
@given(st.dictionaries(st.sampled_from(RESPONSE_FIELDS), items | words | values, max_size=4))
def test_any_response_request(changes: dict[str, object]) -> None:
    check(Responses.read, {"model": "m", "input": "hi"} | changes)


@BUSY
@given(st.dictionaries(st.sampled_from(TEXT_FIELDS), words | values, max_size=4))
def test_any_text_request(changes: dict[str, object]) -> None:
    check(TextCompletions.read, {"model": "m", "prompt": "hi"} | changes)


@pytest.mark.parametrize("read", [Responses.read, TextCompletions.read])
@pytest.mark.parametrize("depth", [100, 10_000])
def test_deep_bodies(read: Callable[[None, bytes], Asked], depth: int) -> None:
    deep = b"[" * depth + b"]" * depth
    for name in (b"input", b"prompt", b"metadata", b"tools", b"x"):
        refusal = refusal_of(read, b'{"model":"m","input":"a","prompt":"b","' + name + b'":' + deep + b"}")
        assert refusal is None or refusal.status == 400
