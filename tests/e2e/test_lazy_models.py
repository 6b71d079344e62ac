"""A seller with memory for one model sells two: neither is loaded until a job wants it, and they take turns."""

from __future__ import annotations

from pathlib import Path

import openai
import pytest

from ryvion_node.models.catalogue import catalogue
from tests.e2e.live import live_market, wait_until, workers_of

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

CONFIG = """
[node]
jurisdiction = "DE"
[executor]
enabled = true
price_out = "1"
memory_budget = "20 MiB"
[[executor.models]]
name = "ryvion-tiny"
load = "first-use"
threads = 1
[[executor.models]]
name = "tinyllama"
load = "first-use"
threads = 1
"""


def test_models_that_are_not_loaded_are_offered_and_sold(tmp_path: Path) -> None:
    names = [model.name for model in catalogue().models if model.name in ("ryvion-tiny", "tinyllama")]
    config = tmp_path / "seller.toml"
    config.write_text(CONFIG)
    with live_market(tmp_path) as market:
        market.start("bootstrap").wait_until_ready()
        seller = market.start("seller", "--config", str(config))
        market.buy()
        market.ready(offers=1)
        wait_until(lambda: not workers_of(seller), "both models are unloaded")
        with openai.OpenAI(
            base_url=market.endpoint,
            api_key=market.api_key,
            http_client=openai.DefaultHttpxClient(trust_env=False),
            max_retries=0,
        ) as client:
            for name in (*names, *names):
                answer = client.chat.completions.create(
                    model=name,
                    messages=[{"role": "user", "content": "What is a receipt?"}],
                    temperature=0,
                    max_tokens=8,
                )
                about = (answer.model_extra or {})["ryvion"]
                assert about["accepted"] is True
                wait_until(lambda: len(workers_of(seller)) == 1, "one model is loaded")
