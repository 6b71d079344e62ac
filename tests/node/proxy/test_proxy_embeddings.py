"""POST /v1/embeddings: the official client, every way to ask, and what is refused by which name."""

from __future__ import annotations

import base64
import struct
from typing import Any

import openai
import pytest
import trio
from openai.types import CreateEmbeddingResponse
from proxy_clients import async_client, sync_client
from proxy_harness import Endpoint, Reply, serving

from ryvion_node.market.fake import FAKE_DIMENSIONS, Hold, Script, fake_vector, says
from ryvion_node.market.interface import MarketError
from ryvion_protocol.exported import read_receipts, verify_exported

pytestmark = [
    pytest.mark.filterwarnings("ignore:Async generator '(httpx|httpcore|openai):ResourceWarning"),
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <async_generator object:pytest.PytestUnraisableExceptionWarning"
    ),
]

SCRIPTS = {"embed": Script()}
TEXTS = ["a cat sleeps", "bonds fell", "rain"]


async def ask(endpoint: Endpoint, token: str = "sk-buyer", **fields: Any) -> Reply:
    body = {"model": "embed", "input": TEXTS} | fields
    return await endpoint.ask("POST", "/v1/embeddings", body, authorization=f"Bearer {token}")


def numbers(text: str) -> list[float]:
    return list(struct.unpack(f"<{FAKE_DIMENSIONS}f", fake_vector(text)))


@pytest.mark.parametrize("encoding", [None, "float", "base64"])
async def test_the_official_client_gets_vectors_in_the_order_of_its_texts(encoding: str | None) -> None:
    """By default it asks for base64 and decodes that itself."""
    async with serving(SCRIPTS) as endpoint, async_client(endpoint) as client:
        extra = {} if encoding is None else {"encoding_format": encoding}
        answer = await client.embeddings.create(model="embed", input=TEXTS, user="someone", **extra)
    assert [item.index for item in answer.data] == [0, 1, 2]
    found = [
        list(struct.unpack(f"<{FAKE_DIMENSIONS}f", base64.b64decode(item.embedding)))
        if isinstance(item.embedding, str)
        else item.embedding
        for item in answer.data
    ]
    assert found == [numbers(text) for text in TEXTS]
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == 6
    assert answer.model == "embed"
    ryvion = answer.model_extra["ryvion"]
    assert ryvion["accepted"] is True
    assert ryvion["receipt"]["metering_units"] == 6
    assert ryvion["route"]["winner"] == ryvion["node_id"]
    assert endpoint.market.embeddings[0].account.completion_id == answer.model_extra["id"]
    if encoding != "base64":  # whose texts the client's own type does not know
        CreateEmbeddingResponse.model_validate(answer.to_dict())


async def test_the_blocking_client_works_with_a_single_text() -> None:
    async with serving(SCRIPTS) as endpoint:

        def create() -> CreateEmbeddingResponse:
            with sync_client(endpoint) as client:
                created: CreateEmbeddingResponse = client.embeddings.create(model="embed", input="rain")
                return created

        answer = await trio.to_thread.run_sync(create)
    assert [item.embedding for item in answer.data] == [numbers("rain")]


@pytest.mark.parametrize("encoding", ["float", "base64"])
async def test_the_receipt_verifies_with_the_saved_answer(encoding: str) -> None:
    async with serving(SCRIPTS) as endpoint:
        reply = await ask(endpoint, encoding_format=encoding)
    ryvion = reply.json()["ryvion"]
    assert isinstance(ryvion, dict)
    (receipt,) = read_receipts(str({"receipt": ryvion["receipt"]}).replace("'", '"').encode())
    assert verify_exported(receipt, reply.body).valid
    assert not verify_exported(
        receipt, reply.body.replace(b'"index": 0, "embedding": ', b'"embedding": 1, "x": ')
    ).valid
    assert reply.headers["x-ryvion-receipt-cid"] == ryvion["cid"]
    assert reply.headers["x-ryvion-job-id"] == ryvion["job_id"]
    assert reply.headers["x-ryvion-node"] == ryvion["node_id"]
    assert reply.headers["x-ryvion-jurisdiction"] == "CA"


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"input": [1, 2, 3]}, "unsupported_parameter", "input"),
        ({"input": [[1, 2], [3]]}, "unsupported_parameter", "input"),
        ({"input": 5}, "unsupported_parameter", "input"),
        ({"input": {"text": "a"}}, "invalid_type", "input"),
        ({"input": [None]}, "invalid_type", "input[0]"),
        ({"input": []}, "invalid_value", "input"),
        ({"input": ""}, "invalid_value", "input"),
        ({"input": ["a", ""]}, "invalid_value", "input"),
        ({"input": "\ud800"}, "invalid_json", None),
        ({"input": ["a"] * 2049}, "invalid_value", "input"),
        ({"input": ["x" * 100_000] * 3}, "context_length_exceeded", "input"),
        ({"encoding_format": "int8"}, "invalid_value", "encoding_format"),
        ({"dimensions": 0}, "invalid_value", "dimensions"),
        ({"dimensions": 3}, "unsupported_parameter", "dimensions"),
        ({"input_type": "query"}, "unsupported_parameter", "input_type"),
        ({"truncate": "END"}, "unsupported_parameter", "truncate"),
        ({"jurisdiction": "Atlantis"}, "invalid_value", "jurisdiction"),
    ],
)
async def test_what_cannot_be_done_is_refused_by_name(fields: dict[str, Any], code: str, param: str | None) -> None:
    async with serving(SCRIPTS) as endpoint:
        reply = await ask(endpoint, **fields)
    assert (reply.status, reply.error["code"], reply.error["param"]) == (400, code, param)


