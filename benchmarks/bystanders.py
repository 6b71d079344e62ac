"""How much of the processors other programs take while something is measured."""

from __future__ import annotations

import os
import time

import psutil

from benchmarks.processes import cpu_s


class Bystanders:
    """Counts from its making."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._busy_s, self._own_s = _busy_s(), cpu_s(os.getpid())

    def share(self) -> float:
        """Of all processors' time, what was used by others than this process and its children that still run."""
        foreign_s = (_busy_s() - self._busy_s) - (cpu_s(os.getpid()) - self._own_s)
        elapsed_s = time.monotonic() - self._began
        return max(0.0, foreign_s / (elapsed_s * (psutil.cpu_count() or 1)))


def _busy_s() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0))
