"""Responses and text completions from real nodes with a real model: the same answers, receipts and forced formats as chats."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import openai
import pytest

from tests.e2e.conftest import MODEL
from tests.e2e.live import LiveMarket

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}, "people": {"type": "integer", "maximum": 999}},
    "required": ["city", "people"],
    "additionalProperties": False,
}
TOOL: Any = {"type": "function", "name": "weather", "parameters": SCHEMA, "strict": True}
PROMPT = "What is the capital of France?"
RULES: dict[str, Any] = {"model": MODEL, "temperature": 0, "extra_body": {"seed": 3}}


@pytest.fixture
def client(market: LiveMarket) -> Iterator[openai.OpenAI]:
    transport = openai.DefaultHttpxClient(trust_env=False)
    with openai.OpenAI(
        base_url=market.endpoint, api_key=market.api_key, http_client=transport, max_retries=0, timeout=60
    ) as made:
        yield made


def accepted(answer: Any) -> bool:
    about = answer.model_extra["ryvion"]
    return about["accepted"] is True and {check["outcome"] for check in about["checks"]} == {"passed"}


def test_a_response_says_what_a_chat_says(client: openai.OpenAI) -> None:
    chat = client.chat.completions.create(messages=[{"role": "user", "content": PROMPT}], max_tokens=20, **RULES)
    response = client.responses.create(input=PROMPT, max_output_tokens=20, **RULES)
    with client.responses.stream(input=PROMPT, max_output_tokens=20, **RULES) as stream:
        *_, last = stream
    assert last.type == f"response.{response.status}"
    assert response.output_text == chat.choices[0].message.content == last.response.output_text
    assert chat.usage is not None
    assert response.usage is not None
    assert response.usage.output_tokens == chat.usage.completion_tokens
    assert accepted(response)
    assert accepted(last.response)


def test_a_response_follows_its_schema_and_its_forced_tool(client: openai.OpenAI) -> None:
    wanted: Any = {"format": {"type": "json_schema", "name": "city", "schema": SCHEMA, "strict": True}}
    answer = client.responses.create(input=PROMPT, text=wanted, max_output_tokens=300, **RULES)
    jsonschema.validate(json.loads(answer.output_text), SCHEMA)
    forced = client.responses.create(
        input=PROMPT, tools=[TOOL], tool_choice={"type": "function", "name": "weather"}, **RULES
    )
    call = forced.output[-1]
    assert call.type == "function_call"
    jsonschema.validate(json.loads(call.arguments), SCHEMA)
    history: Any = [{"role": "user", "content": PROMPT}, *(item.to_dict() for item in forced.output)]
    history.append({"type": "function_call_output", "call_id": call.call_id, "output": "sunny"})
    told = client.responses.create(input=history, tools=[TOOL], max_output_tokens=8, **RULES)
    assert accepted(answer)
    assert accepted(forced)
    assert accepted(told)


def test_a_text_is_continued(client: openai.OpenAI) -> None:
    whole = client.completions.create(prompt="The capital of France is", max_tokens=12, logprobs=1, **RULES)
    chunks = list(client.completions.create(prompt="The capital of France is", max_tokens=12, stream=True, **RULES))
    assert whole.choices[0].text
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    logprobs = whole.choices[0].logprobs
    assert logprobs is not None
    assert "".join(logprobs.tokens or []) == whole.choices[0].text
    assert accepted(whole)


def test_receipts_are_found_by_the_ids_of_answers(market: LiveMarket, client: openai.OpenAI) -> None:
    answers = (
        client.completions.create(prompt="One, two,", max_tokens=2, **RULES),
        client.responses.create(input=PROMPT, max_output_tokens=2, **RULES),
    )
    for answer in answers:
        found = httpx.get(
            f"{market.endpoint.removesuffix('/v1')}/api/v1/receipts",
            params={"completion_id": answer.id},
            headers={"authorization": f"Bearer {market.api_key}"},
            trust_env=False,
        ).json()["data"]
        assert answer.model_extra is not None
        assert [receipt["cid"] for receipt in found] == [answer.model_extra["ryvion"]["cid"]]