async def test_a_missing_input_and_a_model_that_cannot_be_are_told() -> None:
    async with serving(SCRIPTS) as endpoint:
        body = {"model": "embed"}
        reply = await endpoint.ask("POST", "/v1/embeddings", body, authorization="Bearer sk-buyer")
        assert reply.error["code"] == "missing_required_parameter"
        assert (await ask(endpoint, model="no such model")).status == 404
        assert (await ask(endpoint, model="other")).error["code"] == "model_not_found"


async def test_null_means_the_default_and_the_models_own_dimensions_are_fine() -> None:
    async with serving(SCRIPTS) as endpoint:
        reply = await ask(endpoint, encoding_format=None, dimensions=None, jurisdiction=None, input_type=None)
        assert reply.status == 200
        assert (await ask(endpoint, dimensions=FAKE_DIMENSIONS)).status == 200


async def test_keys_hold_for_embeddings_too() -> None:
    async with serving(SCRIPTS) as endpoint:
        assert (await ask(endpoint, "sk-nobody")).status == 401
        assert (await ask(endpoint, "sk-reader")).status == 403
        assert (await ask(endpoint, "sk-canada")).status == 200
        assert endpoint.market.embeddings[0].jurisdictions == ("CA", "US")
        assert (await ask(endpoint, "sk-canada", jurisdiction="DE")).error["code"] == "jurisdiction_not_allowed"


@pytest.mark.parametrize(
    ("script", "status", "code"),
    [
        (Script(before=(MarketError("no_capacity", "busy", 2_000),)), 503, "no_capacity"),
        (Script(before=(MarketError("context_length_exceeded", "too long"),)), 400, "context_length_exceeded"),
        (Script(steps=(MarketError("node_failed", "it died"),)), 502, "node_failed"),
        (Script(steps=(MarketError("node_timeout", "it hung"),)), 504, "node_timeout"),
        (Script(steps=(RuntimeError("ours"),)), 500, "internal_error"),
    ],
)
async def test_failures_of_the_market_are_the_same_errors_as_of_chats(script: Script, status: int, code: str) -> None:
    async with serving({"embed": script}) as endpoint:
        reply = await ask(endpoint)
    assert (reply.status, reply.error["code"]) == (status, code)
    if code == "context_length_exceeded":
        assert reply.error["param"] == "input"


async def test_vectors_of_an_executor_that_broke_are_not_mixed_with_those_of_the_next() -> None:
    async with serving({"embed": Script(taken_over=True)}) as endpoint:
        reply = await ask(endpoint, encoding_format="float")
    answer: Any = reply.json()
    assert [item["embedding"] for item in answer["data"]] == [numbers(text) for text in TEXTS]
    assert answer["ryvion"]["job_id"] == reply.headers["x-ryvion-job-id"] == f"{1:032x}" + "f" * 32


async def test_the_same_idempotency_key_buys_once() -> None:
    async with serving(SCRIPTS) as endpoint:
        body = {"model": "embed", "input": "rain"}
        headers = {"authorization": "Bearer sk-buyer", "idempotency_key": "k-1"}
        first = await endpoint.ask("POST", "/v1/embeddings", body, **headers)
        again = await endpoint.ask("POST", "/v1/embeddings", body, **headers)
        assert (first.status, again.body) == (200, first.body)
        assert again.headers["idempotent-replayed"] == "true"
        assert len(endpoint.market.embeddings) == 1


async def test_a_client_that_goes_away_ends_the_job() -> None:
    async with serving({"embed": Script(steps=(Hold(seconds=60),))}) as endpoint:
        client = await endpoint.connect()
        await client.send("POST", "/v1/embeddings", {"model": "embed", "input": "a"}, authorization="Bearer sk-buyer")
        while not endpoint.market.open_jobs:  # noqa: ASYNC110 - the endpoint says nothing before it answers
            await trio.sleep(0.01)
        await client.stream.aclose()
        with trio.fail_after(1):
            await endpoint.market.left.wait()


async def test_models_tell_their_kind_and_the_choice_is_made_as_for_it() -> None:
    async with serving({"embed": Script(kind="embedding"), "echo": says("x")}) as endpoint:
        listed = await endpoint.ask("GET", "/v1/models/embed", authorization="Bearer sk-buyer")
        assert listed.json()["ryvion"]["kinds"] == ["embedding"]  # type: ignore[index]
        for model in ("embed", "echo"):
            routed = await endpoint.ask("POST", "/api/v1/route", {"model": model}, authorization="Bearer sk-buyer")
            assert routed.status == 200
        assert [order.kind for order in endpoint.market.routed] == ["embedding", "chat"]


async def test_openai_errors_are_of_the_right_class() -> None:
    async with serving({"embed": says("x")}) as endpoint, async_client(endpoint) as client:
        with pytest.raises(openai.NotFoundError):
            await client.embeddings.create(model="other", input="a")
        with pytest.raises(openai.BadRequestError):
            await client.embeddings.create(model="embed", input=[1, 2])
