"""Our endpoint against LiteLLM's proxy, what a user would pick instead, on the same engine in one run.

    python -m benchmarks.gateway [--quick] [--json] [--litellm FOLDER] [--litellm-workers 1]

The engine answers at 500 tokens/s a stream and costs next to nothing. Three paths lead to it: straight, through
LiteLLM's proxy, and through our endpoint, auction, libp2p, a seller's node and both ledgers. 1, 8 and 32 clients at
once send one request after the other; the paths take turns, and every answer is checked to be the engine's.

`ttft_ratio_N` is the time that we add to the first token over what LiteLLM adds, `rps_ratio_N` our requests/s over
LiteLLM's, each with N streams; `rps_limit_N` is the engine's own requests/s over LiteLLM's, which no gateway can pass.
`scripts/client_envs litellm-proxy` makes LiteLLM's environment.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import trio

from benchmarks.bystanders import Bystanders
from benchmarks.gateway_report import table
from benchmarks.litellm_proxy import ENVIRONMENT, find_proxy, litellm_proxy
from benchmarks.load import Load, Target, put_load
from benchmarks.nodes import remote_model, running_market
from benchmarks.processes import cpu_s, free_port, running
from benchmarks.upstream import MODEL, answer_text

STREAMS = (1, 8, 32)
SLOTS = 64
"""Of the seller: more than streams at once, so that none waits for the last one's settlement."""
PATHS = ("direct", "litellm", "ours")


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure."""

    rounds: int
    requests: Mapping[int, int]
    """Streams at once -> requests of a path in a round."""
    answer_tokens: int


QUICK = Plan(rounds=1, requests={1: 8, 8: 24, 32: 48}, answer_tokens=50)
FULL = Plan(rounds=5, requests={1: 20, 8: 80, 32: 160}, answer_tokens=50)


@dataclass(frozen=True, slots=True)
class Way:
    """One way to the engine, and the processes that it takes."""

    target: Target
    pids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Turn:
    """What a path did in one round with a number of streams."""

    load: Load
    cpu_ms: float
    """Of its own processes, for each request."""


@asynccontextmanager
async def paths(folder: Path, litellm: Path, workers: int, answer_tokens: int) -> AsyncIterator[dict[str, Way]]:
    """All three, ready."""
    command = find_proxy(litellm)
    port = free_port()
    serve = [sys.executable, "-m", "benchmarks.upstream", str(port), "--answer-tokens", str(answer_tokens)]
    async with running(serve, port, "/v1/models", log=folder / "upstream.log"):
        url = f"http://127.0.0.1:{port}/v1"
        async with litellm_proxy(command, folder, url, workers) as (theirs, pid):
            with running_market(folder, remote_model(MODEL, url, SLOTS)) as node:
                yield {
                    "direct": Way(Target(url, "none", MODEL), ()),
                    "litellm": Way(theirs, (pid,)),
                    "ours": Way(Target(node.endpoint, node.api_key, MODEL), (node.buyer_pid, node.seller_pid)),
                }


async def measure(plan: Plan, folder: Path, litellm: Path, workers: int) -> dict[str, Any]:
    """Everything."""
    turns: dict[tuple[str, int], list[Turn]] = {(name, streams): [] for name in PATHS for streams in STREAMS}
    async with paths(folder, litellm, workers, plan.answer_tokens) as ways:
        expected = answer_text(plan.answer_tokens)
        for way in ways.values():
            await put_load(way.target, 4, 8, expected)
        bystanders = Bystanders()
        for _ in range(plan.rounds):
            for streams in STREAMS:
                for name, way in ways.items():
                    turns[name, streams].append(await _turn(way, streams, plan.requests[streams], expected))
        busy = bystanders.share()
    return _results(turns) | {
        "busy_elsewhere": round(busy, 3),
        "answer_tokens": plan.answer_tokens,
        "litellm_workers": workers,
    }


async def _turn(way: Way, streams: int, requests: int, expected: str) -> Turn:
    before_s = sum(map(cpu_s, way.pids))
    load = await put_load(way.target, streams, requests, expected)
    return Turn(load, 1000 * (sum(map(cpu_s, way.pids)) - before_s) / requests)


def _results(turns: Mapping[tuple[str, int], list[Turn]]) -> dict[str, Any]:
    ratios: dict[str, float] = {}
    details: dict[str, dict[str, dict[str, float]]] = {}
    for streams in STREAMS:
        details[str(streams)] = {name: _summary(turns[name, streams]) for name in PATHS}
        direct, theirs, ours = (details[str(streams)][name] for name in PATHS)
        for way in (theirs, ours):
            way["ttft_added_ms"] = round(way["ttft_ms"] - direct["ttft_ms"], 1)
        ratios[f"ttft_ratio_{streams}"] = round(ours["ttft_added_ms"] / theirs["ttft_added_ms"], 3)
        ratios[f"rps_ratio_{streams}"] = round(ours["rps"] / theirs["rps"], 3)
        ratios[f"rps_limit_{streams}"] = round(direct["rps"] / theirs["rps"], 3)
    return ratios | {"details": details}


def _summary(turns: list[Turn]) -> dict[str, float]:
    firsts = [first for turn in turns for first in turn.load.first_ms]
    return {
        "ttft_ms": round(median(firsts), 1),
        "rps": round(median(turn.load.requests_per_s for turn in turns), 2),
        "cpu_ms": round(median(turn.cpu_ms for turn in turns), 1),
    }


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute, coarser")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--litellm", metavar="FOLDER", type=Path, default=ENVIRONMENT, help="its environment")
    parser.add_argument("--litellm-workers", type=int, default=1, help="its worker processes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ryvion-bench-") as name:
        plan = QUICK if options.quick else FULL
        results = trio.run(measure, plan, Path(name), options.litellm, options.litellm_workers)
    print(json.dumps(results) if options.json else table(results))


if __name__ == "__main__":
    main()
