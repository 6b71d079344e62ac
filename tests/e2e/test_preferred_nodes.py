"""Preferences with the official client and real nodes: they decide who runs a job, and what nobody meets is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from ryvion_node.keys import KeyStore
from ryvion_node.p2p.peer_id import peer_id_of
from ryvion_node.preferences import Preferences
from ryvion_protocol.schema import NodeKey
from tests.e2e.conftest import MODEL
from tests.e2e.live import LiveMarket, cli

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


@pytest.fixture
def client(market: LiveMarket) -> Iterator[openai.OpenAI]:
    transport = openai.DefaultHttpxClient(trust_env=False)
    with openai.OpenAI(
        base_url=market.endpoint, api_key=market.api_key, http_client=transport, max_retries=0, timeout=60
    ) as made:
        yield made


def ask(client: openai.OpenAI, ryvion: dict[str, Any] | None = None) -> dict[str, Any]:
    """What the answer says of who gave it."""
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "What is the capital of France?"}],
        max_tokens=8,
        extra_body={"ryvion": ryvion},
    )
    found = (answer.model_extra or {})["ryvion"]
    assert isinstance(found, dict)
    return found


def test_lists_and_sort_decide_who_runs_the_job(market: LiveMarket, client: openai.OpenAI) -> None:
    cheap, dear = market.nodes["cheap"].node_key, market.nodes["dear"].node_key
    assert ask(client, {"allow": [peer_id_of(NodeKey(bytes.fromhex(dear)))]})["node_id"] == dear
    assert ask(client, {"deny": [cheap]})["node_id"] == dear
    assert ask(client, {"deny": [dear]})["node_id"] == cheap
    by_price = ask(client, {"sort": "price"})
    assert (by_price["node_id"], by_price["route"]["sort"]) == (cheap, "price")
    assert "price score" in by_price["why"]
    assert ask(client, {"sort": "price", "allow": [dear]})["node_id"] == dear
    by_latency = ask(client, {"sort": "latency"})
    bids = [line for line in by_latency["route"]["candidates"] if line["outcome"] in ("won", "bid")]
    assert by_latency["node_id"] == max(bids, key=lambda line: line["score"])["node_key"]
    assert len(bids) == 1 or "latency score" in by_latency["why"]


def test_the_file_its_quantisation_and_a_counted_bill_can_be_demanded(client: openai.OpenAI) -> None:
    offered = (client.models.retrieve(MODEL).model_extra or {})["ryvion"]
    digest, quantisation = offered["digests"][0], offered["quantisations"][0]
    wanted = {"digest": digest, "quantisation": [quantisation.lower()], "min_assurance": "count-checked"}
    about = ask(client, wanted)
    assert about["model_digest"] == digest
    assert {check["outcome"] for check in about["checks"]} == {"passed"}
    for name, value, on_offer in (("digest", "ab" * 32, digest), ("quantisation", "IQ1_S", quantisation)):
        with pytest.raises(openai.PermissionDeniedError, match=on_offer) as refused:
            ask(client, wanted | {name: value})
        assert (refused.value.code, refused.value.param) == ("preferences_not_met", f"ryvion.{name}")


def test_a_price_of_nothing_buys_nothing_and_a_misspelt_limit_is_no_limit(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as too_dear:
        ask(client, {"max_price": 0})
    assert (too_dear.value.status_code, too_dear.value.code) == (402, "price_limit")
    with pytest.raises(openai.BadRequestError, match="is not known here; there are sort, max_price") as misspelt:
        ask(client, {"max_prize": 0})
    assert misspelt.value.param == "ryvion.max_prize"


def test_a_keys_own_preferences_hold_whatever_a_request_says(market: LiveMarket, client: openai.OpenAI) -> None:
    cheap, dear = market.nodes["cheap"].node_key, market.nodes["dear"].node_key
    keys = KeyStore(market.nodes["buyer"].paths.keys_file)
    preferences = Preferences(deny=frozenset({NodeKey(bytes.fromhex(cheap))}))
    _, token = keys.create("bound", "buyer", preferences=preferences)
    bound = client.with_options(api_key=token)
    assert ask(bound)["node_id"] == dear
    with pytest.raises(openai.PermissionDeniedError, match="deny"):
        ask(bound, {"allow": [cheap]})
    with pytest.raises(openai.PermissionDeniedError):
        bound.responses.create(model=MODEL, input="Hi", extra_body={"ryvion": {"allow": [cheap]}}, stream=True)


def test_the_command_line_explains_the_same_choice(market: LiveMarket) -> None:
    home, cheap = str(market.nodes["buyer"].paths.home), market.nodes["cheap"].node_key
    done = cli("route", MODEL, "--home", home, "--json", "--deny", cheap, "--sort", "price", "--feature", "counted")
    decision = json.loads(done.stdout)
    assert (decision["winner"], decision["sort"]) == (market.nodes["dear"].node_key, "price")
    assert cli("route", MODEL, "--home", home, "--quantisation", "IQ1_S").returncode == 1
