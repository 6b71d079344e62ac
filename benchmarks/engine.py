"""Our worker against llama-server and against itself one job at a time: N jobs at once, in one run.

    python -m benchmarks.engine [--quick] [--json] [--llama-server PATH] [--report docs/benchmarks]

Prints ratios of tokens/s, prompts included: `vs_server_N` ours over the server's, `vs_serial_N` N jobs at once over the
same jobs one after the other. Both engines get the same file, threads, slots and context, both stream, neither keeps
prompts; their rounds alternate. `scripts/build_llama_server` builds a llama-server from the very llama.cpp that our
worker runs; without one the reference is llama-cpp-python's own server, which serves one job at a time. Other programs
disturb the three unequally, so rounds in which they took more than a little of the processors are left out where quieter
ones are there; `busy_elsewhere` is what they took of those that count.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import trio
from tiny_model.random_model import write_random_model

from benchmarks.bystanders import Bystanders
from benchmarks.engine_report import table, write_report
from benchmarks.servers import Settings, find_server, serving, token_times
from ryvion_node.engine.interface import GenerationRequest, ModelSpec, Piece, Sampling, Turn
from ryvion_node.engine.llama_engine import LlamaEngine
from ryvion_node.engine.worker.processors import compute_threads

MODEL = "bench"
PROMPT = "Describe a marketplace in which anybody may sell the time of a graphics card, and what could go wrong in it."
SIZES = (1, 2, 4, 8, 16)
CONTEXT_TOKENS = 512
TICK_S = 0.005
QUIET_SHARE = 0.05
"""Of the processors, taken by other programs: less is a quiet round."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure."""

    parameters: int
    rounds: int
    """Quiet ones that are wanted of each number of jobs."""
    seconds: float
    """No further round of a number of jobs begins after this time."""
    answer_tokens: int
    serial_jobs: int
    """So many jobs one after the other stand for any number of them."""
    lag_tokens: int


QUICK = Plan(parameters=200_000_000, rounds=3, seconds=4, answer_tokens=32, serial_jobs=2, lag_tokens=32)
FULL = Plan(parameters=200_000_000, rounds=7, seconds=120, answer_tokens=64, serial_jobs=4, lag_tokens=160)

Job = Callable[[str, int], Awaitable[list[float]]]
"""(prompt, tokens) -> when each token came."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One contestant's part of a round."""

    tokens_per_s: float
    token_ms: tuple[float, ...]
    """From a job's first token to its last, by tokens: one figure a job."""
    gaps_ms: tuple[float, ...]
    """Between the tokens of a job; those that come in lots are no time apart."""


