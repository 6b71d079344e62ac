"""What hardware models run on here: for the doctor and the offer."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import trio

from ryvion_node.engine.worker_process import worker_command, worker_environment

DeviceKind = Literal["cpu", "gpu", "igpu", "accelerator"]
_LIST_TIMEOUT_S = 30.0
"""The first use of a GPU driver can take seconds."""


@dataclass(frozen=True, slots=True)
class Device:
    """One device that llama.cpp can compute on."""

    backend: str
    """ggml's name, e.g. CUDA0, Metal, CPU."""
    name: str
    kind: DeviceKind
    memory_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class DeviceList:
    """The devices; if llama.cpp could not be asked, only the CPU, and the reason."""

    devices: tuple[Device, ...]
    problem: str = ""

    @property
    def best(self) -> Device:
        """What the offer names: the GPU with most memory, else the CPU."""
        gpus = [device for device in self.devices if device.kind in ("gpu", "igpu")]
        return max(gpus or self.devices, key=lambda device: (device.kind == "gpu", device.memory_bytes))


async def list_devices() -> DeviceList:
    """Ask llama.cpp in a child process, so that a broken driver cannot hurt the node."""
    problem = "it did not answer"
    with trio.move_on_after(_LIST_TIMEOUT_S):
        try:
            answer = await trio.run_process(
                worker_command("--devices"),
                env=worker_environment(),
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
            return DeviceList(_parse(answer.stdout))
        except (OSError, ValueError, subprocess.SubprocessError):
            problem = "llama.cpp is not installed or does not start (install the `executor` extra)"
    return DeviceList((processor(),), problem)


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> Device:
    """The CPU as the operating system names it."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Device("CPU", _processor_name(cpuinfo), "cpu", memory, memory)


def _processor_name(cpuinfo: Path) -> str:
    try:
        lines = cpuinfo.read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(names), "") or platform.processor() or platform.machine()


def _parse(answer: bytes) -> tuple[Device, ...]:
    """Raises ValueError."""
    rows: object = json.loads(answer)
    if not isinstance(rows, Sequence) or not rows:
        raise ValueError("no devices")
    try:
        return tuple(Device(**row) for row in rows)
    except TypeError as exc:
        raise ValueError("not a device") from exc
