"""Every failure a client can meet, through the whole real path, with the official client: models that fail on purpose."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from ryvion_node.cli.demo.network import DemoNode
from ryvion_node.engine.scripted import KEEP_ALIVES, TOKEN_S, VARIABLE
from ryvion_node.keys import KeyStore
from tests.e2e.live import LiveMarket, cli, live_market, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

KEEP_ALIVE_S = 0.3
WORDS = "the quick brown fox jumps over  the lazy dog"


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveMarket]:
    """A seller with the scripted engine, and a buyer."""
    folder = tmp_path_factory.mktemp("scripted")
    config = folder / "node.toml"
    config.write_text(f"[proxy]\nkeep_alive_s = {KEEP_ALIVE_S}\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patched, live_market(folder) as market:
        patched.setenv(VARIABLE, "1")
        flags = ("--jurisdiction", "DE", "--price-in", "0.05", "--price-out", "0.2", "--config", str(config))
        both = ("--engine", "scripted", "--proxy", "--proxy-port", "0")
        market.start("mocks", *both, *flags).wait_until_ready()
        market.buy("buyer", "--config", str(config))
        market.ready(offers=1)
        yield market


@pytest.fixture
def client(scripted: LiveMarket) -> Iterator[openai.OpenAI]:
    transport = openai.DefaultHttpxClient(trust_env=False)
    with openai.OpenAI(
        base_url=scripted.endpoint, api_key=scripted.api_key, http_client=transport, max_retries=0, timeout=60
    ) as made:
        yield made


def ask(client: openai.OpenAI, model: str, **changes: Any) -> Any:
    settings: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": WORDS}]}
    return client.chat.completions.create(**(settings | changes))


def raw_stream(market: LiveMarket, model: str) -> list[str]:
    """The stream's lines as they come over the wire."""
    body = {"model": model, "messages": [{"role": "user", "content": WORDS}], "stream": True}
    headers = {"authorization": f"Bearer {market.api_key}"}
    with (
        httpx.Client(trust_env=False, timeout=60) as client,
        client.stream("POST", f"{market.endpoint}/chat/completions", json=body, headers=headers) as answer,
    ):
        assert answer.status_code == 200
        return [line for line in answer.iter_lines() if line]


def chunks_of(lines: list[str]) -> list[dict[str, Any]]:
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]


def bought(market: LiveMarket) -> set[str]:
    return {job.job_id for job in market.jobs("buyer", "bought")}


def test_echo_repeats_what_was_said_word_by_word_and_is_receipted(client: openai.OpenAI) -> None:
    chunks = list(ask(client, "mock-echo", stream=True, stream_options={"include_usage": True}))
    pieces = [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content]
    assert "".join(pieces) == WORDS
    assert len(pieces) > 1
    assert chunks[-1].usage.completion_tokens == len(WORDS.split())
    assert chunks[-2].model_extra["ryvion"]["accepted"] is True
    whole = ask(client, "mock-echo")
    assert whole.choices[0].message.content == WORDS
    assert whole.choices[0].finish_reason == "stop"


def test_echo_ends_at_a_stop_text_and_at_the_length_asked_for(client: openai.OpenAI) -> None:
    assert ask(client, "mock-echo", stop=[" jumps"]).choices[0].message.content == "the quick brown fox"
    cut = ask(client, "mock-echo", max_tokens=2).choices[0]
    assert (cut.message.content, cut.finish_reason) == ("the quick", "length")


