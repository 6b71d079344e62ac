"""Workers that die, hang or cannot start: their jobs fail with a reason, everything else goes on."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from engine_support import ENDLESS, REQUEST, TINY, collect, end_of, failure, running

from ryvion_node.engine import served_model, worker_process
from ryvion_node.engine.counter import VocabCounter
from ryvion_node.engine.devices import list_devices, processor
from ryvion_node.engine.interface import EngineError, GenerationEvent, GenerationRequest, ModelSpec, Piece
from ryvion_node.engine.llama_engine import LlamaEngine
from ryvion_node.engine.restart import Restart, RestartPolicy
from ryvion_node.engine.worker_process import Timing, worker_environment


async def restarted(engine: LlamaEngine) -> None:
    with trio.fail_after(30):
        await engine.settled()
    assert engine.models()


async def struck(
    engine: LlamaEngine, request: GenerationRequest, blow: signal.Signals, at: type[GenerationEvent] | None
) -> None:
    """Run a job and signal its worker at the first event of a kind, or at once; ends with the job's error."""
    pid = engine.status()[0].worker_pid
    async with engine.generate(request) as events:
        if at is None:
            os.kill(pid, blow)
        async for event in events:
            if at is not None and isinstance(event, at):
                os.kill(pid, blow)
                at = None


async def test_kill_while_decoding(spec: ModelSpec) -> None:
    async with running(spec) as engine:
        with pytest.raises(EngineError, match="SIGKILL") as caught:
            await struck(engine, ENDLESS, signal.SIGKILL, Piece)
        assert caught.value.code == "worker_crashed"
        assert not engine.models()
        assert engine.status()[0].state == "restarting"
        assert (await failure(engine, REQUEST)).code == "worker_crashed"
        await restarted(engine)
        assert end_of(await collect(engine, REQUEST))


