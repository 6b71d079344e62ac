"""A node sells what another engine serves, and a buyer finds nothing different about it but the honest note in the offer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from ryvion_node.cli.offers import fetch_offers
from ryvion_node.models.catalogue import catalogue
from tests.e2e.live import LiveMarket, live_market, wait_until
from tests.node.engine.other_engine import KEY, OtherEngine, other_engine

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

BUNDLED = catalogue().bundled()[0]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OtherEngine]:
    assert BUNDLED.path is not None
    with other_engine("llama-cpp-python", BUNDLED.path, tmp_path_factory.mktemp("engine")) as started:
        yield started


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory, engine: OtherEngine) -> Iterator[LiveMarket]:
    """A seller with two names for what the other engine serves: one with the digest that is known, one without any."""
    assert BUNDLED.digest is not None
    folder = tmp_path_factory.mktemp("market")
    key = folder / "engine.key"
    key.touch(0o600)
    key.write_text(KEY)
    common = f'url = "{engine.url}"\nserved_as = "other"\nkey_file = "{key}"\ncontext_tokens = 512\nslots = 1\n'
    config = folder / "seller.toml"
    config.write_text(
        '[node]\njurisdiction = "DE"\n[executor]\nenabled = true\nprice_out = "1"\n'
        f'[[executor.remote_models]]\nname = "{BUNDLED.name}"\nquantisation = "Q8_0"\n'
        f'digest = "{BUNDLED.digest.hex()}"\nhardware = "a rack of them"\n{common}'
        f'[[executor.remote_models]]\nname = "mystery"\ntokenizer = "{BUNDLED.path}"\n{common}',
        encoding="utf-8",
    )
    with live_market(folder) as running:
        running.start("bootstrap").wait_until_ready()
        running.start("seller", "--config", str(config))
        running.buy()
        running.ready(offers=1)
        yield running


@pytest.fixture
def client(market: LiveMarket) -> Iterator[openai.OpenAI]:
    transport = openai.DefaultHttpxClient(trust_env=False)
    with openai.OpenAI(
        base_url=market.endpoint, api_key=market.api_key, http_client=transport, max_retries=0, timeout=60
    ) as made:
        yield made


def offers(market: LiveMarket) -> list[Any]:
    """What the buyer has heard of; asked for at an easy pace, since it is waited for."""
    time.sleep(0.25)
    return list(fetch_offers(market.nodes["buyer"].paths))


def ask(client: openai.OpenAI, model: str, **changes: Any) -> Any:
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    return client.chat.completions.create(
        **({"model": model, "messages": messages, "temperature": 0, "max_tokens": 32} | changes)
    )


def test_answer_is_bought_counted_and_settled(market: LiveMarket, client: openai.OpenAI) -> None:
    answer = ask(client, BUNDLED.name)
    about = answer.model_extra["ryvion"]
    assert answer.choices[0].message.content == "The capital of France is Paris."
    assert {check["outcome"] for check in about["checks"]} == {"passed"}
    assert about["receipt"]["metering_units"] == answer.usage.total_tokens
    assert about["accepted"] is True
    wait_until(lambda: any(job.state == "accepted" for job in market.jobs("seller", "sold")), "an accepted sale")


def test_stream_gives_the_same_text(client: openai.OpenAI) -> None:
    chunks = list(ask(client, BUNDLED.name, stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "The capital of France is Paris."


def test_weights_without_a_digest_are_only_bounded(client: openai.OpenAI) -> None:
    about = ask(client, "mystery").model_extra["ryvion"]
    outcomes = {check["name"]: check["outcome"] for check in about["checks"]}
    assert outcomes["units_counted"] == "bounded"
    assert about["accepted"] is True


def test_offer_says_what_it_is(market: LiveMarket) -> None:
    (offer,) = offers(market)
    assert offer["hardware"]["backend"] == "remote"
    assert offer["hardware"]["name"] == "a rack of them"
    by_name = {model["name"]: model for model in offer["models"]}
    assert by_name["mystery"]["digest"] == "0" * 64


def test_engine_that_dies_takes_its_models_off_the_market(
    market: LiveMarket, client: openai.OpenAI, engine: OtherEngine
) -> None:
    engine.kill()
    wait_until(lambda: offers(market) == [], "no offer", timeout_s=60)
    with pytest.raises(openai.APIStatusError):
        ask(client, BUNDLED.name)
    engine.start()
    wait_until(lambda: offers(market) != [], "the offer again", timeout_s=60)
    assert ask(client, BUNDLED.name).choices[0].message.content == "The capital of France is Paris."
