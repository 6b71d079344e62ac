"""The machine's own sensors, and NVIDIA's library by its shape."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from ryvion_node.machine.fake import gpu
from ryvion_node.machine.interface import Reading
from ryvion_node.machine.nvidia import NvidiaGpus
from ryvion_node.machine.sensors import MachineSensors

SPIN = "import time\ninput()\nend = time.process_time() + 0.4\nwhile time.process_time() < end: pass\nprint(flush=True)\ninput()"


class Library:
    """pynvml's functions over one GPU with these samples."""

    NVML_ERROR_NOT_FOUND = 6

    class NVMLError(Exception):
        def __init__(self, value: int) -> None:
            self.value = value

    def __init__(self, samples: list[tuple[int, int, int]] | int, percent: int = 80) -> None:
        self.samples, self.percent = samples, percent
        self.asked_since: list[int] = []

    def nvmlInit(self) -> None: ...

    def nvmlDeviceGetCount(self) -> int:
        return 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, _handle: int) -> str:
        return "Fake RTX"

    def nvmlDeviceGetUtilizationRates(self, _handle: int) -> SimpleNamespace:
        return SimpleNamespace(gpu=self.percent)

    def nvmlDeviceGetMemoryInfo(self, _handle: int) -> SimpleNamespace:
        return SimpleNamespace(total=100, used=40)

    def nvmlDeviceGetTemperature(self, _handle: int, _sensor: int) -> int:
        return 61

    def nvmlDeviceGetPowerUsage(self, _handle: int) -> int:
        raise self.NVMLError(3)

    def nvmlDeviceGetProcessUtilization(self, _handle: int, since: int) -> list[SimpleNamespace]:
        self.asked_since.append(since)
        if isinstance(self.samples, int):
            raise self.NVMLError(self.samples)
        return [SimpleNamespace(pid=pid, timeStamp=at, smUtil=load) for pid, at, load in self.samples]


def test_load_is_split_by_process_and_the_newest_sample_counts() -> None:
    library = Library([(7, 100, 90), (7, 200, 10), (8, 150, 30), (9, 150, 25)])
    gpus = NvidiaGpus(library)
    (state,) = gpus.read({8})
    assert (state.name, state.percent, state.others_percent) == ("Fake RTX", 80, 35)
    assert (state.memory_bytes, state.memory_used_bytes, state.celsius, state.milliwatts) == (100, 40, 61, None)
    gpus.read({8})
    assert library.asked_since == [0, 200]


@pytest.mark.parametrize(
    ("samples", "percent", "own", "others"),
    [(6, 80, {8}, 0), (3, 80, {8}, None), (3, 80, set(), 80), ([(7, 1, 90)], 0, set(), 0)],
)
def test_drivers_that_tell_less(
    samples: list[tuple[int, int, int]] | int, percent: int, own: set[int], others: int | None
) -> None:
    (state,) = NvidiaGpus(Library(samples, percent)).read(own)
    assert state.others_percent == others


def test_without_a_driver_there_are_no_gpus() -> None:
    assert NvidiaGpus().read(()) == () or Path("/dev/nvidiactl").exists()


@pytest.fixture
def worker() -> Iterator[subprocess.Popen[bytes]]:
    """A process that takes 0.4 s of processor time once it is told to, and says when it has."""
    with subprocess.Popen([sys.executable, "-c", SPIN], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        yield child
        child.kill()


async def test_own_processes_are_not_others(worker: subprocess.Popen[bytes]) -> None:
    assert worker.stdin is not None
    assert worker.stdout is not None
    theirs, named = (MachineSensors(lambda _: (), family=list) for _ in range(2))
    children = MachineSensors(lambda _: ())
    await named.read({worker.pid})
    worker.stdin.write(b"\n")
    worker.stdin.flush()
    worker.stdout.readline()
    seen = await theirs.read(())
    for sensors, own in ((named, {worker.pid}), (children, set[int]())):
        assert 0 <= (await sensors.read(own)).others_cpu_percent < seen.others_cpu_percent <= 100
    assert isinstance(seen.on_battery, bool)


def test_the_busiest_gpu_counts() -> None:
    assert Reading((gpu(5), gpu(40), gpu(None)), 0, on_battery=False).others_gpu_percent == 40
    assert Reading((gpu(None),), 0, on_battery=False).others_gpu_percent is None
