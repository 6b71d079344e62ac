"""What the engine's tests share: the bundled models, and engines that live for one test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import trio

import ryvion_node.models
from ryvion_node.engine.figures import FigureBook
from ryvion_node.engine.files import DigestCache
from ryvion_node.engine.interface import (
    Ended,
    Engine,
    EngineError,
    GenerationEvent,
    GenerationRequest,
    ModelSpec,
    Piece,
    PromptRead,
    Sampling,
    Turn,
)
from ryvion_node.engine.llama_engine import LlamaEngine
from ryvion_node.engine.memory import Memory
from ryvion_node.engine.served_model import ModelState
from ryvion_node.engine.worker_process import Timing

MODELS = Path(ryvion_node.models.__file__).parent
TINY = MODELS / "ryvion-tiny.Q8_0.gguf"
TERNARY = MODELS / "tinyllama.TQ2_0.gguf"
REQUEST = GenerationRequest(
    model="small",
    turns=(Turn("user", "What is the capital of France?"),),
    max_tokens=40,
    sampling=Sampling(temperature=0.0, seed=1),
)
ENDLESS = replace(REQUEST, max_tokens=480)


@asynccontextmanager
async def running(*specs: ModelSpec, timing: Timing | None = None) -> AsyncIterator[LlamaEngine]:
    """An engine whose models are all ready or broken."""
    engine = LlamaEngine(specs, timing=timing)
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        await engine.settled()
        yield engine
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def engine_in(folder: Path, *specs: ModelSpec, room: Memory | None = None) -> AsyncIterator[LlamaEngine]:
    """An engine that remembers what engines in the same folder found."""
    digests, figures = DigestCache(folder / "digests.json"), FigureBook(folder / "speeds.json")
    engine = LlamaEngine(specs, digests=digests, figures=figures, room=room)
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        with trio.fail_after(30):
            await engine.settled()
        yield engine
        nursery.cancel_scope.cancel()


async def until(engine: LlamaEngine, name: str, state: ModelState) -> None:
    with trio.fail_after(30):
        while next(status for status in engine.status() if status.name == name).state != state:
            await engine.changed(engine.revision)


def states(engine: LlamaEngine) -> list[ModelState]:
    return [status.state for status in engine.status()]


async def collect(engine: Engine, request: GenerationRequest) -> list[GenerationEvent]:
    async with engine.generate(request) as events:
        return [event async for event in events]


async def failure(engine: Engine, request: GenerationRequest) -> EngineError:
    """The error that the job must end with."""
    try:
        await collect(engine, request)
    except EngineError as exc:
        return exc
    raise AssertionError("the job did not fail")


def text_of(events: list[GenerationEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, Piece))


def tokens_of(events: list[GenerationEvent]) -> tuple[int, ...]:
    return tuple(token for event in events if isinstance(event, Piece) for token in event.tokens)


def end_of(events: list[GenerationEvent]) -> Ended:
    assert isinstance(events[0], PromptRead)
    assert isinstance(events[-1], Ended)
    return events[-1]
