"""Models that are loaded when a job wants them and unloaded when none does; templates of the owner."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from engine_support import ENDLESS, REQUEST, collect, end_of, engine_in, failure, running, states, until

from ryvion_node.engine.interface import Ended, GenerationRequest, ModelSpec


async def test_first_use_is_measured_once_then_loaded_by_jobs(spec: ModelSpec, home: Path) -> None:
    lazy = replace(spec, load="first-use")
    async with engine_in(home, lazy) as engine:
        await until(engine, "small", "unloaded")
        (measured,) = engine.models()
        assert measured.load_ms > 0
        assert measured.millitokens_per_s > 0
    async with engine_in(home, lazy) as engine:
        # This time nothing was started at all.
        assert engine.status()[0].worker_pid == 0
        (model,) = engine.models()
        assert (model.digest, model.load_ms) == (measured.digest, measured.load_ms)
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(collect, engine, REQUEST)
            nursery.start_soon(engine.count_texts, "small", ["hello"])
        assert engine.models()[0].load_ms == 0
        assert states(engine) == ["ready"]


async def test_idle_models_go_and_come_back(spec: ModelSpec, home: Path) -> None:
    async with engine_in(home, replace(spec, idle_unload_s=0.05)) as engine:
        for _ in range(2):
            await until(engine, "small", "unloaded")
            assert end_of(await collect(engine, REQUEST))


@pytest.mark.parametrize("steps", [0, 1, 2, 5])
async def test_no_job_is_lost_to_an_unload(spec: ModelSpec, home: Path, steps: int) -> None:
    """Unloads at every step that a job takes from asking to running."""
    async with running(spec) as engine, trio.open_nursery() as nursery:
        (served,) = engine._roster.entries.values()
        ends: list[Ended] = []

        async def job() -> None:
            ends.append(end_of(await collect(engine, replace(REQUEST, max_tokens=2))))

        nursery.start_soon(job)
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        served.unload()
    assert len(ends) == 1


async def test_an_open_job_keeps_the_model(spec: ModelSpec, home: Path) -> None:
    async with running(spec) as engine:
        (served,) = engine._roster.entries.values()
        async with engine.generate(ENDLESS) as events:
            async for _ in events:
                served.unload()
                assert states(engine) == ["ready"]
                break
        served.unload()
        assert states(engine) == ["unloaded"]
        assert engine.models()


async def test_a_file_that_changed_while_unloaded_is_not_served(spec: ModelSpec, home: Path, tmp_path: Path) -> None:
    path = tmp_path / "own.gguf"
    path.write_bytes(spec.path.read_bytes())
    async with engine_in(home, replace(spec, path=path, load="first-use")) as engine:
        await until(engine, "small", "unloaded")
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        error = await failure(engine, REQUEST)
        assert error.code == "model_broken"
        assert str(path) not in str(error)
        assert "SHA-256" in engine.status()[0].reason
        assert not engine.models()


@pytest.mark.parametrize("request_", [REQUEST, replace(REQUEST, max_tokens=1)], ids=["long", "short"])
async def test_death_while_loading_for_a_job(spec: ModelSpec, home: Path, request_: GenerationRequest) -> None:
    async with engine_in(home, replace(spec, load="first-use")) as engine:
        await until(engine, "small", "unloaded")
        async with trio.open_nursery() as nursery:

            async def job() -> None:
                assert (await failure(engine, request_)).code == "worker_crashed"

            nursery.start_soon(job)
            while not engine.status()[0].worker_pid or engine.status()[0].state != "loading":
                await trio.testing.wait_all_tasks_blocked(0.001)
            os.kill(engine.status()[0].worker_pid, signal.SIGKILL)
        await until(engine, "small", "ready")
        assert end_of(await collect(engine, request_))


async def test_a_template_of_the_owner(spec: ModelSpec, tmp_path: Path) -> None:
    template = tmp_path / "own.jinja"
    template.write_text("{% for message in messages %}{{ message.content }}{% endfor %}")
    async with running(spec, replace(spec, name="other", template=template, template_digest=None)) as engine:
        own, overridden = engine.models()
        assert "counted" in own.features
        assert "counted" not in overridden.features
        assert await engine.count_prompt("other", REQUEST.turns) < await engine.count_prompt("small", REQUEST.turns)


@pytest.mark.parametrize(
    ("text", "reason"),
    [("{% if %}", "not valid"), ("x" * 300_000, "limit"), (None, "cannot be read"), ("ok", "changed")],
)
async def test_a_template_that_is_none_is_named(spec: ModelSpec, tmp_path: Path, text: str | None, reason: str) -> None:
    template = tmp_path / "own.jinja"
    if text is not None:
        template.write_text(text)
    digest = b"\1" * 32 if reason == "changed" else None
    async with running(replace(spec, template=template, template_digest=digest)) as engine:
        (status,) = engine.status()
        assert status.state == "broken"
        assert reason in status.reason
        assert "own.jinja" in status.reason


async def test_the_owner_reads_in_the_log_why_a_model_is_withdrawn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="ryvion.engine"):
        async with running(ModelSpec("missing", tmp_path / "missing.gguf")):
            pass
    (said,) = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    assert "model=missing state=broken" in said
    assert "no such file" in said
