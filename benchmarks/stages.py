"""Where the time to the first token goes on the requester's side: one line per stage, on the bundled model.

    python -m benchmarks.stages [--quick] [--json]

A real seller runs as a process of its own; the buyer is this process, with a stop watch around each stage of an order.
`share_*` is a stage's median as a share of the median time to the first token.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import trio

from ryvion_node import daemon
from ryvion_node.cli.demo.network import DemoNode, NodePlan, stop_all
from ryvion_node.config import load_config
from ryvion_node.ledger.store import SqliteLedger
from ryvion_node.market.attempt import Attempt
from ryvion_node.market.bidding import Bidding
from ryvion_node.market.buyer import Buyer
from ryvion_node.market.floor import TradingFloor
from ryvion_node.market.interface import ChatOrder, Piece
from ryvion_node.paths import make_private_folder, resolve_paths
from ryvion_protocol.messages import ChatMessage

MODEL = "ryvion-tiny"
PROMPT = "Explain a peer-to-peer compute marketplace."
STAGES: tuple[tuple[str, type, str], ...] = (
    ("count_prompt", TradingFloor, "prompt_lengths"),
    ("quote_round", Bidding, "hold_round"),
    ("write_order", SqliteLedger, "begin_job"),
    ("order_to_started", Attempt, "start"),
    ("next_piece", Attempt, "next_piece"),
)
"""Name, class, method; `order_to_started` includes `write_order`, `next_piece` every piece of the answer."""

T = TypeVar("T")
Times = dict[str, list[float]]


def watch(times: Times) -> None:
    """Put a stop watch around each stage, for this process."""
    for name, cls, method in STAGES:
        setattr(cls, method, _timed(name, getattr(cls, method), times))


def _timed(name: str, inner: Callable[..., Awaitable[T]], times: Times) -> Callable[..., Awaitable[T]]:
    async def timed(*arguments: Any, **named: Any) -> T:
        began = time.perf_counter()
        result = await inner(*arguments, **named)
        times[name].append((time.perf_counter() - began) * 1000)
        return result

    return timed


async def measure(folder: Path, orders: int) -> Times:
    """Place orders one after the other; milliseconds by stage."""
    times: Times = defaultdict(list)
    watch(times)
    place = ("--serve", MODEL, "--jurisdiction", "DE")
    seller = DemoNode(NodePlan("seller", "sells", place), folder / "seller", None)
    try:
        await trio.to_thread.run_sync(seller.wait_until_ready)
        buyers: list[Buyer] = []
        _catch_buyer(buyers)
        home = folder / "buyer"
        make_private_folder(home)
        flags: dict[str, object] = {
            "proxy.enabled": True,
            "proxy.port": 0,
            "node.listen": ["/ip4/127.0.0.1/tcp/0"],
            "node.bootstrap": [seller.address],
        }
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                partial(daemon.serve_node, load_config(None, flags), resolve_paths(home), lambda ready: None)
            )
            with trio.fail_after(30):
                while not buyers or not buyers[0].offers():  # noqa: ASYNC110 - a benchmark, not a service
                    await trio.sleep(0.1)
            await trio.sleep(1)
            for seed in range(orders + 2):
                await _order(buyers[0], seed, times)
            nursery.cancel_scope.cancel()
    finally:
        stop_all([seller])
    return {name: values[2:] for name, values in times.items()}


def _catch_buyer(found: list[Buyer]) -> None:
    made = Buyer.__init__

    def caught(self: Buyer, *arguments: Any, **named: Any) -> None:
        made(self, *arguments, **named)
        found.append(self)

    Buyer.__init__ = caught  # type: ignore[method-assign]  # the node hands out no buyer


async def _order(buyer: Buyer, seed: int, times: Times) -> None:
    order = ChatOrder(MODEL, (ChatMessage("user", PROMPT, ""),), 4, 0.7, 1.0, seed)
    began, first = time.perf_counter(), 0.0
    async with buyer.buy(order) as job:
        async for event in job.events():
            if isinstance(event, Piece) and not first:
                first = time.perf_counter()
    times["first_token"].append((first - began) * 1000)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute, coarser")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ryvion-bench-") as folder:
        times = trio.run(measure, Path(folder), 15 if options.quick else 100)
    first = median(times["first_token"])
    results = {f"{name}_ms_p50": round(median(values), 2) for name, values in times.items()}
    shares = {
        f"share_{name}": round(median(times[name]) / first, 3)
        for name in ("count_prompt", "quote_round", "write_order", "order_to_started")
    }
    if options.json:
        print(json.dumps(results | shares))
        return
    for name, value in (results | shares).items():
        print(f"{name:28} {value}")


if __name__ == "__main__":
    main()
