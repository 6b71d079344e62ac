"""What breaks in real life, on real processes: kills, frozen workers, departures, full houses, garbage."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.e2e.conftest import MODEL
from tests.e2e.live import LiveMarket, freeze, live_market, thaw, wait_until, workers_of

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

LONG = 400
"""Tokens: several seconds on the slow model."""


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[LiveMarket]:
    with live_market(tmp_path) as market:
        yield market


def client_of(market: LiveMarket) -> openai.OpenAI:
    transport = openai.DefaultHttpxClient(trust_env=False)
    return openai.OpenAI(
        base_url=market.endpoint, api_key=market.api_key, http_client=transport, max_retries=0, timeout=90
    )


def ask(client: openai.OpenAI, model: str, **changes: Any) -> Any:
    settings: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": "Tell me about the market."}],
        "temperature": 0,
        "max_tokens": 32,
    }
    return client.chat.completions.create(**(settings | changes))


def test_executor_killed_before_the_first_token_is_replaced_and_the_client_notices_nothing(fresh: LiveMarket) -> None:
    fresh.sell("cheap", "DE", "0.05", MODEL).wait_until_ready()
    fresh.sell("dear", "CA", "5.00", MODEL)
    fresh.buy()
    fresh.ready(offers=2)
    freeze(fresh.nodes["cheap"])
    with ThreadPoolExecutor(1) as pool, client_of(fresh) as client:
        answer = pool.submit(ask, client, MODEL)
        wait_until(lambda: bool(fresh.jobs("cheap", "sold")), "the cheap node took the job")
        fresh.kill("cheap")
        about = answer.result(60).model_extra["ryvion"]
    assert about["node_id"] == fresh.nodes["dear"].node_key
    assert about["accepted"] is True


def test_executor_killed_in_the_answer_is_an_error_and_never_a_stop(fresh: LiveMarket, slow_model: Path) -> None:
    fresh.sell("only", "DE", "0.05", str(slow_model)).wait_until_ready()
    fresh.buy()
    fresh.ready(offers=1)
    reasons = []
    with client_of(fresh) as client:
        with pytest.raises(openai.APIError) as caught:  # noqa: PT012 - the stream must break while it is read
            for chunk in ask(client, "slow", max_tokens=LONG, stream=True):
                reasons.append(chunk.choices[0].finish_reason)
                if chunk.choices[0].delta.content:
                    fresh.kill("only")
        assert caught.value.code == "node_failed"
        assert set(reasons) == {None}
        with pytest.raises(openai.APIStatusError):
            ask(client, "slow")
    assert fresh.is_running("buyer")
    assert [job.state for job in fresh.jobs("buyer", "bought")] == []


def test_killed_worker_fails_its_job_and_the_next_one_is_served(fresh: LiveMarket, slow_model: Path) -> None:
    node = fresh.sell("only", "DE", "0.05", str(slow_model))
    node.wait_until_ready()
    fresh.buy()
    fresh.ready(offers=1)
    with client_of(fresh) as client:
        with pytest.raises(openai.APIError, match="worker"):  # noqa: PT012
            for chunk in ask(client, "slow", max_tokens=LONG, stream=True):
                if chunk.choices[0].delta.content:
                    for pid in workers_of(node):
                        with suppress(ProcessLookupError):  # killed for the last chunk already
                            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: bool(workers_of(node)), "a new worker")

        def served() -> bool:
            try:
                return bool(ask(client, "slow", max_tokens=4).choices[0].finish_reason)
            except openai.APIStatusError:
                return False

        wait_until(served, "served again")


def test_all_busy_is_503_with_a_time_to_retry(fresh: LiveMarket, slow_model: Path) -> None:
    fresh.sell("only", "DE", "0.05", str(slow_model), slots=1, max_queue=0).wait_until_ready()
    fresh.buy()
    fresh.ready(offers=1)
    with client_of(fresh) as client:
        stream = ask(client, "slow", max_tokens=LONG, stream=True)
        next(iter(stream))
        with pytest.raises(openai.InternalServerError, match="busy") as caught:
            ask(client, "slow")
        assert caught.value.status_code == 503
        assert caught.value.code == "no_capacity"
        assert int(caught.value.response.headers["retry-after-ms"]) > 0
        stream.close()


def test_garbage_on_every_port_ends_no_node(market: LiveMarket) -> None:
    for name in ("bootstrap", "cheap", "buyer"):
        port = int(market.nodes[name].ready["listening"][0].split("/")[4])
        for junk in (b"\x00" * 4096, b"\x13/multistream/1.0.0\n" + b"\xff" * 512, b"GET / HTTP/1.1\r\n\r\n"):
            with closing(socket.create_connection(("127.0.0.1", port), timeout=5)) as connection:
                connection.sendall(junk)
    endpoint = httpx.URL(market.endpoint)
    with closing(socket.create_connection((endpoint.host, endpoint.port), timeout=5)) as connection:
        connection.sendall(b"\x16\x03\x01 not http\r\n\r\n")
    with client_of(market) as client:
        assert ask(client, MODEL).model_extra["ryvion"]["accepted"] is True
    assert all(market.is_running(name) for name in market.nodes)


def test_many_clients_at_once_are_all_served(market: LiveMarket) -> None:
    barrier = threading.Barrier(6)

    def one(number: int) -> dict[str, Any]:
        with client_of(market) as client:
            barrier.wait(30)
            about = ask(client, MODEL, seed=number, max_tokens=16).model_extra["ryvion"]
            assert isinstance(about, dict)
            return about

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(one, range(6)))
    assert all(answer["accepted"] for answer in answers), json.dumps(answers[0]["checks"])
    assert len({answer["job_id"] for answer in answers}) == 6


def test_frozen_worker_delays_and_does_not_break(market: LiveMarket) -> None:
    freeze(market.nodes["cheap"])
    with ThreadPoolExecutor(1) as pool, client_of(market) as client:
        answer = pool.submit(ask, client, MODEL)
        wait_until(lambda: any(j.state == "running" for j in market.jobs("cheap", "sold")), "the job began")
        thaw(market.nodes["cheap"])
        assert answer.result(60).model_extra["ryvion"]["accepted"] is True
