"""The machine's own sensors, through psutil and NVIDIA's library."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection

import psutil
import trio

from ryvion_node.machine.interface import GpuState, Reading
from ryvion_node.machine.nvidia import NvidiaGpus


class MachineSensors:
    """Implements Sensors. The first reading's CPU load is that since this object was made."""

    def __init__(
        self,
        gpus: Callable[[Collection[int]], tuple[GpuState, ...]] | None = None,
        family: Callable[[], Collection[int]] | None = None,
    ) -> None:
        """`gpus`: how GPUs are asked; None: NVIDIA's library. `family`: which processes this one started; None: psutil."""
        self._family = family or _children
        self._gpus = gpus or NvidiaGpus().read
        self._busy_s = _busy_s()
        self._own_s: dict[int, float] = {}
        self._read_at = time.monotonic()
        self._note_own(())
        self._one_at_a_time = trio.CapacityLimiter(1)
        """A driver that hangs holds one thread, not one more with each reading."""

    async def read(self, own_pids: Collection[int]) -> Reading:
        return await trio.to_thread.run_sync(
            self._read, frozenset(own_pids), abandon_on_cancel=True, limiter=self._one_at_a_time
        )

    def _read(self, own_pids: Collection[int]) -> Reading:
        return Reading(
            gpus=self._gpus(own_pids), others_cpu_percent=self._others_cpu(own_pids), on_battery=_on_battery()
        )

    def _others_cpu(self, own_pids: Collection[int]) -> int:
        busy_s, now = _busy_s(), time.monotonic()
        own_s = self._note_own(own_pids)
        all_s = max(now - self._read_at, 1e-3) * (os.cpu_count() or 1)
        others_s = busy_s - self._busy_s - own_s
        self._busy_s, self._read_at = busy_s, now
        return max(0, min(100, round(100 * others_s / all_s)))

    def _note_own(self, own_pids: Collection[int]) -> float:
        """Processor seconds that our processes took since the last call."""
        taken = {
            pid: seconds
            for pid in {os.getpid(), *self._family(), *own_pids}
            if (seconds := _process_s(pid)) is not None
        }
        gained = sum(seconds - self._own_s.get(pid, 0.0) for pid, seconds in taken.items())
        self._own_s = taken
        return gained


def _busy_s() -> float:
    """Processor seconds spent by everybody since boot, waiting for disks not counted."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0))


def _children() -> list[int]:
    """Every process that this one started, such as those that count tokens."""
    return [child.pid for child in psutil.Process().children(recursive=True)]


def _process_s(pid: int) -> float | None:
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return None
    return float(times.user + times.system)


def _on_battery() -> bool:
    # Absent on platforms where psutil knows no battery interface.
    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    return battery is not None and battery.power_plugged is False
