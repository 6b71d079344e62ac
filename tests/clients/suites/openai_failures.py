"""The official Python SDK, its 2.x and 3.x alike, where something goes wrong: the right exception, what is retried, who hangs up."""

from __future__ import annotations

import json
import os
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest

WORDS = "the quick brown fox jumps over the lazy dog"
BROKEN = ("mock-midstream-error", "mock-drop")


def asking(text: str = WORDS, model: str = "mock-echo", **changes: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **changes}


def receipt_of(completion_id: str) -> dict[str, Any]:
    """What was settled of an answer, as soon as it is."""
    address = os.environ["OPENAI_BASE_URL"].removesuffix("/v1") + f"/api/v1/receipts?completion_id={completion_id}"
    request = urllib.request.Request(address, headers={"x-api-key": os.environ["READ_ONLY_KEY"]})
    deadline = time.monotonic() + 10
    while True:
        with urllib.request.urlopen(request, timeout=10) as answer:
            found = json.load(answer)["data"]
        if found:
            return dict(found[0]["receipt"])
        assert time.monotonic() < deadline, "no receipt"
        time.sleep(0.02)


def chat(**changes: Any) -> Callable[[openai.OpenAI], Any]:
    return lambda client: client.chat.completions.create(**asking(**changes))


IMAGE: Any = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]}]


@pytest.mark.parametrize(
    ("call", "error", "code", "param"),
    [
        (chat(temperature=-1), openai.BadRequestError, "invalid_value", "temperature"),
        (chat(modalities=["audio"]), openai.BadRequestError, "unsupported_parameter", "modalities"),
        (chat(messages=IMAGE), openai.BadRequestError, "unsupported_parameter", None),
        (chat(tools=[{"type": "function", "function": {"name": "f"}}]), openai.BadRequestError, None, "tools"),
        (chat(text="word " * 9000), openai.BadRequestError, "context_length_exceeded", "messages"),
        (chat(text="word " * 9000, stream=True), openai.BadRequestError, "context_length_exceeded", "messages"),
        (chat(model="gpt-nothing"), openai.NotFoundError, "model_not_found", "model"),
        (chat(extra_body={"jurisdiction": "JP"}), openai.PermissionDeniedError, "jurisdiction_not_allowed", None),
        (chat(model="mock-503"), openai.InternalServerError, "no_capacity", None),
        (lambda client: client.models.retrieve("nothing"), openai.NotFoundError, "model_not_found", "model"),
        (lambda client: client.responses.create(model="mock-echo", input="hi", previous_response_id="resp_1"),
         openai.BadRequestError, "unsupported_parameter", "previous_response_id"),
        (lambda client: client.embeddings.create(model="ryvion-embed-tiny", input=[[1, 2, 3]]),
         openai.BadRequestError, None, "input"),
        (lambda client: client.images.generate(prompt="a cat"), openai.NotFoundError, "unknown_url", None),
    ],
)  # fmt: skip
def test_each_refusal_has_its_exception(
    client: openai.OpenAI,
    call: Callable[[openai.OpenAI], Any],
    error: type[openai.APIStatusError],
    code: str | None,
    param: str | None,
) -> None:
    with pytest.raises(error) as caught:
        call(client)
    assert isinstance(caught.value.body, dict)
    assert set(caught.value.body) == {"message", "type", "param", "code"}
    assert caught.value.request_id
    if code is not None:
        assert caught.value.code == code
    if param is not None:
        assert caught.value.param == param


@pytest.mark.parametrize("stream", [False, True])
def test_keys_that_are_wrong_or_may_not_buy(client: openai.OpenAI, stream: bool) -> None:
    with pytest.raises(openai.AuthenticationError) as unknown:
        client.with_options(api_key="ryv_wrong").chat.completions.create(**asking(), stream=stream)
    assert unknown.value.code == "invalid_api_key"
    with pytest.raises(openai.PermissionDeniedError) as scope:
        client.with_options(api_key=os.environ["READ_ONLY_KEY"]).chat.completions.create(**asking(), stream=stream)
    assert scope.value.code == "insufficient_scope"


@pytest.mark.parametrize("model", BROKEN)
def test_a_broken_answer_raises_and_is_not_asked_for_again(client: openai.OpenAI, model: str) -> None:
    sent: list[httpx.Request] = []
    with (
        httpx.Client(event_hooks={"request": [sent.append]}) as transport,
        openai.OpenAI(http_client=transport, max_retries=2) as patient,
        pytest.raises(openai.InternalServerError) as caught,
    ):
        patient.chat.completions.create(**asking(model=model))
    assert (caught.value.status_code, caught.value.code) == (502, "node_failed")
    assert len(sent) == 1


@pytest.mark.parametrize("model", BROKEN)
async def test_a_broken_stream_raises_after_its_words(aclient: openai.AsyncOpenAI, model: str) -> None:
    text, reasons = "", set()
    with pytest.raises(openai.APIError) as caught:  # noqa: PT012 - it breaks while it is read
        async for chunk in await aclient.chat.completions.create(**asking(model=model), stream=True):
            text += chunk.choices[0].delta.content or ""
            reasons.add(chunk.choices[0].finish_reason)
    assert caught.value.code == "node_failed"
    assert len(text.split()) >= 3
    assert reasons == {None}


def test_the_helpers_raise_as_well(client: openai.OpenAI) -> None:
    with (
        pytest.raises(openai.APIError),
        client.chat.completions.stream(**asking(model="mock-drop")) as stream,
    ):
        stream.until_done()
    with (
        pytest.raises(openai.APIError),
        client.responses.stream(model="mock-midstream-error", input=WORDS) as stream,
    ):
        stream.until_done()


@pytest.mark.parametrize("stream", [False, True])
def test_too_many_requests_are_retried_by_the_sdk(client: openai.OpenAI, stream: bool) -> None:
    prompt = f"{time.time_ns()}"
    with pytest.raises(openai.RateLimitError) as refused:
        client.chat.completions.create(**asking(f"once {prompt}", "mock-429-once"), stream=stream)
    assert refused.value.code == "rate_limit_exceeded"
    assert 0 < int(refused.value.response.headers["retry-after-ms"]) <= 60_000
    patient = client.with_options(max_retries=2)
    answer = patient.chat.completions.with_raw_response.create(**asking(f"twice {prompt}", "mock-429-once"))
    assert answer.retries_taken == 1
    assert answer.parse().choices[0].message.content == f"twice {prompt}"


def test_keep_alives_hold_a_slow_answer_within_a_short_timeout(client: openai.OpenAI) -> None:
    """The read timeout counts from byte to byte: comments are bytes, and no SDK shows them."""
    started = time.monotonic()
    short = client.with_options(timeout=2.0)
    chunks = list(short.chat.completions.create(**asking(model="mock-slow-start"), stream=True))
    assert time.monotonic() - started > 2.0
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == WORDS


def test_a_timeout_is_the_sdks_own_error(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.3).chat.completions.create(**asking(model="mock-slow-start"))


@pytest.mark.parametrize("closes", [True, False])
async def test_a_stream_left_in_the_middle_ends_and_costs_what_came(aclient: openai.AsyncOpenAI, closes: bool) -> None:
    """Without a word the connection goes with the client's pool."""
    stream = await aclient.chat.completions.create(**asking("word " * 300), stream=True)
    async for chunk in stream:
        if chunk.choices[0].delta.content:
            break
    await (stream if closes else aclient).close()
    assert receipt_of(chunk.id)["metering_units"] < 602, "300 words, and as many in the prompt"
