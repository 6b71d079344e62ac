"""The LiteLLM SDK, as an OpenAI-compatible endpoint is used from it: answers, and its own exceptions for ours."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Annotated, Any

import litellm
import pytest
from pydantic import BaseModel, Field

WORDS = "the quick brown fox jumps over  the lazy dog"
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {
                "type": "object",
                "properties": {"place": {"type": "string"}},
                "required": ["place"],
                "additionalProperties": False,
            },
        },
    }
    for name in ("weather", "clock")
]


class City(BaseModel):
    city: Annotated[str, Field(max_length=12)]
    people: Annotated[int, Field(ge=0, le=999)]


def asking(text: str = WORDS, model: str = "mock-echo", **changes: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"model": f"openai/{model}", "messages": messages, "max_retries": 0, "num_retries": 0, **changes}


def test_whole_answer() -> None:
    answer = litellm.completion(**asking())
    assert answer.choices[0].message.content == WORDS
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens == len(WORDS.split())
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.ryvion["accepted"] is True


async def test_async_answers_at_once_keep_apart() -> None:
    texts = [f"{WORDS} number {number}" for number in range(4)]
    answers = await asyncio.gather(*(litellm.acompletion(**asking(text)) for text in texts))
    assert [answer.choices[0].message.content for answer in answers] == texts


def test_stream_is_built_up_again() -> None:
    chunks = list(litellm.completion(**asking(), stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == WORDS
    usages = [chunk.usage for chunk in chunks if getattr(chunk, "usage", None)]
    assert [usage.completion_tokens for usage in usages] == [len(WORDS.split())]
    built = litellm.stream_chunk_builder(chunks)
    assert (built.choices[0].message.content, built.choices[0].finish_reason) == (WORDS, "stop")


def test_several_choices() -> None:
    """Whole: from a stream, `stream_chunk_builder` makes one choice of all, whoever sent them."""
    answer = litellm.completion(**asking(), n=2)
    assert [choice.message.content for choice in answer.choices] == [WORDS, WORDS]


async def test_async_stream_without_usage() -> None:
    stream = await litellm.acompletion(**asking(), stream=True)
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == WORDS
    assert chunks[-1].choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("rules", "called"),
    [
        ({}, ["weather", "clock"]),
        ({"tool_choice": "required", "parallel_tool_calls": False}, ["weather"]),
        ({"tool_choice": {"type": "function", "function": {"name": "clock"}}}, ["clock"]),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_tool_round_trip(rules: dict[str, Any], called: list[str], stream: bool) -> None:
    asked = asking("weather and clock", "mock-tools", tools=TOOLS)
    answer = litellm.completion(**asked, **rules, stream=stream)
    if stream:
        answer = litellm.stream_chunk_builder(list(answer))
    message = answer.choices[0].message
    assert answer.choices[0].finish_reason == "tool_calls"
    assert [call.function.name for call in message.tool_calls] == called
    results = [{"role": "tool", "tool_call_id": call.id, "content": "sunny"} for call in message.tool_calls]
    asked["messages"] = [*asked["messages"], message.model_dump(exclude_none=True), *results]
    assert litellm.completion(**asked).choices[0].message.content == "sunny"


@pytest.mark.parametrize("model", ["mock-tools", "ryvion-tiny"])
def test_answer_in_a_format(model: str) -> None:
    answer = litellm.completion(**asking("3 times", model, response_format=City, max_tokens=200, temperature=0))
    City.model_validate_json(answer.choices[0].message.content)


def test_our_own_parameters_pass() -> None:
    answer = litellm.completion(**asking(), extra_body={"jurisdiction": "EU"}, top_k=5)
    assert answer.ryvion["jurisdiction"] == "DE"


def test_embeddings_in_both_encodings() -> None:
    ask = {"model": "openai/ryvion-embed-tiny", "input": ["one text", "another"]}
    plain = litellm.embedding(**ask, encoding_format="float")
    packed = litellm.embedding(**ask)
    for one, other in zip(plain.data, packed.data, strict=True):
        assert one["embedding"] == pytest.approx(other["embedding"], abs=1e-4)
    assert plain.usage.prompt_tokens > 0


def test_response() -> None:
    response = litellm.responses(model="openai/mock-echo", input=WORDS)
    assert response.output[-1].content[0].text == WORDS


async def test_streamed_response() -> None:
    events = [event async for event in await litellm.aresponses(model="openai/mock-echo", input=WORDS, stream=True)]
    assert [events[0].type, events[-1].type] == ["response.created", "response.completed"]
    assert events[-1].response.output[-1].content[0].text == WORDS


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"text": "word " * 9000}, litellm.ContextWindowExceededError),
        ({"text": "word " * 9000, "stream": True}, litellm.ContextWindowExceededError),
        ({"temperature": -1}, litellm.BadRequestError),
        ({"modalities": ["audio"]}, litellm.BadRequestError),
        ({"model": "nothing"}, litellm.NotFoundError),
        ({"api_key": "ryv_wrong"}, litellm.AuthenticationError),
        ({"api_key": os.environ["READ_ONLY_KEY"]}, litellm.APIError),
        ({"model": "mock-503"}, litellm.ServiceUnavailableError),
        ({"model": "mock-midstream-error"}, litellm.BadGatewayError),
    ],
)
def test_each_refusal_has_its_exception(changes: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        litellm.completion(**asking(**changes))
    assert type(caught.value) is error
    assert getattr(caught.value, "status_code", None) in (400, 401, 403, 404, 502, 503)


@pytest.mark.parametrize("model", ["mock-midstream-error", "mock-drop"])
async def test_a_broken_stream_raises_after_its_words(model: str) -> None:
    text, reasons = "", set()
    with pytest.raises(litellm.exceptions.MidStreamFallbackError):  # noqa: PT012 - it breaks while it is read
        async for chunk in await litellm.acompletion(**asking(model=model), stream=True):
            text += chunk.choices[0].delta.content or ""
            reasons.add(chunk.choices[0].finish_reason)
    assert len(text.split()) >= 3
    assert reasons == {None}


def test_too_many_requests_are_an_error_or_retried() -> None:
    prompt = f"{time.time_ns()}"
    with pytest.raises(litellm.RateLimitError):
        litellm.completion(**asking(f"once {prompt}", "mock-429-once"))
    asked = asking(f"twice {prompt}", "mock-429-once", num_retries=2)
    assert litellm.completion(**asked).choices[0].message.content == f"twice {prompt}"
