"""Sensors that say what a test tells them to."""

from __future__ import annotations

from collections.abc import Collection

import trio

from ryvion_node.machine.interface import GpuState, Reading

IDLE = Reading(gpus=(), others_cpu_percent=0, on_battery=False)


def gpu(others_percent: int | None = 0, percent: int | None = None) -> GpuState:
    """A GPU that is used by others so much."""
    busy = percent if percent is not None else others_percent or 0
    return GpuState("Fake GPU", busy, others_percent, 8 << 30, 1 << 30, 50, 100_000)


class FakeSensors:
    """Implements Sensors: `reading` is what it says next."""

    def __init__(self, reading: Reading = IDLE) -> None:
        self.reading = reading
        self.asked_about: list[frozenset[int]] = []

    async def read(self, own_pids: Collection[int]) -> Reading:
        await trio.lowlevel.checkpoint()
        self.asked_about.append(frozenset(own_pids))
        return self.reading