@pytest.mark.parametrize("model", ["mock-midstream-error", "mock-drop"])
def test_answer_that_breaks_ends_with_the_error_event_alone(scripted: LiveMarket, model: str) -> None:
    before = bought(scripted)
    lines = raw_stream(scripted, model)
    chunks = chunks_of(lines)
    said = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks[:-1]]
    assert len("".join(said).split()) >= 3
    assert {chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]} == {None}
    error = chunks[-1]["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == "node_failed"
    assert not any(line.startswith("event:") or "[DONE]" in line for line in lines)
    assert bought(scripted) == before, "a broken answer settles nothing"


@pytest.mark.parametrize("model", ["mock-midstream-error", "mock-drop"])
def test_answer_that_breaks_raises_in_the_client_streamed_or_whole(client: openai.OpenAI, model: str) -> None:
    reasons = []
    with pytest.raises(openai.APIError) as streamed:  # noqa: PT012 - it breaks while it is read
        for chunk in ask(client, model, stream=True):
            reasons.append(chunk.choices[0].finish_reason)
    assert streamed.value.code == "node_failed"
    assert len(reasons) > 3
    assert set(reasons) == {None}
    with pytest.raises(openai.InternalServerError) as whole:
        ask(client, model)
    assert (whole.value.status_code, whole.value.code) == (502, "node_failed")
    assert whole.value.response.headers["x-should-retry"] == "false"


def test_silence_before_the_first_word_is_filled_with_comments(scripted: LiveMarket) -> None:
    started = time.monotonic()
    lines = raw_stream(scripted, "mock-slow-start")
    assert time.monotonic() - started >= KEEP_ALIVES * KEEP_ALIVE_S
    first = next(number for number, line in enumerate(lines) if '"content":"the' in line.replace('": "', '":"'))
    comments = [line for line in lines[:first] if line.startswith(":")]
    assert len(comments) >= KEEP_ALIVES, lines[:first]
    assert lines[-1] == "data: [DONE]"


def test_words_arrive_as_they_are_said_and_not_in_bursts(scripted: LiveMarket) -> None:
    said = " ".join(["word"] * 60)
    body = {"model": "mock-echo", "messages": [{"role": "user", "content": said}], "stream": True}
    headers = {"authorization": f"Bearer {scripted.api_key}"}
    arrivals: list[tuple[float, int]] = []
    with (
        httpx.Client(trust_env=False, timeout=60) as client,
        client.stream("POST", f"{scripted.endpoint}/chat/completions", json=body, headers=headers) as answer,
    ):
        for data in answer.iter_raw():
            if words := data.count(b"word"):
                arrivals.append((time.monotonic(), words))
    first_at, last_at = arrivals[0][0], arrivals[-1][0]
    assert sum(words for _, words in arrivals) == 60
    assert last_at - first_at > 0.9 * 59 * TOKEN_S
    assert len(arrivals) >= 15
    assert max(words for _, words in arrivals) <= 15


def test_slow_start_is_no_failure_for_the_client(client: openai.OpenAI) -> None:
    chunks = list(ask(client, "mock-slow-start", stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == WORDS
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_turned_away_once_is_429_which_the_client_retries_by_itself(client: openai.OpenAI) -> None:
    with pytest.raises(openai.RateLimitError) as refused:
        ask(client, "mock-429-once", stream=True)
    assert refused.value.code == "rate_limit_exceeded"
    headers = refused.value.response.headers
    assert 0 < int(headers["retry-after-ms"]) <= 60_000
    assert 0 < int(headers["retry-after"]) <= 60
    assert "x-should-retry" not in headers
    assert ask(client, "mock-429-once").choices[0].message.content == WORDS
    other: Any = [{"role": "user", "content": "Another prompt."}]
    patient = client.with_options(max_retries=2)
    assert ask(patient, "mock-429-once", messages=other).choices[0].message.content == "Another prompt."


def test_always_full_is_503_with_a_time_to_retry(client: openai.OpenAI) -> None:
    with pytest.raises(openai.InternalServerError) as refused:
        ask(client, "mock-503", stream=True)
    assert (refused.value.status_code, refused.value.code) == (503, "no_capacity")
    headers = refused.value.response.headers
    assert 0 < int(headers["retry-after-ms"]) <= 60_000
    assert 0 < int(headers["retry-after"]) <= 60


def test_offer_says_that_it_is_made_up(scripted: LiveMarket) -> None:
    offers = json.loads(cli("offers", "--home", str(scripted.nodes["buyer"].paths.home), "--json").stdout)["offers"]
    assert ["for tests" in offer["hardware"]["name"] for offer in offers] == [True]


def test_scripted_engine_is_refused_where_nobody_said_it_is_a_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    flags = (
        "--engine",
        "scripted",
        "--jurisdiction",
        "DE",
        "--home",
        str(tmp_path),
        "--listen",
        "/ip4/127.0.0.1/tcp/0",
    )
    refused = cli("up", *flags)
    assert refused.returncode == 64
    assert f"{VARIABLE}=1" in refused.stderr
    assert refused.stdout == ""


def metrics_of(node: DemoNode, api_key: str) -> dict[str, float]:
    root = str(node.ready["control"])
    answer = httpx.get(f"{root}/metrics", headers={"x-api-key": api_key}, trust_env=False)
    lines = [line.rpartition(" ") for line in answer.text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def test_metrics_show_the_seller_what_it_sold(scripted: LiveMarket, client: openai.OpenAI) -> None:
    node = scripted.nodes["mocks"]
    _, api_key = KeyStore(node.paths.keys_file).create("scraper", "read-only")
    accepted = 'ryvion_verdicts_total{result="accepted"}'
    before = metrics_of(node, api_key)
    ask(client, "mock-echo")
    wait_until(lambda: metrics_of(node, api_key).get(accepted, 0) > before.get(accepted, 0), "the verdict")
    after = metrics_of(node, api_key)
    assert after["ryvion_earned_microcredits_total"] > before["ryvion_earned_microcredits_total"]
    assert after['ryvion_jobs_sold_total{status="completed"}'] > 0
    assert after['ryvion_tokens_total{kind="completion",side="sold"}'] > 0
    assert after['ryvion_slots{model="mock-echo"}'] > 0
    assert after['ryvion_slots_busy{model="mock-echo"}'] == 0


def test_metrics_show_the_buyer_what_it_bought(scripted: LiveMarket, client: openai.OpenAI) -> None:
    node = scripted.nodes["buyer"]
    before = metrics_of(node, scripted.api_key)
    ask(client, "mock-echo")
    with pytest.raises(openai.InternalServerError):
        ask(client, "mock-503")
    after = metrics_of(node, scripted.api_key)

    def rose(name: str) -> float:
        return after.get(name, 0.0) - before.get(name, 0.0)

    assert rose("ryvion_auctions_total") >= 2
    assert rose('ryvion_auction_winners_total{jurisdiction="DE"}') == 1
    assert rose('ryvion_receipts_total{result="accepted"}') == 1
    assert rose('ryvion_tokens_total{kind="completion",side="bought"}') == len(WORDS.split())
    assert rose("ryvion_spent_microcredits_total") > 0
    assert rose('ryvion_errors_total{code="no_capacity"}') == 1
    assert rose('ryvion_jobs_broken_total{code="busy"}') == 1
    assert after["ryvion_requests_inflight"] == 0