async def test_three_quick_deaths_withdraw_the_model(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ryvion_node.engine.restart.RESTART_DELAYS_S", (0.0,))
    async with running(spec) as engine:
        for _ in range(3):
            revision = engine.revision
            os.kill(engine.status()[0].worker_pid, signal.SIGABRT)
            await engine.changed(revision)
            await engine.settled()
        assert not engine.models()
        (status,) = engine.status()
        assert status.state == "broken"
        assert "withdrawn" in status.reason
        assert "SIGABRT" in status.reason
        assert (await failure(engine, REQUEST)).code == "model_broken"


async def test_a_hang_is_noticed(spec: ModelSpec) -> None:
    async with running(spec, timing=Timing(step_stall_s=0.3, ping_every_s=0.1)) as engine:
        with pytest.raises(EngineError) as caught:
            await struck(engine, ENDLESS, signal.SIGSTOP, Piece)
        assert caught.value.code == "worker_stalled"
        await restarted(engine)


async def test_a_long_queue_is_no_hang(spec: ModelSpec) -> None:
    text = "The capital of France is Paris. " * 20_000
    async with (
        running(spec, timing=Timing(step_stall_s=1.0, ping_every_s=0.1)) as engine,
        trio.open_nursery() as nursery,
    ):
        for _ in range(30):  # a tenth of a second each, one after the other
            nursery.start_soon(engine.count_texts, "small", [text])


async def test_a_hang_while_loading_is_noticed(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served_model, "RestartPolicy", lambda: _Patient())
    engine = LlamaEngine([spec], timing=Timing(load_stall_s=0.2))
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        await trio.testing.wait_all_tasks_blocked()
        os.kill(engine.status()[0].worker_pid, signal.SIGSTOP)
        await engine.changed(engine.revision)
        assert "no progress" in engine.status()[0].reason
        nursery.cancel_scope.cancel()


class _Patient(RestartPolicy):
    def died(self, lived_s: float) -> Restart:
        return Restart(1000.0)


async def test_wrong_files_are_named_and_the_others_serve(spec: ModelSpec, tmp_path: Path) -> None:
    specs = [spec, ModelSpec("missing", tmp_path / "missing.gguf"), replace(spec, name="digest", digest=b"\1" * 32)]
    async with running(*specs) as engine:
        assert [model.name for model in engine.models()] == ["small"]
        for status in engine.status()[1:]:
            assert status.state == "broken"
            assert ".gguf" in status.reason
            error = await failure(engine, replace(REQUEST, model=status.name))
            assert error.code == "model_broken"
            # A buyer has no use for the owner's paths.
            assert str(error) == f"{status.name} cannot be served; the log of its node says why"
        assert "SHA-256" in engine.status()[2].reason
        assert end_of(await collect(engine, REQUEST))


async def test_impossible_contexts_are_refused(spec: ModelSpec) -> None:
    async with running(replace(spec, context_tokens=10_000_000)) as engine:
        assert "trained with" in engine.status()[0].reason


async def test_a_counter_survives_death_and_damage(tmp_path: Path) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF")
    counter = VocabCounter({b"good": TINY, b"bad": bad})
    async with trio.open_nursery() as nursery:
        await nursery.start(counter.run)
        first = await counter.count_texts(b"good", ["hello"])
        for meter in counter._meters.values():
            if meter._worker is not None:
                os.kill(meter._worker.pid, signal.SIGKILL)
                await meter._settled.wait()
        while counter._meters[b"good"]._worker is not None:
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert await counter.count_texts(b"good", ["hello"]) == first
        for _ in range(2):
            with pytest.raises(EngineError) as caught:
                await counter.count_texts(b"bad", ["hello"])
            assert caught.value.code == "model_broken"
        with pytest.raises(EngineError) as caught:
            await counter.count_texts(b"other", ["hello"])
        assert caught.value.code == "model_unknown"
        nursery.cancel_scope.cancel()


WITHOUT_LLAMA = """
import sys
sys.modules["llama_cpp"] = None
sys.argv = ["worker", "--parent", sys.argv[1]]
from ryvion_node.engine.worker.__main__ import main
main()
"""


async def test_a_missing_llama_cpp_is_said_with_the_mend(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-c", WITHOUT_LLAMA, str(os.getpid())]
    monkeypatch.setattr(worker_process, "worker_command", lambda: command)
    async with running(spec) as engine:
        (status,) = engine.status()
        assert status.state == "broken"
        assert "executor" in status.reason


async def test_a_process_that_cannot_start_is_tried_again(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ryvion_node.engine.restart.RESTART_DELAYS_S", (0.0,))
    monkeypatch.setattr(worker_process, "worker_command", lambda: ["/nonexistent"])
    async with running(spec) as engine:
        assert "no process could be started" in engine.status()[0].reason


PARENT = """
import sys, trio
from ryvion_node.engine.interface import ModelSpec
from ryvion_node.engine.llama_engine import LlamaEngine
from pathlib import Path

async def main():
    engine = LlamaEngine([ModelSpec("tiny", Path(sys.argv[1]), threads=1)])
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        await engine.settled()
        print(engine.status()[0].worker_pid, flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


def test_the_worker_dies_with_its_parent() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(TINY)], stdout=subprocess.PIPE, env=worker_environment()
    )
    assert parent.stdout is not None
    with parent, parent.stdout:
        worker = int(parent.stdout.readline())
        watched = os.pidfd_open(worker)
        assert os.getpgid(worker) != os.getpgid(parent.pid)
        parent.kill()
        # The descriptor becomes readable when the process is gone.
        assert select.select([watched], [], [], 10)[0]
        os.close(watched)


def test_the_worker_gets_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWNERS_TOKEN", "secret")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    environment = worker_environment()
    assert "OWNERS_TOKEN" not in environment
    assert environment["CUDA_VISIBLE_DEVICES"] == "0"


async def test_devices_are_listed() -> None:
    found = await list_devices()
    assert not found.problem
    assert found.best.name
    assert found.best.memory_bytes > 0


def test_the_processor_has_a_name(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nmodel name\t: Quick 9000\n")
    assert processor(cpuinfo).name == "Quick 9000"
    assert processor(tmp_path / "none").name
