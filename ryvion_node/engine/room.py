"""Which models have to go so that another one fits. Pure: sizes and times in, names out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

from ryvion_node.engine.memory import Memory


@dataclass(frozen=True, slots=True)
class Resident:
    """A model that is loaded, or being loaded or unloaded."""

    name: str
    need: Memory
    idle: bool
    """Nobody uses it, so it may go."""
    used_at: float
    """When its last job ended, in seconds of any clock."""


def make_room(need: Memory, room: Memory, residents: Sequence[Resident]) -> tuple[str, ...] | None:
    """Names to unload, the least recently used first; empty when it fits as it is, None when it has to wait."""
    staying = sorted(residents, key=lambda resident: (not resident.idle, resident.used_at))
    leaving: list[str] = []
    while not _sum([need, *(resident.need for resident in staying)]).fits(room):
        if not staying or not staying[0].idle:
            return None
        leaving.append(staying.pop(0).name)
    return tuple(leaving)


def _sum(sizes: Sequence[Memory]) -> Memory:
    return reduce(lambda total, size: total + size, sizes, Memory(0))
