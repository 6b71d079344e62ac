"""The official `openai` client against the endpoint: sync, async, streaming, errors, and going away."""

from __future__ import annotations

import openai
import pytest
import trio
from openai.types.chat import ChatCompletionChunk, ChatCompletionUserMessageParam
from proxy_clients import async_client, sync_client
from proxy_harness import Endpoint, serving

from ryvion_node.market.fake import Hold, Script, says
from ryvion_node.market.interface import MarketError, Piece
from ryvion_node.proxy.settings import Settings

# Under trio the async clients below drop generators of their own without closing them; ours are another matter.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Async generator '(httpx|httpcore|openai):ResourceWarning"),
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <async_generator object (AsyncResponseStream|PoolByteStream|Response|Async|safe_async|"
        "HTTP11|SSEDecoder|_):pytest.PytestUnraisableExceptionWarning"
    ),
]

MESSAGES: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "hi"}]
PIECES = ("Hel", "lo, ", "wörld ", "🙂\n\u2028")


async def test_sync_client_whole_and_streamed() -> None:
    async with serving({"echo": says(*PIECES)}) as endpoint:

        def use() -> None:
            with sync_client(endpoint) as client:
                whole = client.chat.completions.create(model="echo", messages=MESSAGES)
                assert whole.choices[0].message.content == "".join(PIECES)
                assert whole.choices[0].finish_reason == "stop"
                assert whole.usage is not None
                assert whole.usage.total_tokens == 5
                stream = client.chat.completions.create(model="echo", messages=MESSAGES, stream=True)
                assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "".join(PIECES)

        await trio.to_thread.run_sync(use)
        assert len(endpoint.market.finished) == 2


async def test_async_client_streams_with_usage_and_keeps_the_ryvion_object() -> None:
    async with serving({"echo": says(*PIECES)}) as endpoint, async_client(endpoint) as client:
        stream = await client.chat.completions.create(
            model="echo",
            messages=MESSAGES,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"jurisdiction": "CA"},
        )
        chunks = [chunk async for chunk in stream]
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "".join(PIECES)
    assert [c.usage.completion_tokens for c in chunks if c.usage] == [4]
    first, finish = chunks[0].model_extra, chunks[-2].model_extra
    assert first is not None
    assert first["ryvion"]["jurisdiction"] == "CA"
    assert finish is not None
    assert finish["ryvion"]["accepted"] is True
    assert endpoint.market.orders[0].jurisdictions == ("CA",)


async def test_the_same_request_gives_the_same_text_and_usage_both_ways() -> None:
    async with serving({"echo": says(*PIECES)}) as endpoint, async_client(endpoint) as client:
        whole = await client.chat.completions.create(model="echo", messages=MESSAGES, seed=7)
        async with client.chat.completions.stream(
            model="echo", messages=MESSAGES, seed=7, stream_options={"include_usage": True}
        ) as stream:
            streamed = await stream.get_final_completion()
    assert streamed.choices[0].message.content == whole.choices[0].message.content
    assert streamed.usage == whole.usage
    assert streamed.choices[0].finish_reason == whole.choices[0].finish_reason


async def test_headers_of_a_whole_answer() -> None:
    async with serving({"echo": says("x")}) as endpoint, async_client(endpoint) as client:
        raw = await client.chat.completions.with_raw_response.create(model="echo", messages=MESSAGES)
        outcome = next(iter(endpoint.market.outcomes.values()))
        (order,) = endpoint.market.orders
        answer = raw.parse()
    assert raw.headers["x-ryvion-receipt-cid"] == outcome.cid
    assert raw.headers["x-ryvion-job-id"] == outcome.receipt.job_id
    assert raw.headers["x-ryvion-node"] == outcome.receipt.node_key.hex()
    assert raw.headers["x-ryvion-jurisdiction"] == "CA"
    assert int(raw.headers["openai-processing-ms"]) >= 0
    assert answer._request_id == raw.headers["x-request-id"]
    assert answer.id == order.account.completion_id
    assert answer.id.startswith("chatcmpl-")


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        (MarketError("model_not_found", "no"), openai.NotFoundError),
        (MarketError("context_length_exceeded", "no"), openai.BadRequestError),
        (MarketError("jurisdiction_not_allowed", "no"), openai.PermissionDeniedError),
        (MarketError("no_capacity", "no"), openai.InternalServerError),
    ],
)
async def test_the_client_raises_what_it_raises_elsewhere(
    before: MarketError, expected: type[openai.APIStatusError]
) -> None:
    async with serving({"m": Script(before=(before,))}) as endpoint, async_client(endpoint) as client:
        for stream in (True, False):
            with pytest.raises(expected) as caught:
                await client.chat.completions.create(model="m", messages=MESSAGES, stream=stream)
            assert caught.value.code == before.code


