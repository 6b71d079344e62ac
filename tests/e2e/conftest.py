"""One market for the tests that only buy from it; tests that break something start their own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.live import LiveMarket, live_market

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

MODEL = "ryvion-tiny"


@pytest.fixture(scope="session")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveMarket]:
    """A bootstrap node, a cheap seller in Germany, a dear one in Canada, and a buyer."""
    with live_market(tmp_path_factory.mktemp("market")) as running:
        running.start("bootstrap").wait_until_ready()
        running.sell("cheap", "DE", "0.05", MODEL)
        running.sell("dear", "CA", "5.00", MODEL)
        running.buy()
        running.ready(offers=2)
        yield running


@pytest.fixture(scope="session")
def slow_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights that takes seconds for an answer, so that there is time to break things."""
    from tiny_model.random_model import write_random_model

    path = tmp_path_factory.mktemp("models") / "slow.gguf"
    write_random_model(path, 40_000_000)
    return path
