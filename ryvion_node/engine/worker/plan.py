"""Decides which sequences a step serves and how much prompt it reads. Pure.

On a CPU a step with two sequences can take longer than two steps with one (another matrix kernel), so the number
that decodes at once is the one with the best measured tokens per second; the others wait their turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from ryvion_node.engine.constants import MIN_CHUNK_TOKENS, STEP_TARGET_S

_WEIGHT: Final = 0.1
"""Of a new measurement in a running mean."""


class StepTimes:
    """Seconds per decode step by number of sequences; measured at start, kept up to date while running."""

    def __init__(self, measured: Mapping[int, float], slots: int) -> None:
        self._seconds = [_between(measured, size) for size in range(1, slots + 1)]

    def of(self, sequences: int) -> float:
        return self._seconds[sequences - 1]

    def observe(self, sequences: int, seconds: float) -> None:
        known = self._seconds[sequences - 1]
        # A step that lost the processor for a while must not change the plan by itself.
        self._seconds[sequences - 1] = known + _WEIGHT * (min(seconds, 2 * known) - known)

    def best(self, ready: int) -> int:
        """How many of `ready` sequences to decode at once, for most tokens per second; more on a tie."""
        return max(range(1, ready + 1), key=lambda size: (size / self.of(size), size))


class PromptPace:
    """Seconds per prompt token, and from it how many rows a step may have."""

    def __init__(self, seconds_per_token: float) -> None:
        self._seconds = seconds_per_token

    @property
    def seconds_per_token(self) -> float:
        return self._seconds

    def observe(self, rows: int, seconds: float) -> None:
        if rows >= MIN_CHUNK_TOKENS:
            self._seconds += _WEIGHT * 3 * (seconds / rows - self._seconds)

    def rows(self, limit: int) -> int:
        """Rows for one step: as many as the target time allows, within what a chunk needs and a batch holds."""
        return max(MIN_CHUNK_TOKENS, min(limit, int(STEP_TARGET_S / self._seconds)))


def share_rows(rows: int, left: Sequence[int], passed_over: Sequence[int]) -> list[int]:
    """Rows of this step for each waiting prompt.

    The shortest goes first, but a prompt's rank improves by each row that went to others while it waited, so a long
    one takes at most about twice its time.
    """
    shares = [0] * len(left)
    for index in sorted(range(len(left)), key=lambda i: left[i] - passed_over[i]):
        shares[index] = min(left[index], rows)
        rows -= shares[index]
    return shares


def _between(measured: Mapping[int, float], size: int) -> float:
    """Linear between measured sizes; beyond the greatest in proportion, which never looks attractive."""
    if size in measured:
        return measured[size]
    below = max(known for known in measured if known < size)
    above = min((known for known in measured if known > size), default=None)
    if above is None:
        return measured[below] / below * size
    part = (size - below) / (above - below)
    return measured[below] + part * (measured[above] - measured[below])
