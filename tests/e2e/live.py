"""Real nodes for end-to-end tests: separate processes, real libp2p, real llama.cpp, free ports on loopback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ryvion_node.cli.demo.network import DemoNode, NodePlan, stop_all
from ryvion_node.cli.offers import fetch_offers
from ryvion_node.keys import NEW_KEY_LIMITS, KeyLimits, KeyStore, Scope
from ryvion_node.ledger.reader import read_ledger
from ryvion_node.ledger.records import JobRecord, Side
from ryvion_node.paths import resolve_paths

WAIT_S = 30.0
"""Longest that anything in these tests is waited for."""


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = WAIT_S) -> None:
    """Poll until it holds; fails with `what` after `timeout_s` seconds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s:g} s"
        time.sleep(0.02)


@dataclass(slots=True)
class LiveMarket:
    """Nodes by name, and what a client of the buyer needs."""

    folder: Path
    nodes: dict[str, DemoNode] = field(default_factory=dict)
    api_key: str = ""

    def start(self, name: str, *flags: str) -> DemoNode:
        """Start a node that meets the others through the first one; does not wait."""
        first = next(iter(self.nodes.values()), None)
        node = DemoNode(NodePlan(name, name, flags), self.folder / name, first.address if first else None)
        self.nodes[name] = node
        return node

    def sell(self, name: str, jurisdiction: str, price: str, *models: str, **config: object) -> DemoNode:
        """Start a seller of `models` (bundled names or paths of GGUFs) with a configuration file."""
        slots = config.pop("slots", 4)
        settings = "".join(f"{key} = {value}\n" for key, value in config.items())
        path = self.folder / f"{name}.toml"
        path.write_text(
            f'[node]\njurisdiction = "{jurisdiction}"\n'
            f'[executor]\nenabled = true\nprice_in = "{price}"\nprice_out = "{price}"\n{settings}'
            + "".join(_entry_of(model, slots) for model in models),
            encoding="utf-8",
        )
        return self.start(name, "--config", str(path))

    def buy(self, name: str = "buyer", *flags: str) -> DemoNode:
        """Start a buyer with an endpoint and a key for it."""
        node = self.start(name, "--proxy", "--proxy-port", "0", *flags)
        self.api_key = self.key("buyer", name)
        return node

    def key(self, scope: Scope, name: str = "buyer", limits: KeyLimits = NEW_KEY_LIMITS) -> str:
        """Another key for a node's endpoint."""
        _, token = KeyStore(resolve_paths(self.folder / name).keys_file).create("test", scope, limits=limits)
        return token

    def ready(self, *, offers: int) -> None:
        """Wait until every node is up and the buyer has heard that many offers."""
        for node in self.nodes.values():
            node.wait_until_ready()
        wait_until(lambda: len(fetch_offers(self.nodes["buyer"].paths)) >= offers, f"{offers} offers")

    @property
    def endpoint(self) -> str:
        return str(self.nodes["buyer"].ready["endpoint"])

    def jobs(self, name: str, side: Side) -> list[JobRecord]:
        """What a node's ledger says, newest first: finished with a receipt, then unfinished."""
        with read_ledger(self.nodes[name].paths.ledger_file) as ledger:
            finished = [record.job for record in ledger.receipts(100) if record.job.side == side]
            return finished + list(ledger.unfinished_jobs(side))

    def kill(self, name: str) -> None:
        """As `kill -9` does."""
        self.nodes[name].process.kill()
        self.nodes[name].process.wait()

    def is_running(self, name: str) -> bool:
        return self.nodes[name].process.poll() is None


def _entry_of(model: str, slots: object) -> str:
    source = f'name = "{Path(model).stem}"\npath' if "/" in model else f'name = "{model}"\nbundled'
    return f'[[executor.models]]\nslots = {slots}\n{source} = "{model}"\n'


@contextmanager
def live_market(folder: Path) -> Iterator[LiveMarket]:
    """A market whose processes are all gone when the block ends."""
    market = LiveMarket(folder)
    try:
        yield market
    finally:
        stop_all(list(market.nodes.values()))


def workers_of(node: DemoNode) -> list[int]:
    """Process ids of a node's model workers."""
    parent = node.process.pid
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == parent:
                found.append(int(entry.name))
    return found


def freeze(node: DemoNode) -> None:
    """Stop a node's workers where they are, so that jobs begin and get no further."""
    for pid in workers_of(node):
        os.kill(pid, signal.SIGSTOP)


def thaw(node: DemoNode) -> None:
    """Let frozen workers go on."""
    for pid in workers_of(node):
        os.kill(pid, signal.SIGCONT)


def cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "ryvion_node", *arguments], capture_output=True, text=True, timeout=60, check=False
    )
