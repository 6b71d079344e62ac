"""Several choices from real nodes: the same for the same seed however they are sent, each with a receipt that verifies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from ryvion_node.ledger.reader import read_ledger
from ryvion_protocol.exported import read_receipts, verify_exported
from tests.e2e.conftest import MODEL
from tests.e2e.live import LiveMarket, live_market, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

PROMPT: Any = [{"role": "user", "content": "Tell me about the market."}]
RULES: dict[str, Any] = {"model": MODEL, "temperature": 1.2, "seed": 11, "max_tokens": 24, "n": 3}


@pytest.fixture(scope="module")
def sellers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveMarket]:
    """One with a single slot and no queue, one with room for all, and a buyer."""
    with live_market(tmp_path_factory.mktemp("choices")) as market:
        market.sell("one", "DE", "0.05", MODEL, slots=1, max_queue=0).wait_until_ready()
        market.sell("four", "CA", "0.05", MODEL)
        market.buy()
        market.ready(offers=2)
        yield market


@pytest.fixture
def client(sellers: LiveMarket) -> Iterator[openai.OpenAI]:
    transport = openai.DefaultHttpxClient(trust_env=False)
    with openai.OpenAI(
        base_url=sellers.endpoint, api_key=sellers.api_key, http_client=transport, max_retries=0, timeout=60
    ) as made:
        yield made


def receipts_of(market: LiveMarket, answer: Any) -> list[dict[str, Any]]:
    found = httpx.get(
        f"{market.endpoint.removesuffix('/v1')}/api/v1/receipts",
        params={"completion_id": answer.id},
        headers={"authorization": f"Bearer {market.api_key}"},
        trust_env=False,
    )
    return list(found.json()["data"])


@pytest.mark.parametrize("where", ["DE", "CA"])
def test_three_choices_streamed_whole_and_one_by_one(sellers: LiveMarket, client: openai.OpenAI, where: str) -> None:
    place = {"extra_body": {"jurisdiction": where}}
    whole = client.chat.completions.create(messages=PROMPT, **RULES, **place)
    texts = [choice.message.content or "" for choice in whole.choices]
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    assert len(set(texts)) > 1
    single = client.chat.completions.create(messages=PROMPT, **(RULES | {"n": 1, "seed": 12}), **place)
    *chunks, last = client.chat.completions.create(
        messages=PROMPT, **RULES, **place, stream=True, stream_options={"include_usage": True}
    )
    assert last.usage is not None
    assert whole.usage is not None
    assert single.usage is not None
    streamed = ["", "", ""]
    for chunk in chunks:
        (choice,) = chunk.choices
        streamed[choice.index] += choice.delta.content or ""
    if where == "DE":  # on the other, jobs share steps, and rounding may decide between two tokens
        assert streamed == texts
        assert single.choices[0].message.content == texts[1]
        assert last.usage.completion_tokens == whole.usage.completion_tokens
    assert last.usage.prompt_tokens == whole.usage.prompt_tokens == single.usage.prompt_tokens

    said = json.dumps(whole.to_dict()).encode()
    jobs = [choice.model_extra["ryvion"] for choice in whole.choices]  # type: ignore[index]
    for job in jobs:
        assert job["jurisdiction"] == where
        assert {check["outcome"] for check in job["checks"]} == {"passed"}
        (receipt,) = read_receipts(json.dumps(job).encode())
        verdict = verify_exported(receipt, said)
        assert {finding.outcome for finding in verdict.findings} == {"passed"}
    for answer in (whole, last):
        found = receipts_of(sellers, answer)
        assert len(found) == 3
        assert all(receipt["accepted"] for receipt in found)
    assert {receipt["cid"] for receipt in receipts_of(sellers, whole)} == {job["cid"] for job in jobs}
    assert whole.model_extra is not None
    assert whole.model_extra["ryvion"]["cost_microcredits"] == sum(job["cost_microcredits"] for job in jobs)


def test_several_texts_are_continued_with_one_request(client: openai.OpenAI) -> None:
    prompts = ["The capital of France is", "One, two,"]
    rules = RULES | {"n": 1, "max_tokens": 8, "temperature": 0}
    answer = client.completions.create(prompt=prompts, **rules)
    alone = [client.completions.create(prompt=prompt, **rules) for prompt in prompts]
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert [choice.text for choice in answer.choices] == [one.choices[0].text for one in alone]
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == sum(one.usage.prompt_tokens for one in alone if one.usage)


def test_leaving_a_stream_stops_all_its_jobs(sellers: LiveMarket, client: openai.OpenAI) -> None:
    rules = RULES | {"n": 4, "max_tokens": 400}
    with client.chat.completions.create(
        messages=PROMPT, **rules, stream=True, extra_body={"jurisdiction": "CA"}
    ) as stream:
        begun = next(iter(stream))

    def all_settled() -> bool:
        with read_ledger(sellers.nodes["buyer"].paths.ledger_file) as ledger:
            return not ledger.unfinished_jobs("bought")

    wait_until(all_settled, "every job was stopped and settled")
    assert 1 <= len(receipts_of(sellers, begun)) <= 4
