"""What the sensors say, as the rest of the node sees it. `sensors.py` asks the machine, `fake.py` a script."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class GpuState:
    """One GPU now. None: the driver does not say."""

    name: str
    percent: int
    """Share of the last moments in which it computed, for anybody."""
    others_percent: int | None
    """The same for processes that are not ours."""
    memory_bytes: int
    memory_used_bytes: int
    celsius: int | None
    milliwatts: int | None


@dataclass(frozen=True, slots=True)
class Reading:
    """The machine now."""

    gpus: tuple[GpuState, ...]
    """Those whose driver tells: NVIDIA's with the `nvidia` extra."""
    others_cpu_percent: int
    """Share of all processors that processes other than ours took since the last reading."""
    on_battery: bool

    @property
    def others_gpu_percent(self) -> int | None:
        """Of the GPU that others use most; None when no driver says."""
        return max((gpu.others_percent for gpu in self.gpus if gpu.others_percent is not None), default=None)


class Sensors(Protocol):
    """Reads the machine."""

    async def read(self, own_pids: Collection[int]) -> Reading:
        """Takes some milliseconds. `own_pids`: processes whose load is ours, this one aside."""
        ...