@dataclass(frozen=True, slots=True)
class Round:
    """The three contestants, one right after the other."""

    ours: Sample
    server: Sample
    serial: Sample
    busy_elsewhere: float


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which that share of all lies."""
    ordered = sorted(values)
    return ordered[round(share * (len(ordered) - 1))]


async def timed(job: Job, prompts: Sequence[str], tokens: int, *, at_once: bool) -> Sample:
    """Jobs all at once or one after the other."""
    times: list[list[float]] = []

    async def run(prompt: str) -> None:
        times.append(await job(prompt, tokens))

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for prompt in prompts:
            if at_once:
                nursery.start_soon(run, prompt)
            else:
                await run(prompt)
    seconds = trio.current_time() - began
    each_ms = (1000 * (each[-1] - each[0]) / (len(each) - 1) for each in times if len(each) > 1)
    gaps_ms = (1000 * (after - before) for each in times for before, after in itertools.pairwise(each))
    return Sample(sum(map(len, times)) / seconds, tuple(each_ms), tuple(gaps_ms))


@asynccontextmanager
async def our_engine(settings: Settings) -> AsyncIterator[Job]:
    """Jobs given to our worker."""
    spec = ModelSpec(
        MODEL,
        settings.model,
        slots=settings.slots,
        context_tokens=settings.context_tokens,
        threads=settings.threads,
    )
    engine = LlamaEngine([spec])

    async def run(prompt: str, tokens: int) -> list[float]:
        times: list[float] = []
        request = GenerationRequest(MODEL, (Turn("user", prompt),), tokens, Sampling(0.0))
        async with engine.generate(request) as events:
            async for event in events:
                if isinstance(event, Piece):
                    times += [trio.current_time()] * len(event.tokens)
        return times

    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        await engine.settled()
        yield run
        nursery.cancel_scope.cancel()


async def measure_size(size: int, plan: Plan, model: Path, reference: tuple[str, list[str]]) -> list[Round]:
    """Rounds with `size` jobs: the quiet ones, or all if there are none."""
    settings = Settings(model, size, CONTEXT_TOKENS, compute_threads())
    rounds: list[Round] = []
    async with our_engine(settings) as ours, serving(*reference, settings) as port:

        async def server(prompt: str, tokens: int) -> list[float]:
            return await token_times(port, prompt, tokens)

        for job in (ours, server):
            await timed(job, _prompts(size, -1), 4, at_once=True)
        end = trio.current_time() + plan.seconds
        while len(_quiet(rounds)) < plan.rounds and (not rounds or trio.current_time() < end):
            prompts, bystanders = _prompts(size, len(rounds)), Bystanders()
            rounds.append(
                Round(
                    await timed(ours, prompts, plan.answer_tokens, at_once=True),
                    await timed(server, prompts, plan.answer_tokens, at_once=True),
                    await timed(ours, prompts[: plan.serial_jobs], plan.answer_tokens, at_once=False),
                    bystanders.share(),
                )
            )
    return _quiet(rounds) or rounds


def _quiet(rounds: Sequence[Round]) -> list[Round]:
    return [each for each in rounds if each.busy_elsewhere <= QUIET_SHARE]


def _summary(parts: Sequence[Sample]) -> dict[str, float]:
    token_ms = [each for part in parts for each in part.token_ms]
    gaps_ms = [gap for part in parts for gap in part.gaps_ms]
    return {
        "tokens_per_s": round(median(part.tokens_per_s for part in parts), 1),
        "token_ms_p50": round(median(token_ms), 1),
        "gap_ms_p95": round(percentile(gaps_ms, 0.95), 1),
    }


def _prompts(count: int, number: int) -> list[str]:
    """No two alike, so that nothing is found in a cache."""
    return [f"{number}.{each}: {PROMPT}" for each in range(count)]


async def loop_lag_ms(plan: Plan, model: Path) -> float:
    """How late a timer of this process fires while its worker is saturated and all tokens are read; p99."""
    late: list[float] = []
    settings = Settings(model, SIZES[-1], CONTEXT_TOKENS, compute_threads())

    async def tick() -> None:
        while True:
            due = trio.current_time() + TICK_S
            await trio.sleep_until(due)
            late.append((trio.current_time() - due) * 1000)

    async with our_engine(settings) as ours, trio.open_nursery() as nursery:
        nursery.start_soon(tick)
        await timed(ours, _prompts(settings.slots, 0), plan.lag_tokens, at_once=True)
        nursery.cancel_scope.cancel()
    return percentile(late, 0.99)


async def measure(plan: Plan, model: Path, llama_server: str | None) -> dict[str, Any]:
    """Everything, on one model."""
    reference = find_server(llama_server)
    results: dict[str, Any] = {"server": reference[0]}
    details: dict[str, dict[str, dict[str, float]]] = {}
    busy: list[float] = []
    for size in SIZES:
        rounds = await measure_size(size, plan, model, reference)
        # Of each round, so that the machine's moods hit both alike.
        over_server = median(each.ours.tokens_per_s / each.server.tokens_per_s for each in rounds)
        over_serial = median(each.ours.tokens_per_s / each.serial.tokens_per_s for each in rounds)
        results |= {f"vs_server_{size}": round(over_server, 3), f"vs_serial_{size}": round(over_serial, 3)}
        details[str(size)] = {
            "ours": _summary([each.ours for each in rounds]),
            "server": _summary([each.server for each in rounds]),
            "serial": _summary([each.serial for each in rounds]),
        }
        busy += [each.busy_elsewhere for each in rounds]
    results["busy_elsewhere"] = round(max(busy), 3)
    results["lag_p99_ms"] = round(await loop_lag_ms(plan, model), 1)
    return {**results, "parameters": plan.parameters, "threads": compute_threads(), "details": details}


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute, coarser")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--llama-server", metavar="PATH", help="the reference; else the one on PATH")
    parser.add_argument("--report", metavar="FOLDER", type=Path, help="also write engine.md and engine.svg there")
    options = parser.parse_args()
    plan = QUICK if options.quick else FULL
    with tempfile.TemporaryDirectory(prefix="ryvion-bench-") as name:
        model = Path(name) / "bench.gguf"
        write_random_model(model, plan.parameters)
        results = trio.run(measure, plan, model, options.llama_server)
    if options.report:
        write_report(options.report, results)
    print(json.dumps(results) if options.json else table(results))


if __name__ == "__main__":
    main()
