"""How many threads llama.cpp should use on this machine."""

from __future__ import annotations

import os
from pathlib import Path


def compute_threads(sysfs: Path = Path("/sys/devices/system/cpu"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Physical cores that this process may use: a second thread on a core adds contention, not speed."""
    cpus = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = {_siblings(sysfs, cpu) for cpu in cpus}
    return max(1, min(len(cores), _quota(cgroup)))


def _siblings(sysfs: Path, cpu: int) -> str:
    try:
        return (sysfs / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)


def _quota(cgroup: Path) -> int:
    """Whole processors that the container's quota pays for."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
        return max(1, int(quota) // int(period))
    except (OSError, ValueError):
        return os.cpu_count() or 1
