"""A real worker under many jobs: long prompts, a thousand jobs, owners with a cache."""

from __future__ import annotations

from dataclasses import replace

import psutil
import pytest
import trio
from engine_support import REQUEST, TINY, collect, end_of, running, text_of

from ryvion_node.engine.interface import GenerationEvent, ModelSpec, Piece, PromptRead, Turn
from ryvion_node.engine.llama_engine import LlamaEngine

WARM_UP_JOBS, MORE_JOBS = 200, 1000
GROWTH_BYTES = 8 * 1024**2
"""The allocator's moods; a leak of a prompt's tokens per job would be more."""


def cached_tokens(events: list[GenerationEvent]) -> int:
    read = events[0]
    assert isinstance(read, PromptRead)
    return read.cached_tokens


async def test_a_prompt_is_found_by_its_owner_only(spec: ModelSpec) -> None:
    async with running(spec) as engine:
        prompt_tokens = await engine.count_prompt("small", REQUEST.turns)
        cold = await collect(engine, REQUEST)
        first, again, other, nobody = [
            await collect(engine, replace(REQUEST, owner=owner)) for owner in (b"a" * 32, b"a" * 32, b"b" * 32, b"")
        ]
    assert [cached_tokens(events) for events in (first, again, other, nobody)] == [0, prompt_tokens - 1, 0, 0]
    assert {text_of(events) for events in (cold, first, other, nobody)} == {text_of(cold)}
    assert end_of(again).completion_tokens > 0


async def test_long_prompts_and_short_ones_share_the_worker(spec: ModelSpec) -> None:
    """Tokens of a running job come between the chunks of two prompts that fill their context."""
    order: list[str] = []
    begun = trio.Event()

    async def run(name: str, words: int, max_tokens: int) -> None:
        request = replace(REQUEST, turns=(Turn("user", "word " * words),), max_tokens=max_tokens)
        async with engine.generate(request) as events:
            async for event in events:
                if isinstance(event, Piece):
                    order.extend(name for _ in event.tokens)
                    begun.set()

    async with running(spec) as engine:
        assert await engine.count_prompt("small", (Turn("user", "word " * 460),)) > 450
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, "short", 1, 200)
            await begun.wait()
            nursery.start_soon(run, "long", 460, 4)
            nursery.start_soon(run, "longer", 480, 4)
    assert order.count("short") == 200
    assert order.count("long") == order.count("longer") == 4
    assert order.index("longer") > order.index("short")


@pytest.mark.slow
@pytest.mark.timeout(60)
async def test_memory_is_stable_over_a_thousand_jobs() -> None:
    done = 0

    async def jobs(engine: LlamaEngine, count: int) -> None:
        nonlocal done
        for _ in range(count):
            done += 1
            # A new text and one of many owners each time: nothing may be kept for ever.
            turns = (Turn("user", f"What is {done} and {done * 7}?"),)
            request = replace(REQUEST, model="tiny", turns=turns, max_tokens=3, owner=b"%32d" % (done % 50))
            assert end_of(await collect(engine, request))

    async def batch(engine: LlamaEngine, count: int) -> int:
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(jobs, engine, count // 4)
        return int(psutil.Process(engine.status()[0].worker_pid).memory_info().rss)

    async with running(ModelSpec(name="tiny", path=TINY, slots=4, threads=1)) as engine:
        before = await batch(engine, WARM_UP_JOBS)
        after = await batch(engine, MORE_JOBS)
    assert done == WARM_UP_JOBS + MORE_JOBS
    assert after - before < GROWTH_BYTES
