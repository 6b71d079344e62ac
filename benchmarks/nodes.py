"""Real nodes for benchmarks: a seller and a buyer as separate processes on loopback."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ryvion_node.cli.demo.network import DemoNode, NodePlan, stop_all
from ryvion_node.cli.offers import fetch_offers
from ryvion_node.keys import WITHOUT_LIMIT, KeyStore
from ryvion_node.paths import resolve_paths

OFFER_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class BenchNode:
    """The buyer's endpoint and a key for it."""

    endpoint: str
    api_key: str
    buyer_pid: int
    seller_pid: int


def local_model(name: str, path: Path, slots: int) -> str:
    """Configuration of a model that the seller runs itself, `slots` jobs at once."""
    return f'[[executor.models]]\nname = "{name}"\npath = "{path}"\nslots = {slots}\n'


def remote_model(name: str, url: str, slots: int) -> str:
    """And of one that another engine serves."""
    return (
        f'[[executor.remote_models]]\nname = "{name}"\nurl = "{url}"\nflavour = "openai"\n'
        f"context_tokens = 8192\nslots = {slots}\n"
    )


@contextmanager
def running_market(folder: Path, sold: str) -> Iterator[BenchNode]:
    """One seller of what the configuration `sold` says, one buyer that has heard its offer."""
    config = folder / "seller.toml"
    config.write_text(
        '[node]\njurisdiction = "DE"\nlisten = ["/ip4/127.0.0.1/tcp/0"]\n'
        f'[executor]\nenabled = true\nprice_in = "0.05"\nprice_out = "0.20"\n{sold}',
        encoding="utf-8",
    )
    nodes: list[DemoNode] = []
    try:
        seller = DemoNode(NodePlan("seller", "sells", ("--config", str(config))), folder / "seller", None)
        nodes.append(seller)
        seller.wait_until_ready()
        home = folder / "buyer"
        buyer = DemoNode(NodePlan("buyer", "buys", ("--proxy", "--proxy-port", "0")), home, seller.address)
        nodes.append(buyer)
        _, token = KeyStore(resolve_paths(home).keys_file).create("benchmark", "buyer", limits=WITHOUT_LIMIT)
        buyer.wait_until_ready()
        _wait_for_offer(buyer)
        yield BenchNode(str(buyer.ready["endpoint"]), token, buyer.process.pid, seller.process.pid)
    finally:
        stop_all(nodes)


def _wait_for_offer(buyer: DemoNode) -> None:
    deadline = time.monotonic() + OFFER_TIMEOUT_S
    while not fetch_offers(buyer.paths):
        if time.monotonic() > deadline:
            raise buyer.failure(f"heard no offer within {OFFER_TIMEOUT_S:.0f} s")
        time.sleep(0.1)
