"""NVIDIA's management library: what each GPU does, and for whom."""

from __future__ import annotations

import importlib
from collections.abc import Collection
from contextlib import suppress
from typing import Any

from ryvion_node.machine.constants import MAX_GPUS
from ryvion_node.machine.interface import GpuState

_TEMPERATURE_GPU = 0


class NvidiaGpus:
    """The GPUs that the driver lists; none where there is no driver or the `nvidia` extra is not installed."""

    def __init__(self, library: Any = None) -> None:
        """`library`: an object with pynvml's functions."""
        self._library = library if library is not None else _load()
        self._handles: list[Any] = []
        self._seen_us: dict[int, int] = {}
        """When each GPU's newest sample of a process was taken."""
        if self._library is not None:
            with suppress(self._library.NVMLError):
                self._library.nvmlInit()
                count = min(MAX_GPUS, self._library.nvmlDeviceGetCount())
                self._handles = [self._library.nvmlDeviceGetHandleByIndex(index) for index in range(count)]

    def read(self, own_pids: Collection[int]) -> tuple[GpuState, ...]:
        """A GPU that stopped answering is left out."""
        states = []
        for index, handle in enumerate(self._handles):
            with suppress(self._library.NVMLError):
                states.append(self._state(index, handle, own_pids))
        return tuple(states)

    def _state(self, index: int, handle: Any, own_pids: Collection[int]) -> GpuState:
        nvml = self._library
        percent = int(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        name = nvml.nvmlDeviceGetName(handle)
        return GpuState(
            name=name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name),
            percent=percent,
            others_percent=self._others(index, handle, percent, own_pids),
            memory_bytes=int(memory.total),
            memory_used_bytes=int(memory.used),
            celsius=self._number(lambda: nvml.nvmlDeviceGetTemperature(handle, _TEMPERATURE_GPU)),
            milliwatts=self._number(lambda: nvml.nvmlDeviceGetPowerUsage(handle)),
        )

    def _others(self, index: int, handle: Any, percent: int, own_pids: Collection[int]) -> int | None:
        """Load by processes that are not ours, from the samples taken since the last call."""
        if percent == 0:
            return 0
        nvml = self._library
        try:
            samples = nvml.nvmlDeviceGetProcessUtilization(handle, self._seen_us.get(index, 0))
        except nvml.NVMLError as exc:
            if getattr(exc, "value", None) == nvml.NVML_ERROR_NOT_FOUND:
                return 0  # no process computed since then
            # It does not tell processes apart (old cards, some containers): then all of it is ours or all of it theirs.
            return None if own_pids else percent
        newest: dict[int, tuple[int, int]] = {}
        for sample in samples:
            newest[sample.pid] = max(newest.get(sample.pid, (0, 0)), (sample.timeStamp, sample.smUtil))
        if newest:
            self._seen_us[index] = max(taken for taken, _ in newest.values())
        return min(100, sum(load for pid, (_, load) in newest.items() if pid not in own_pids))

    def _number(self, ask: Any) -> int | None:
        try:
            return int(ask())
        except self._library.NVMLError:
            return None


def _load() -> Any:
    try:
        return importlib.import_module("pynvml")
    except ImportError:
        return None