async def test_a_wrong_key_is_an_authentication_error() -> None:
    async with serving({"m": says("x")}) as endpoint, async_client(endpoint, "nope") as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            await client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
        assert caught.value.code == "invalid_api_key"


async def test_the_client_raises_on_a_failure_in_the_stream() -> None:
    script = Script((Piece("a"), MarketError("node_failed", "the executor went away")))
    async with serving({"m": script}) as endpoint, async_client(endpoint) as client:
        stream = await client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
        texts: list[str] = []
        with pytest.raises(openai.APIError, match="the executor went away") as caught:
            await read_into(texts, stream)
        assert caught.value.code == "node_failed"
        assert texts == ["", "a"]


async def test_the_client_raises_when_a_stream_is_cut() -> None:
    async with serving({"m": Script((Piece("a"), Hold(trio.Event())))}) as endpoint:
        with trio.CancelScope(shield=True):
            async with async_client(endpoint) as client:
                stream = await client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
                texts: list[str] = []
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(stop_once_read, endpoint, texts)
                    with pytest.raises(openai.APIError):
                        await read_into(texts, stream)


async def read_into(texts: list[str], stream: openai.AsyncStream[ChatCompletionChunk]) -> None:
    async for chunk in stream:
        texts.append(chunk.choices[0].delta.content or "")


async def stop_once_read(endpoint: Endpoint, texts: list[str]) -> None:
    while not any(texts):
        await trio.testing.wait_all_tasks_blocked(0.001)
    endpoint.stop.cancel()


async def test_comments_do_not_disturb_the_client() -> None:
    script = Script((Hold(seconds=0.05), Piece("a"), Hold(seconds=0.05), Piece("b")))
    async with (
        serving({"m": script}, Settings(port=0, keep_alive_s=0.01)) as endpoint,
        async_client(endpoint) as client,
    ):
        stream = await client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
        assert "".join([c.choices[0].delta.content or "" async for c in stream]) == "ab"


async def test_closing_the_stream_ends_the_job() -> None:
    async with serving({"m": Script((Piece("a"), Hold(trio.Event())))}) as endpoint, async_client(endpoint) as client:
        stream = await client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                break
        await stream.close()
        with trio.fail_after(1):
            await endpoint.market.left.wait()
        assert endpoint.market.left_early


async def test_many_streams_at_once() -> None:
    async with serving({"echo": says(*PIECES * 20)}) as endpoint, async_client(endpoint) as client:

        async def one() -> None:
            stream = await client.chat.completions.create(model="echo", messages=MESSAGES, stream=True)
            assert "".join([c.choices[0].delta.content or "" async for c in stream]) == "".join(PIECES * 20)

        async with trio.open_nursery() as nursery:
            for _ in range(16):
                nursery.start_soon(one)
    assert len(endpoint.market.finished) == 16


async def test_models() -> None:
    async with serving({"echo": says("x"), "org/model:7b": says("y")}) as endpoint, async_client(endpoint) as client:
        models = [model async for model in client.models.list()]
        one = await client.models.retrieve("org/model:7b")
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("nope")
    assert [model.id for model in models] == ["echo", "org/model:7b"]
    assert one == models[1]
    assert (one.object, one.owned_by, one.created) == ("model", "ryvion", 1_700_000_000)
    assert one.model_extra is not None
    about = one.model_extra["ryvion"]
    assert (about["nodes"], about["jurisdictions"], about["context_tokens"]) == (1, ["CA"], 4096)
    assert about["price_out"] == {"min": 4000, "max": 4000}
    assert len(about["digests"][0]) == 64
