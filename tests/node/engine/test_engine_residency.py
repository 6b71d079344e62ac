"""Random jobs, deaths and idle times on models that share too little memory, in virtual time with scripted workers."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
import trio
from engine_support import TINY

from ryvion_node.engine import served_model
from ryvion_node.engine.figures import FigureBook
from ryvion_node.engine.files import DigestCache
from ryvion_node.engine.interface import EngineError, ModelSpec
from ryvion_node.engine.memory import Memory
from ryvion_node.engine.residency import Residency
from ryvion_node.engine.served_model import ServedModel, Shelf, estimate_of
from ryvion_node.engine.wire import Ready, Start
from ryvion_node.engine.worker_process import Died, End, Timing, Unloaded

pytestmark = pytest.mark.virtual_time
LOAD_S = 2.0
EXIT_S = 0.3


class ScriptedWorker:
    """Loads for a while, then serves until it is unloaded or dies; knows who is in memory."""

    in_memory: int
    most: int

    def __init__(self, _start: Start, _timing: Timing, *, walls: bool) -> None:
        self.pid = 1
        self.running = 0
        self.end: End | None = None
        self._over = trio.Event()

    async def run(self, on_ready: Callable[[Ready], None], _on_speed: object = None) -> End:
        kind = type(self)
        kind.in_memory += 1
        kind.most = max(kind.most, kind.in_memory)
        with trio.move_on_after(LOAD_S):
            await self._over.wait()
        if self.end is None:
            on_ready(Ready(b"d" * 32, (), "Q8_0", "chat", 0, 512, 1000, 1000, (1,)))
            await self._over.wait()
        await trio.sleep(EXIT_S)
        kind.in_memory -= 1
        assert self.end is not None
        return self.end

    def unload(self) -> None:
        assert not self.running
        self.stop(Unloaded())

    def stop(self, end: End) -> None:
        self.end = self.end or end
        self._over.set()


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    ScriptedWorker.in_memory = ScriptedWorker.most = 0
    monkeypatch.setattr(served_model, "WorkerProcess", ScriptedWorker)

    async def at_once(work: Callable[[], object], **_options: object) -> object:
        """Virtual time does not wait for threads."""
        return work()

    monkeypatch.setattr(trio.to_thread, "run_sync", at_once)


def shop(names: int, fit: int, *, idle_s: float | None) -> list[ServedModel]:
    """So many models of one size, of which so many fit at once."""
    spec = ModelSpec("0", TINY, load="start", idle_unload_s=idle_s)
    need = estimate_of(spec, has_gpu=False).need.host_bytes
    shelf = Shelf(DigestCache(), FigureBook(), Residency(Memory(fit * need)), Timing())
    return [ServedModel(replace(spec, name=str(number)), shelf, lambda: None) for number in range(names)]


async def job(served: ServedModel, seconds: float, ends: list[str]) -> None:
    """Uses the worker for a while; says how it went."""
    try:
        async with served.worker() as worker:
            assert isinstance(worker, ScriptedWorker)
            worker.running += 1
            await trio.sleep(seconds)
            worker.running -= 1
            end = worker.end
        ends.append("done" if end is None else type(end).__name__)
    except EngineError as exc:
        ends.append(exc.code)


async def settled(models: list[ServedModel]) -> None:
    """Until each can be served."""
    while any(served.model is None for served in models):  # noqa: ASYNC110 - virtual time
        await trio.sleep(0.1)


@pytest.mark.parametrize("seed", range(20))
async def test_every_job_is_done_while_models_take_turns(seed: int) -> None:
    chance = random.Random(seed)
    models = shop(5, 2, idle_s=chance.choice([None, 0.5, 5.0]))
    ends: list[str] = []
    async with trio.open_nursery() as nursery:
        for served in models:
            nursery.start_soon(served.supervise)
        await settled(models)
        async with trio.open_nursery() as jobs:
            for _ in range(200):
                jobs.start_soon(job, chance.choice(models), chance.choice([0.0, 0.1, 1.0]), ends)
                await trio.sleep(chance.choice([0.0, 0.01, 0.5, 2.0, 6.0]))
        nursery.cancel_scope.cancel()
    assert ends == ["done"] * 200
    assert ScriptedWorker.most <= 2


@pytest.mark.parametrize("seed", range(10))
async def test_deaths_end_jobs_with_an_error_and_nothing_else(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ryvion_node.engine.restart.MAX_QUICK_DEATHS", 1_000_000)
    chance = random.Random(seed)
    models = shop(4, 2, idle_s=1.0)
    ends: list[str] = []
    async with trio.open_nursery() as nursery:
        for served in models:
            nursery.start_soon(served.supervise)
        await settled(models)
        async with trio.open_nursery() as jobs:
            for _ in range(200):
                served = chance.choice(models)
                jobs.start_soon(job, served, chance.choice([0.0, 0.1, 1.0]), ends)
                if chance.random() < 0.1 and isinstance(served._worker, ScriptedWorker):
                    served._worker.stop(Died("a test", stalled=False))
                await trio.sleep(chance.choice([0.0, 0.01, 0.5, 2.0, 6.0]))
        # Nobody is stuck: each model serves once more.
        assert len(ends) == 200
        for served in models:
            await settled(models)
            await job(served, 0.1, ends)
        nursery.cancel_scope.cancel()
    assert set(ends) <= {"done", "Died", "worker_crashed"}
    assert ends[200:] == ["done"] * 4
    assert ScriptedWorker.most <= 2


async def test_a_model_gets_its_turn_while_others_are_in_demand() -> None:
    """Three are used nearly all the time; the fourth gets the room of the first one that pauses."""
    models = shop(4, 3, idle_s=None)
    ends: list[str] = []
    async with trio.open_nursery() as nursery:
        for served in models:
            nursery.start_soon(served.supervise)
        await settled(models)
        waiting = next(served for served in models if served.state == "unloaded")
        others = [served for served in models if served is not waiting]

        async def keep_busy(served: ServedModel) -> None:
            while len(ends) < 100:
                await job(served, 1.0, ends)
                await trio.sleep(0.01)

        async with trio.open_nursery() as jobs:
            for served in others:
                jobs.start_soon(keep_busy, served)
            began = trio.current_time()
            last: list[str] = []
            await job(waiting, 0.1, last)
            assert last == ["done"]
            assert trio.current_time() - began < 2 * (1.0 + LOAD_S + EXIT_S)
        nursery.cancel_scope.cancel()
    assert set(ends) == {"done"}
