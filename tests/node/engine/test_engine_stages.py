"""A worker that is killed at any stage of its life: a typed error, a restart, and the next job works."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
import trio
from engine_support import ENDLESS, REQUEST, collect, end_of, running

from ryvion_node.engine import worker_process
from ryvion_node.engine.interface import EngineError, ModelSpec, ScoringRequest, Turn
from ryvion_node.engine.llama_engine import LlamaEngine

KILLED_AT = """
import os, signal, sys
stage, blow, parent = sys.argv[1:]
sys.argv = ["worker", "--parent", parent]
from ryvion_node.engine import constants
constants.CALIBRATION_S = 0.02
from ryvion_node.engine.worker import llama, pipes, service
from ryvion_node.engine.worker.__main__ import main

ready = False

def strike(now):
    if now and blow == "memory":
        bytearray(1 << 62)
    elif now:
        os.kill(os.getpid(), int(blow))

def progress(self, name, before=pipes.Pipes.progress):
    strike(name == stage)
    before(self, name)

def send(self, messages, before=pipes.Pipes.send):
    global ready
    names = {type(message).__name__ for message in messages}
    before(self, messages)
    ready = ready or "Ready" in names
    strike(stage in names)

def route(self, message, before=service._Server.route):
    strike(stage == type(message).__name__)
    before(self, message)

def decode(self, before=llama.Context.decode):
    strike(ready and stage == "prompt")
    return before(self)

pipes.Pipes.progress, pipes.Pipes.send = progress, send
service._Server.route, llama.Context.decode = route, decode
main()
"""
SIGKILL, SIGSEGV, SIGABRT = 9, 11, 6

Task = Callable[[LlamaEngine], Awaitable[object]]


async def generate(engine: LlamaEngine) -> object:
    return await collect(engine, ENDLESS)


async def count(engine: LlamaEngine) -> object:
    return await engine.count_texts("small", ["hello"])


async def count_prompt(engine: LlamaEngine) -> object:
    return await engine.count_prompt("small", [Turn("user", "hello")])


async def score(engine: LlamaEngine) -> object:
    return await engine.score(ScoringRequest("small", REQUEST.turns, (300, 301, 302), REQUEST.sampling))


async def embed(engine: LlamaEngine) -> object:
    return await engine.embed("small", ["hello"])


@pytest.fixture
def killed_at(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """The first worker dies by a signal at a stage; those after it live."""

    def arm(stage: str, blow: int | str = SIGKILL) -> None:
        stages = ["never", stage]

        def command() -> list[str]:
            now = stages.pop() if len(stages) > 1 else stages[0]
            return [sys.executable, "-c", KILLED_AT, now, str(blow), str(os.getpid())]

        monkeypatch.setattr(worker_process, "worker_command", command)

    return arm


@pytest.mark.parametrize("stage", ["hashing", "loading", "testing", "measuring"])
async def test_killed_on_the_way_to_readiness(spec: ModelSpec, killed_at: Callable[..., None], stage: str) -> None:
    killed_at(stage)
    engine = LlamaEngine([spec])
    reasons: list[str] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        with trio.fail_after(30):
            while not engine.models():
                await engine.changed(engine.revision)
                reasons.append(engine.status()[0].reason)
        assert any("SIGKILL" in reason for reason in reasons)
        assert end_of(await collect(engine, REQUEST))
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("stage", "task"),
    [
        ("Generate", generate),
        ("prompt", generate),
        ("JobRead", generate),
        ("JobPiece", generate),
        ("CountTexts", count),
        ("CountPrompt", count_prompt),
        ("Score", score),
        ("Embed", embed),
    ],
)
async def test_killed_while_it_works(spec: ModelSpec, killed_at: Callable[..., None], stage: str, task: Task) -> None:
    killed_at(stage)
    async with running(spec) as engine:
        with pytest.raises(EngineError, match="SIGKILL") as caught, trio.fail_after(30):
            await task(engine)
        assert caught.value.code == "worker_crashed"
        with trio.fail_after(30):
            await engine.settled()
        assert end_of(await collect(engine, REQUEST))


@pytest.mark.parametrize(("blow", "name"), [(SIGSEGV, "SIGSEGV"), (SIGABRT, "SIGABRT"), ("memory", "MemoryError")])
async def test_faults_of_the_library_end_its_process_only(
    spec: ModelSpec, killed_at: Callable[..., None], blow: int | str, name: str
) -> None:
    killed_at("prompt", blow)
    async with running(spec) as engine:
        with pytest.raises(EngineError) as caught:
            await collect(engine, replace(REQUEST, turns=(Turn("user", "word " * 300),)))
        assert caught.value.code == "worker_crashed"
        assert name in engine.status()[0].reason
        # What the library writes names files of the owner's machine: none of it is for buyers.
        assert name != "MemoryError" or name not in str(caught.value)
        with trio.fail_after(30):
            await engine.settled()
        assert end_of(await collect(engine, REQUEST))
