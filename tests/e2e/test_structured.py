"""What requests may ask for beyond text, from real nodes with a real model: schemas, tools, log-probabilities, seeds."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import openai
import pytest

from tests.e2e.conftest import MODEL
from tests.e2e.live import LiveMarket, cli

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 12},
        "people": {"type": "integer", "minimum": 0, "maximum": 999},
        "river": {"enum": ["Seine", "Tiber", None]},
    },
    "required": ["city", "people", "river"],
    "additionalProperties": False,
}
TOOLS: Any = [
    {"type": "function", "function": {"name": "weather", "description": "How is it?", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "clock"}},
]
PROMPT = "What is the capital of France?"


@pytest.fixture
def client(market: LiveMarket) -> Iterator[openai.OpenAI]:
    transport = openai.DefaultHttpxClient(trust_env=False)
    with openai.OpenAI(
        base_url=market.endpoint, api_key=market.api_key, http_client=transport, max_retries=0, timeout=60
    ) as made:
        yield made


def ask(client: openai.OpenAI, **changes: Any) -> Any:
    settings: dict[str, Any] = {
        "model": MODEL,
        "messages": [{"role": "user", "content": PROMPT}],
        "temperature": 0,
        "max_tokens": 200,
    }
    return client.chat.completions.create(**(settings | changes))


def accepted(answer: Any) -> bool:
    about = answer.model_extra["ryvion"]
    return about["accepted"] is True and {check["outcome"] for check in about["checks"]} == {"passed"}


@pytest.mark.parametrize("temperature", [0, 1.2])
def test_answer_follows_its_schema(client: openai.OpenAI, temperature: float) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA, "strict": True}}
    answer = ask(client, response_format=wanted, temperature=temperature, seed=5)
    assert answer.choices[0].finish_reason == "stop"
    jsonschema.validate(json.loads(answer.choices[0].message.content), SCHEMA)
    assert accepted(answer)


def test_answer_is_a_json_object(client: openai.OpenAI) -> None:
    answer = ask(client, response_format={"type": "json_object"}, temperature=0.7, seed=1, max_tokens=400)
    if answer.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(answer.choices[0].message.content), dict)
    assert accepted(answer)


def test_log_probabilities_come_back_with_each_token(client: openai.OpenAI) -> None:
    answer = ask(client, logprobs=True, top_logprobs=3, max_tokens=8)
    told = answer.choices[0].logprobs.content
    text = b"".join(bytes(token.bytes) for token in told).decode()
    assert text.strip().startswith(answer.choices[0].message.content.strip())
    for token in told:
        assert len(token.top_logprobs) == 3
        assert token.logprob == token.top_logprobs[0].logprob  # at temperature 0 the likeliest is chosen
        assert math.fsum(math.exp(other.logprob) for other in token.top_logprobs) <= 1.001
    assert accepted(answer)


ODD = {
    "messages": [{"role": "user", "content": "Xyzzy plugh zork?"}],
    "temperature": 2,
    "top_p": 0.99,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.25,
    "max_tokens": 24,
}
"""A question that the model never saw, and a temperature at which any of its tokens may come."""
BEYOND = {"top_k": 500, "min_p": 0.001, "repetition_penalty": 1.1}
RIVERS: dict[str, Any] = {
    "type": "object",
    "properties": {"river": {"enum": ["Seine", "Tiber"]}, "length": {"type": "integer", "maximum": 99999}},
    "required": ["river", "length"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    "rules",
    [
        ODD,
        ODD | {"logprobs": True, "top_logprobs": 3},
        ODD
        | {
            "tools": [{"type": "function", "function": {"name": "river", "parameters": RIVERS}}],
            "tool_choice": "required",
            "parallel_tool_calls": False,
            "max_tokens": 80,
        },
        ODD
        | {
            "response_format": {"type": "json_schema", "json_schema": {"name": "river", "schema": RIVERS}},
            "max_tokens": 80,
        },
        ODD | {"messages": [{"role": "user", "content": "Xyzzy plugh zork? " * 30}]},
    ],
    ids=["text", "logprobs", "call", "schema", "long prompt"],
)
def test_same_seed_gives_the_same_answer_and_bill_streamed_and_whole(
    client: openai.OpenAI, rules: dict[str, Any]
) -> None:
    rules = rules | {"extra_body": BEYOND | {"jurisdiction": "DE"}}
    whole = ask(client, seed=11, **rules)
    chunks = list(ask(client, seed=11, stream=True, stream_options={"include_usage": True}, **rules))
    told, said = whole.choices[0].message, [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert "".join(one.delta.content or "" for one in said) == (told.content or "")
    calls = [call for one in said for call in one.delta.tool_calls or []]
    assert {call.index for call in calls} == set(range(len(told.tool_calls or [])))
    assert [(call.id, call.function.name) for call in calls if call.id] == [
        (call.id, call.function.name) for call in told.tool_calls or []
    ]
    assert "".join(call.function.arguments for call in calls) == "".join(
        call.function.arguments for call in told.tool_calls or []
    )
    logprobs = [token for one in said if one.logprobs for token in one.logprobs.content]
    assert logprobs == (whole.choices[0].logprobs.content if whole.choices[0].logprobs else [])
    assert said[-1].finish_reason == whole.choices[0].finish_reason
    read = {"prompt_tokens_details"}  # the second prompt is in the cache
    assert chunks[-1].usage.model_dump(exclude=read) == whole.usage.model_dump(exclude=read)
    for answer in (whole, chunks[-2]):
        assert accepted(answer)
    other = ask(client, seed=12, **rules).choices[0].message
    assert (other.content, other.tool_calls) != (told.content, told.tool_calls)


def test_biased_tokens_are_chosen_and_barred_ones_are_not(client: openai.OpenAI) -> None:
    plain = ask(client, logprobs=True, max_tokens=1)
    loved = ask(client, logit_bias={"300": 100}, max_tokens=4)
    assert loved.choices[0].message.content != plain.choices[0].message.content
    assert accepted(loved)


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_forced_call_has_a_known_name_and_arguments_that_follow_the_schema(client: openai.OpenAI, choice: Any) -> None:
    answer = ask(client, tools=TOOLS[:1], tool_choice=choice, parallel_tool_calls=False, max_tokens=300)
    message = answer.choices[0].message
    assert answer.choices[0].finish_reason == "tool_calls"
    (call,) = message.tool_calls
    assert (call.type, call.function.name) == ("function", "weather")
    jsonschema.validate(json.loads(call.function.arguments), SCHEMA)
    assert accepted(answer)


def test_receipt_of_a_call_verifies_offline_against_the_completion(client: openai.OpenAI, tmp_path: Path) -> None:
    answer = ask(client, tools=TOOLS[:1], tool_choice="required", max_tokens=300)
    about = answer.model_extra["ryvion"]
    receipt, completion = tmp_path / "receipt.json", tmp_path / "completion.json"
    receipt.write_text(json.dumps({**about["receipt"], "audit_envelope": about["envelope"]}), encoding="utf-8")
    completion.write_text(answer.model_dump_json(), encoding="utf-8")
    assert cli("receipts", "verify", str(receipt), "--answer", str(completion)).returncode == 0
    call = answer.choices[0].message.tool_calls[0]
    call.function.arguments = call.function.arguments.replace("}", ' "more": 1}')
    completion.write_text(answer.model_dump_json(), encoding="utf-8")
    assert cli("receipts", "verify", str(receipt), "--answer", str(completion)).returncode == 1


def test_result_of_a_call_goes_back_to_the_model(client: openai.OpenAI) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
    turns = [
        {"role": "user", "content": "How is it in Paris?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "It is sunny."},
    ]
    answer = ask(client, messages=turns, tools=TOOLS[:1], max_tokens=32)
    assert answer.choices[0].finish_reason in ("stop", "length", "tool_calls")
    assert accepted(answer)


def test_schema_that_makes_no_grammar_is_a_bad_request(client: openai.OpenAI) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "no such type"}}}
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as caught:
            ask(client, response_format=wanted, stream=stream)
        assert caught.value.param == "response_format"


def test_prompt_read_for_an_earlier_request_is_reused(client: openai.OpenAI) -> None:
    rules = {"tools": TOOLS, "max_tokens": 4, "extra_body": {"jurisdiction": "CA"}}
    ask(client, **rules)
    usage = ask(client, **rules).usage
    assert 0 < usage.prompt_tokens_details.cached_tokens < usage.prompt_tokens
