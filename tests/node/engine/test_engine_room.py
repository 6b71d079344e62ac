"""Several models in the memory there is: who goes, who waits, and what can never fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import trio
from engine_support import ENDLESS, REQUEST, collect, end_of, engine_in, failure, states, until

from ryvion_node.engine.interface import ModelSpec, Piece
from ryvion_node.engine.llama_engine import LlamaEngine
from ryvion_node.engine.memory import Memory
from ryvion_node.engine.served_model import estimate_of

OTHER = replace(REQUEST, model="other")


async def test_the_least_recently_used_model_makes_room(spec: ModelSpec, home: Path) -> None:
    specs = [replace(spec, name=name, load="first-use") for name in ("small", "other", "third")]
    one = estimate_of(spec, has_gpu=False).need.host_bytes
    async with engine_in(home, *specs, room=Memory(2 * one)) as engine:
        await until(engine, "third", "unloaded")
        await collect(engine, REQUEST)
        await collect(engine, OTHER)
        assert states(engine) == ["ready", "ready", "unloaded"]
        await collect(engine, replace(REQUEST, model="third"))
        assert states(engine) == ["unloaded", "ready", "ready"]
        assert len(engine.models()) == 3


async def test_models_that_do_not_fit_together_are_all_offered(spec: ModelSpec, home: Path) -> None:
    specs = [spec, replace(spec, name="other")]
    room = estimate_of(spec, has_gpu=False).need
    async with engine_in(home, *specs, room=room) as engine:
        assert sorted(states(engine)) == ["ready", "unloaded"]
        assert len(engine.models()) == 2
        for request in (REQUEST, OTHER, REQUEST):
            assert end_of(await collect(engine, request))


async def test_a_job_waits_for_busy_models_but_not_for_ever(
    spec: ModelSpec, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ryvion_node.engine.constants.ROOM_WAIT_S", 0.1)
    room = estimate_of(spec, has_gpu=False).need
    async with engine_in(home, spec, replace(spec, name="other"), room=room) as engine:
        ready = next(status.name for status in engine.status() if status.state == "ready")
        waiting = replace(REQUEST, model="other" if ready == "small" else "small")
        async with engine.generate(replace(ENDLESS, model=ready)) as events:
            async for event in events:
                if isinstance(event, Piece):
                    break
            error = await failure(engine, waiting)
            assert error.code == "worker_crashed"
            assert "busy" in str(error)
            assert len(engine.models()) == 2
        assert end_of(await collect(engine, waiting))


async def test_a_model_that_fits_nowhere_says_what_it_takes(spec: ModelSpec) -> None:
    engine = LlamaEngine([spec], room=Memory(1_000_000))
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        await engine.settled()
        (status,) = engine.status()
        assert status.state == "broken"
        assert "MiB of main memory" in status.reason
        assert "fewer slots" in status.reason
        assert status.worker_pid == 0
        nursery.cancel_scope.cancel()
