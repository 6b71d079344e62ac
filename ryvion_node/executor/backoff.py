"""When to stop selling because the owner wants the machine. Pure: the caller brings readings and the time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from ryvion_node.hours import Window
from ryvion_node.machine.interface import Reading


@dataclass(frozen=True, slots=True)
class PauseRules:
    """What the owner configured ([executor.pause])."""

    gpu_percent: int = 0
    """Load by others from which on nothing is sold; 0: never mind."""
    cpu_percent: int = 0
    on_battery: bool = True
    hours: tuple[Window, ...] = ()
    """Sell only then; none: always."""
    calm_s: float = 60.0
    """How long others must be quiet before selling goes on."""


class Backoff:
    """Remembers when others were last busy; battery and hours take effect at once, both ways."""

    def __init__(self, rules: PauseRules) -> None:
        self._rules = rules
        self._busy_until_s = 0.0
        self._busy = ""

    def reason(self, reading: Reading, now_s: float, local: datetime) -> str:
        """Why nothing is sold now, for the owner and for buyers; empty when all is well. `now_s` never falls."""
        load = self._load(reading)
        if load:
            self._busy, self._busy_until_s = load, now_s + self._rules.calm_s
        if self._rules.on_battery and reading.on_battery:
            return "the machine runs on battery"
        if self._rules.hours and not _in(self._rules.hours, local):
            return "outside the hours in which this node sells"
        return self._busy if now_s < self._busy_until_s else ""

    def _load(self, reading: Reading) -> str:
        gpu = reading.others_gpu_percent
        if self._rules.gpu_percent and gpu is not None and gpu >= self._rules.gpu_percent:
            return "its owner uses the GPU"
        if self._rules.cpu_percent and reading.others_cpu_percent >= self._rules.cpu_percent:
            return "its owner uses the processor"
        return ""


def _in(windows: Sequence[Window], local: datetime) -> bool:
    return any(window.holds(local) for window in windows)
