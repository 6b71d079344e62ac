"""The main job with the official client: streamed and whole answers from another node, with checked receipts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.e2e.conftest import MODEL
from tests.e2e.live import LiveMarket, cli, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

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
        "max_tokens": 48,
    }
    return client.chat.completions.create(**(settings | changes))


def ryvion(answer: Any) -> dict[str, Any]:
    found = (answer.model_extra or {})["ryvion"]
    assert isinstance(found, dict)
    return found


def test_whole_answer_comes_from_the_cheaper_node_with_a_checked_receipt(
    market: LiveMarket, client: openai.OpenAI
) -> None:
    answer = ask(client)
    about = ryvion(answer)
    text = answer.choices[0].message.content
    assert about["node_id"] == market.nodes["cheap"].node_key
    assert about["jurisdiction"] == "DE"
    assert about["accepted"] is True
    assert {check["outcome"] for check in about["checks"]} == {"passed"}
    assert about["receipt"]["result_hash"] == sha256(text.encode()).hexdigest()
    assert about["receipt"]["metering_units"] == answer.usage.total_tokens
    assert about["cost_microcredits"] > 0


def test_stream_gives_the_same_text_as_the_whole_answer(client: openai.OpenAI) -> None:
    whole = ask(client, seed=1)
    chunks = list(ask(client, seed=1, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    # The second prompt may be cached, but is counted the same.
    cached = {"prompt_tokens_details"}
    assert chunks[-1].usage.model_dump(exclude=cached) == whole.usage.model_dump(exclude=cached)
    assert ryvion(chunks[0])["gpu"]
    assert ryvion(chunks[-2])["accepted"] is True


def test_async_client_streams(market: LiveMarket) -> None:
    async def stream() -> list[str | None]:
        transport = openai.DefaultAsyncHttpxClient(trust_env=False)
        async with openai.AsyncOpenAI(
            base_url=market.endpoint, api_key=market.api_key, http_client=transport, max_retries=0
        ) as client:
            chunks = await client.chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": PROMPT}], temperature=0, max_tokens=16, stream=True
            )
            return [chunk.choices[0].finish_reason async for chunk in chunks]

    assert asyncio.run(stream())[-1] in ("stop", "length")


def test_jurisdiction_goes_to_the_dearer_node_that_is_there(market: LiveMarket, client: openai.OpenAI) -> None:
    answer = ask(client, extra_body={"jurisdiction": "CA"})
    assert ryvion(answer)["node_id"] == market.nodes["dear"].node_key
    assert ryvion(answer)["envelope"]["fields"]["jurisdiction"] == "CA"


def test_jurisdiction_that_nobody_serves_is_refused_by_name(client: openai.OpenAI) -> None:
    with pytest.raises(openai.PermissionDeniedError, match="served in: CA, DE") as caught:
        ask(client, extra_body={"jurisdiction": "JP"}, stream=True)
    assert caught.value.code == "jurisdiction_not_allowed"


def test_unknown_model_wrong_key_and_bad_values_are_the_errors_that_clients_know(
    market: LiveMarket, client: openai.OpenAI
) -> None:
    with pytest.raises(openai.NotFoundError, match=MODEL) as unknown:
        ask(client, model="gpt-4o")
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as wrong_type:
        ask(client, max_tokens="many")
    assert wrong_type.value.param == "max_tokens"
    stranger = client.with_options(api_key="ryv_wrong")
    with pytest.raises(openai.AuthenticationError):
        ask(stranger)


def test_prompt_that_does_not_fit_is_context_length_exceeded(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, messages=[{"role": "user", "content": "word " * 3000}])
    assert caught.value.code == "context_length_exceeded"


def test_exported_receipt_verifies_offline_and_a_changed_one_does_not(
    client: openai.OpenAI, market: LiveMarket, tmp_path: Path
) -> None:
    about = ryvion(ask(client))
    file = tmp_path / "receipt.json"
    exported = {**about["receipt"], "audit_envelope": about["envelope"]}
    file.write_text(json.dumps(exported), encoding="utf-8")
    assert cli("receipts", "verify", str(file)).returncode == 0
    exported["metering_units"] += 1
    file.write_text(json.dumps(exported), encoding="utf-8")
    assert cli("receipts", "verify", str(file)).returncode == 1


def test_receipt_is_found_by_completion_id(client: openai.OpenAI) -> None:
    answer = ask(client)
    found = client.get(
        f"{str(client.base_url).removesuffix('/v1/')}/api/v1/receipts",
        cast_to=dict[str, Any],
        options={"params": {"completion_id": answer.id}},
    )
    assert [receipt["cid"] for receipt in found["data"]] == [ryvion(answer)["cid"]]


def test_both_ledgers_agree_on_every_finished_job(client: openai.OpenAI, market: LiveMarket) -> None:
    ask(client)
    wait_until(lambda: all(job.state == "accepted" for job in market.jobs("cheap", "sold")), "verdicts")
    bought = {job.job_id: job for job in market.jobs("buyer", "bought") if job.state == "accepted"}
    sold = [job for job in market.jobs("cheap", "sold") if job.job_id in bought]
    assert sold
    assert all(bought[job.job_id].cost_microcredits == job.cost_microcredits for job in sold)


def test_command_line_shows_offers_and_explains_a_route(market: LiveMarket) -> None:
    home = str(market.nodes["buyer"].paths.home)
    offers = json.loads(cli("offers", "--home", home, "--json").stdout)
    assert {offer["jurisdiction"] for offer in offers["offers"]} == {"DE", "CA"}
    route = json.loads(cli("route", MODEL, "--home", home, "--json").stdout)
    assert route["winner"] == market.nodes["cheap"].node_key
    assert cli("route", MODEL, "--home", home, "--jurisdiction", "JP").returncode == 1
