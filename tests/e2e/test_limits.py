"""What keys may spend and what was answered, over a `kill -9` of the buyer, with the official client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.e2e.conftest import MODEL
from tests.e2e.live import LiveMarket, cli, live_market

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

MESSAGES: Any = [{"role": "user", "content": "Tell me about the market."}]


@pytest.fixture
def market(tmp_path: Path) -> Iterator[LiveMarket]:
    with live_market(tmp_path) as live:
        live.sell("seller", "DE", "0.05", MODEL).wait_until_ready()
        live.buy()
        live.ready(offers=1)
        yield live


def client_of(market: LiveMarket) -> openai.OpenAI:
    transport = openai.DefaultHttpxClient(trust_env=False)
    return openai.OpenAI(
        base_url=market.endpoint, api_key=market.api_key, http_client=transport, max_retries=0, timeout=60
    )


def keys(market: LiveMarket, *arguments: str) -> Any:
    shown = cli("keys", *arguments, "--home", str(market.folder / "buyer"), "--json")
    assert shown.returncode == 0, shown.stderr
    return json.loads(shown.stdout)


def test_answers_and_spending_outlive_the_node(market: LiveMarket) -> None:
    ask: dict[str, Any] = {"model": MODEL, "messages": MESSAGES, "max_tokens": 16}
    header = {"Idempotency-Key": "order-1"}
    with client_of(market) as client:
        first = client.chat.completions.create(**ask, extra_headers=header)
    (before,) = keys(market, "list")["keys"]
    spent = before["spent_microcredits"]["total"]
    assert spent == first.model_extra["ryvion"]["cost_microcredits"] > 0

    market.kill("buyer")
    killed = market.nodes["buyer"].process.stdout
    assert killed is not None
    killed.close()
    market.start("buyer", "--proxy", "--proxy-port", "0")
    market.ready(offers=1)
    with client_of(market) as client:
        again = client.chat.completions.create(**ask, extra_headers=header)
        assert again == first
        (after,) = keys(market, "list")["keys"]
        assert after == before
        assert len(market.jobs("buyer", "bought")) == 1

        keys(market, "set", before["id"], "--budget-total", "0.000001")
        with pytest.raises(openai.APIStatusError) as refused:
            client.chat.completions.create(**ask)
        assert (refused.value.status_code, refused.value.code) == (402, "insufficient_quota")
        keys(market, "set", before["id"], "--budget-total", "unlimited", "--requests-per-minute", "0")
        with pytest.raises(openai.RateLimitError) as limited:
            client.chat.completions.create(**ask)
        assert limited.value.code == "rate_limit_exceeded"
        # A repeated request is one, too.
        with pytest.raises(openai.RateLimitError):
            client.chat.completions.create(**ask, extra_headers=header)
