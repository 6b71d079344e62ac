"""What the marketplace costs: the same jobs straight in the engine worker, and through endpoint, auction, libp2p
and receipt, in one run.

    python -m benchmarks.overhead [--quick] [--json] [--parameters 100000000]

Prints ratios; `ttft_added_ms_*` is the time to the first token through the market less the time straight, and
`throughput_ratio_N` the tokens/s through the market over the tokens/s straight with N jobs at once.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import trio
from tiny_model.random_model import write_random_model

from benchmarks.nodes import BenchNode, local_model, running_market
from ryvion_node.engine.interface import Ended, GenerationRequest, ModelSpec, Piece, Sampling, Turn
from ryvion_node.engine.llama_engine import LlamaEngine

MODEL = "bench"
PROMPT = "Describe a marketplace in which anybody may sell the time of a graphics card, and what could go wrong in it."
SLOTS = 8


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure."""

    parameters: int
    first_token_pairs: int
    throughput_rounds: int
    answer_tokens: int


QUICK = Plan(parameters=100_000_000, first_token_pairs=10, throughput_rounds=1, answer_tokens=32)
FULL = Plan(parameters=100_000_000, first_token_pairs=60, throughput_rounds=5, answer_tokens=96)


@dataclass(frozen=True, slots=True)
class Run:
    """One job: seconds to its first token and to its end."""

    first_s: float
    total_s: float


Job = Callable[[int, int], Awaitable[Run]]
"""(max_tokens, seed) -> how long it took."""


def straight(engine: LlamaEngine) -> Job:
    """Jobs given to the engine worker directly."""

    async def run(max_tokens: int, seed: int) -> Run:
        request = GenerationRequest(
            MODEL, (Turn("user", PROMPT),), max_tokens, Sampling(0.7, 1.0, seed), owner=b"bench"
        )
        began, first = trio.current_time(), 0.0
        async with engine.generate(request) as events:
            async for event in events:
                if isinstance(event, Piece) and event.text and not first:
                    first = trio.current_time()
                if isinstance(event, Ended):
                    break
        return Run(first - began, trio.current_time() - began)

    return run


def through_market(client: httpx.AsyncClient, node: BenchNode) -> Job:
    """The same jobs through the local endpoint, as a user's client sends them."""
    headers = {"Authorization": f"Bearer {node.api_key}"}

    async def run(max_tokens: int, seed: int) -> Run:
        body: dict[str, Any] = {
            "model": MODEL,
            "messages": [{"role": "user", "content": PROMPT}],
            "max_tokens": max_tokens,
            "temperature": 0.7,
            "seed": seed,
            "stream": True,
        }
        began, first, finished, last = trio.current_time(), 0.0, False, ""
        async with client.stream("POST", f"{node.endpoint}/chat/completions", json=body, headers=headers) as response:
            async for line in response.aiter_lines():
                last = line or last
                if not line.startswith("data: {"):
                    continue
                chunk = json.loads(line.removeprefix("data: "))
                choice = chunk["choices"][0]
                if not first and choice["delta"].get("content"):
                    first = trio.current_time()
                if choice["finish_reason"] is not None:
                    finished = bool(chunk["ryvion"]["accepted"])
        assert finished, f"status {response.status_code}, no finish chunk, last was: {last}"
        return Run(first - began, trio.current_time() - began)

    return run


async def first_token_added_ms(direct: Job, market: Job, pairs: int) -> list[float]:
    """Differences of pairs run one after the other, so that the machine's moods hit both."""
    added = []
    for number in range(pairs):
        alone = await direct(4, number)
        bought = await market(4, number)
        added.append((bought.first_s - alone.first_s) * 1000)
    return sorted(added)


async def throughput_ratio(direct: Job, market: Job, at_once: int, plan: Plan) -> float:
    """Time of the same set of jobs straight, over their time through the market; the median of several rounds."""

    async def together(job: Job) -> float:
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for seed in range(at_once):
                nursery.start_soon(job, plan.answer_tokens, seed)
        return trio.current_time() - began

    ratios = []
    for _ in range(plan.throughput_rounds):
        straight_s = await together(direct)
        market_s = await together(market)
        ratios.append(straight_s / market_s)
    return median(ratios)


async def measure(plan: Plan, model: Path, folder: Path) -> dict[str, Any]:
    """Everything, on one model."""
    async with trio.open_nursery() as nursery:
        engine = LlamaEngine([ModelSpec(MODEL, model, slots=SLOTS)])
        await nursery.start(engine.run)
        await engine.settled()
        with running_market(folder, local_model(MODEL, model, SLOTS)) as buyer:
            async with httpx.AsyncClient(trust_env=False, timeout=120) as client:
                direct, market = straight(engine), through_market(client, buyer)
                for job in (direct, market):
                    await job(4, 0)
                added = await first_token_added_ms(direct, market, plan.first_token_pairs)
                one = await throughput_ratio(direct, market, 1, plan)
                eight = await throughput_ratio(direct, market, SLOTS, plan)
        nursery.cancel_scope.cancel()
    return {
        "ttft_added_ms_p50": round(median(added), 1),
        "ttft_added_ms_p95": round(added[int(0.95 * (len(added) - 1))], 1),
        "throughput_ratio_1": round(one, 3),
        "throughput_ratio_8": round(eight, 3),
    }


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute, coarser")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    plan = QUICK if options.quick else FULL
    with tempfile.TemporaryDirectory(prefix="ryvion-bench-") as name:
        folder = Path(name)
        model = folder / "bench.gguf"
        write_random_model(model, plan.parameters)
        results = trio.run(measure, plan, model, folder)
    if options.json:
        print(json.dumps(results))
        return
    print(f"{plan.parameters / 1e6:.0f}M random parameters, Q8_0, {os.cpu_count()} cores, {platform.machine()}")
    for name, value in results.items():
        print(f"{name:24} {value}")


if __name__ == "__main__":
    main()
