"""How much memory there is for models on this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from ryvion_node.engine.devices import DeviceList
from ryvion_node.engine.memory import Memory

_SHARE: Final = 0.8
"""Of what is free, when the owner says nothing: the rest is for the node, the system, and what others start."""


def room_for(devices: DeviceList, budget_bytes: int | None, free_bytes: int) -> Memory:
    """Room for all loaded models; a budget is of the GPU where there is one, else of main memory.

    `free_bytes` of main memory is asked apart: llama.cpp reports all of it as free.
    """
    gpus = [device.free_bytes for device in devices.devices if device.kind == "gpu"]
    # llama.cpp leaves the processor's own graphics alone where there is a card.
    gpu_bytes = sum(gpus) or sum(device.free_bytes for device in devices.devices if device.kind == "igpu")
    room = Memory(int(free_bytes * _SHARE), int(gpu_bytes * _SHARE))
    if budget_bytes is None:
        return room
    return Memory(room.host_bytes, budget_bytes) if gpu_bytes else Memory(budget_bytes)


def free_main_memory(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that can be had without swapping, within the container's limit."""
    return min(_available(meminfo), _container_left(cgroup))


def _available(meminfo: Path) -> int:
    try:
        for line in meminfo.read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "MemAvailable":
                return int(value.split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    # Not Linux: all of it, which the owner can correct with memory_budget.
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _container_left(cgroup: Path) -> int:
    try:
        most = int((cgroup / "memory.max").read_text())
        return max(0, most - int((cgroup / "memory.current").read_text()))
    except (OSError, ValueError):
        # No limit, or no such file.
        return 1 << 62
