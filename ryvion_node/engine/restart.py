"""When to start a dead worker again, and when to give its model up. Pure: the caller brings the clock."""

from __future__ import annotations

from dataclasses import dataclass

from ryvion_node.engine.constants import MAX_QUICK_DEATHS, QUICK_DEATH_S, RESTART_DELAYS_S


@dataclass(frozen=True, slots=True)
class Restart:
    """Start it again after a wait."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """It died too often, too quickly."""

    deaths: int


class RestartPolicy:
    """Counts quick deaths in a row; a worker that lived long enough clears its record."""

    def __init__(self) -> None:
        self._quick_deaths = 0

    def died(self, lived_s: float) -> Restart | GiveUp:
        """What to do now that a worker died `lived_s` seconds after its start."""
        self._quick_deaths = self._quick_deaths + 1 if lived_s < QUICK_DEATH_S else 0
        if self._quick_deaths >= MAX_QUICK_DEATHS:
            return GiveUp(self._quick_deaths)
        return Restart(RESTART_DELAYS_S[min(self._quick_deaths, len(RESTART_DELAYS_S) - 1)])
