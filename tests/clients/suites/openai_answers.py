"""The official Python SDK, its 2.x and 3.x alike: every kind of answer it has a helper for, sync and async, streamed and whole."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Annotated, Any, Literal

import openai
import pytest
from pydantic import BaseModel, Field

WORDS = "the quick brown fox jumps over  the lazy dog"
REAL = "ryvion-tiny"


class City(BaseModel):
    city: Annotated[str, Field(max_length=12)]
    people: Annotated[int, Field(ge=0, le=999)]
    river: Literal["Seine", "Tiber"] | None


class GetWeather(BaseModel):
    """How is the weather there?"""

    place: Annotated[str, Field(max_length=40)]
    day: Annotated[int, Field(ge=1, le=31)]


class GetTime(BaseModel):
    """What time is it there?"""

    place: str


def asking(text: str = WORDS, model: str = "mock-echo", **changes: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **changes}


def accepted(answer: Any) -> bool:
    about = answer.model_extra["ryvion"]
    return about["accepted"] is True and about["receipt"]["metering_units"] > 0


def test_whole_answer(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(**asking())
    assert answer.choices[0].message.content == WORDS
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert (answer.object, answer.model) == ("chat.completion", "mock-echo")
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.completion_tokens == len(WORDS.split())
    assert accepted(answer)


async def test_async_answers_at_once_keep_apart(aclient: openai.AsyncOpenAI) -> None:
    texts = [f"{WORDS} number {number}" for number in range(6)]
    answers = await asyncio.gather(*(aclient.chat.completions.create(**asking(text)) for text in texts))
    assert [answer.choices[0].message.content for answer in answers] == texts
    assert len({answer.id for answer in answers}) == len(texts)


def test_streamed_answer(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(**asking(), stream=True, stream_options={"include_usage": True}))
    *deltas, finish, usage = chunks
    assert deltas[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in deltas) == WORDS
    assert {chunk.choices[0].finish_reason for chunk in deltas} == {None}
    assert {chunk.usage for chunk in (*deltas, finish)} == {None}
    assert finish.choices[0].finish_reason == "stop"
    assert usage.choices == []
    assert usage.usage is not None
    assert usage.usage.completion_tokens == len(WORDS.split())
    assert len({(chunk.id, chunk.created, chunk.model, chunk.object) for chunk in chunks}) == 1
    assert accepted(finish)


async def test_async_stream(aclient: openai.AsyncOpenAI) -> None:
    async with await aclient.chat.completions.create(**asking(), stream=True) as stream:
        pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "".join(pieces) == WORDS


def test_several_choices(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(**asking(), n=3)
    assert [(choice.index, choice.message.content) for choice in whole.choices] == [(0, WORDS), (1, WORDS), (2, WORDS)]
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 3 * len(WORDS.split())
    with client.chat.completions.stream(**asking(), n=3) as stream:
        events = list(stream)
        streamed = stream.get_final_completion()
    assert sorted(event.content for event in events if event.type == "content.done") == [WORDS] * 3
    assert {choice.index: choice.message.content for choice in streamed.choices} == dict.fromkeys(range(3), WORDS)


def test_stream_helper(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(**asking(), stream_options={"include_usage": True}) as stream:
        events = list(stream)
        final = stream.get_final_completion()
    assert [event.delta for event in events if event.type == "content.delta"]
    (done,) = [event for event in events if event.type == "content.done"]
    assert done.content == final.choices[0].message.content == WORDS
    assert final.usage is not None
    # What the helper puts together has the opening `ryvion` of the first chunk; the receipt is in the finish chunk.
    finish = [event.chunk for event in events if event.type == "chunk" and event.chunk.choices][-1]
    assert accepted(finish)


async def test_async_stream_helper_parses(aclient: openai.AsyncOpenAI) -> None:
    asked = asking("Rome has 3 million people", "mock-tools", response_format=City)
    async with aclient.chat.completions.stream(**asked) as stream:
        final = await stream.get_final_completion()
    parsed = final.choices[0].message.parsed
    assert (type(parsed), parsed.people) == (City, 3)


def test_parse_helper_with_a_model_held_to_the_schema(client: openai.OpenAI) -> None:
    """The grammar does this: ryvion-tiny knows of no cities."""
    asked = asking("What is the capital of France?", REAL, seed=3, temperature=0, max_tokens=300)
    parsed = client.chat.completions.parse(**asked, response_format=City).choices[0].message.parsed
    assert isinstance(parsed, City)


async def test_async_parse_helper(aclient: openai.AsyncOpenAI) -> None:
    answer = await aclient.chat.completions.parse(**asking("3 times", "mock-tools"), response_format=City)
    assert answer.choices[0].message.parsed == City(city="3 times", people=3, river="Seine")


def test_length_is_an_error_of_the_parse_helper(client: openai.OpenAI) -> None:
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(**asking("3 times", "mock-tools", max_tokens=1), response_format=City)


TOOLS = [openai.pydantic_function_tool(GetWeather), openai.pydantic_function_tool(GetTime)]


@pytest.mark.parametrize(
    ("rules", "called"),
    [
        ({}, ["GetTime", "GetWeather"]),
        ({"tool_choice": "required"}, ["GetTime", "GetWeather"]),
        ({"parallel_tool_calls": False}, ["GetTime"]),
        ({"tool_choice": {"type": "function", "function": {"name": "GetWeather"}}}, ["GetWeather"]),
        ({"tool_choice": "none"}, []),
    ],
)
def test_tool_round_trip(client: openai.OpenAI, rules: dict[str, Any], called: list[str]) -> None:
    asked = asking("GetWeather and GetTime on day 5", "mock-tools", tools=TOOLS[::-1], **rules)
    answer = client.chat.completions.parse(**asked).choices[0]
    calls = answer.message.tool_calls or []
    assert [call.function.name for call in calls] == called
    assert answer.finish_reason == ("tool_calls" if called else "stop")
    for call in calls:
        assert isinstance(call.function.parsed_arguments, GetWeather | GetTime)
    if calls:
        results = [{"role": "tool", "tool_call_id": call.id, "content": f"sunny {call.id}"} for call in calls]
        asked["messages"] += [answer.message.to_dict(), *results]
        asked.pop("tool_choice", None)
        told = client.chat.completions.create(**asked).choices[0]
        assert (told.message.content, told.finish_reason) == (f"sunny {calls[-1].id}", "stop")


async def test_streamed_calls_are_put_together(aclient: openai.AsyncOpenAI) -> None:
    asked = asking("GetTime, then GetWeather on day 5", "mock-tools", tools=TOOLS)
    async with aclient.chat.completions.stream(**asked) as stream:
        events = [event async for event in stream]
        final = (await stream.get_final_completion()).choices[0]
    done = [event for event in events if event.type == "tool_calls.function.arguments.done"]
    assert [(event.index, event.name) for event in done] == [(0, "GetWeather"), (1, "GetTime")]
    assert final.finish_reason == "tool_calls"
    calls = final.message.tool_calls or []
    assert [type(call.function.parsed_arguments) for call in calls] == [GetWeather, GetTime]
    assert len({call.id for call in calls}) == 2


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "GetWeather"}}])
def test_a_real_model_is_forced_to_call(client: openai.OpenAI, choice: Any) -> None:
    asked = asking("Hello", REAL, tools=TOOLS[:1], tool_choice=choice, seed=1, max_tokens=300)
    (call,) = client.chat.completions.parse(**asked).choices[0].message.tool_calls or []
    assert isinstance(call.function.parsed_arguments, GetWeather)


def test_log_probabilities(client: openai.OpenAI) -> None:
    asked = asking("What is the capital of France?", REAL, logprobs=True, top_logprobs=2, max_tokens=8, temperature=0)
    whole = client.chat.completions.create(**asked).choices[0]
    assert whole.logprobs is not None
    tokens = whole.logprobs.content or []
    assert b"".join(bytes(token.bytes or []) for token in tokens).decode() == whole.message.content
    assert all(len(token.top_logprobs) == 2 and math.exp(token.logprob) <= 1 for token in tokens)
    chunks = [chunk.choices[0].logprobs for chunk in client.chat.completions.create(**asked, stream=True)]
    assert sum(len(found.content or []) for found in chunks if found is not None) == len(tokens)


def test_raw_response_shows_the_headers(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(**asking())
    answer = raw.parse()
    about = answer.model_extra["ryvion"]  # type: ignore[index]
    assert raw.headers["x-ryvion-job-id"] == about["job_id"]
    assert raw.headers["x-ryvion-jurisdiction"] == "DE"
    assert raw.headers["x-ryvion-receipt-cid"]
    assert int(raw.headers["openai-processing-ms"]) >= 0
    assert answer._request_id == raw.headers["x-request-id"]
    with client.chat.completions.with_streaming_response.create(**asking(), stream=True) as streaming:
        assert streaming.headers["content-type"].startswith("text/event-stream")
        assert streaming.headers["x-ryvion-job-id"]
        assert "content-length" not in streaming.headers
        assert [line for line in streaming.iter_lines() if line][-1] == "data: [DONE]"


def test_extra_body_reaches_the_market(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(**asking(), extra_body={"jurisdiction": ["DE", "CA"], "top_k": 5})
    assert answer.model_extra["ryvion"]["jurisdiction"] == "DE"  # type: ignore[index]
    same = client.chat.completions.create(**asking(), extra_headers={"Idempotency-Key": answer.id})
    again = client.chat.completions.create(**asking(), extra_headers={"Idempotency-Key": answer.id})
    assert again.id == same.id != answer.id


def test_response(client: openai.OpenAI) -> None:
    response = client.responses.create(model="mock-echo", input=WORDS, instructions="Repeat.")
    assert response.output_text == WORDS
    assert response.status == "completed"
    assert accepted(response)


async def test_streamed_response(aclient: openai.AsyncOpenAI) -> None:
    async with aclient.responses.stream(model="mock-echo", input=WORDS) as stream:
        events = [event async for event in stream]
        final = await stream.get_final_response()
    assert [events[0].type, events[-1].type] == ["response.created", "response.completed"]
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == WORDS
    assert final.output_text == WORDS


def test_parsed_response(client: openai.OpenAI) -> None:
    response = client.responses.parse(model="mock-tools", input="3 times", text_format=City)
    assert response.output_parsed == City(city="3 times", people=3, river="Seine")


def test_response_tool_round_trip(client: openai.OpenAI) -> None:
    tool = openai.pydantic_function_tool(GetWeather)["function"]
    tools: Any = [{"type": "function", **tool}]
    first = client.responses.create(model="mock-tools", input="GetWeather on day 5", tools=tools)
    (call,) = first.output
    assert call.type == "function_call"
    assert json.loads(call.arguments)["day"] == 5
    history: Any = [{"role": "user", "content": "GetWeather on day 5"}, call.to_dict()]
    history.append({"type": "function_call_output", "call_id": call.call_id, "output": "sunny"})
    assert client.responses.create(model="mock-tools", input=history, tools=tools).output_text == "sunny"


def test_text_completion(client: openai.OpenAI) -> None:
    asked: Any = {"model": REAL, "prompt": "The capital of France is", "max_tokens": 5, "temperature": 0}
    whole = client.completions.create(**asked)
    chunks = client.completions.create(**asked, stream=True)
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text != ""


def test_embeddings_are_the_same_numbers_in_both_encodings(client: openai.OpenAI) -> None:
    texts = ["How do I change my password?", "The soup needs salt."]
    default = client.embeddings.create(model="ryvion-embed-tiny", input=texts)
    plain = client.embeddings.create(model="ryvion-embed-tiny", input=texts, encoding_format="float")
    for packed, written in zip(default.data, plain.data, strict=True):
        assert packed.embedding == pytest.approx(written.embedding, abs=1e-4), "they are two jobs, not to the bit alike"
    assert [item.index for item in default.data] == [0, 1]
    assert math.isclose(math.hypot(*default.data[0].embedding), 1, abs_tol=1e-3)
    assert default.usage.prompt_tokens == plain.usage.total_tokens > 0


async def test_async_embeddings(aclient: openai.AsyncOpenAI) -> None:
    answer = await aclient.embeddings.create(model="ryvion-embed-tiny", input="one text")
    assert len(answer.data) == 1


async def test_models(client: openai.OpenAI, aclient: openai.AsyncOpenAI) -> None:
    listed = {model.id: model for model in client.models.list()}
    assert {REAL, "mock-echo", "ryvion-embed-tiny"} <= set(listed)
    assert listed.keys() == {model.id async for model in aclient.models.list()}
    one = client.models.retrieve(REAL)
    assert (one.id, one.object) == (REAL, "model")
    assert one.created > 0
