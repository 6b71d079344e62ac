"""Decides which sequences a step serves and how much prompt it reads. Pure.

On a CPU a step with two sequences can take longer than two steps with one (another matrix kernel), so the number
that decodes at once is the one with the best measured tokens per second; the others wait their turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from ryvion_node.engine.constants import MIN_CHUNK_TOKENS, STEP_TARGET_S

_SLOWER: Final = 0.1
_FASTER: Final = 0.5
"""Weights of a new time in a running one: a fast step is a fact, a slow one may be the fault of other programs."""
_EXPLORE_STEPS: Final = 64
"""One step in so many measures the size that was not measured for longest."""
_PACE_WEIGHT: Final = 0.3
"""Prompts are read in few steps: their pace must follow quickly."""


class StepTimes:
    """Seconds per decode step by number of sequences; measured at start, kept up to date while running."""

    def __init__(self, measured: Mapping[int, float]) -> None:
        """`measured` has at least one sequence."""
        self._seconds = dict(measured)
        self._steps = 0
        self._measured_at: dict[int, int] = {}

    def of(self, sequences: int) -> float:
        """KeyError for a number that was never measured."""
        return self._seconds[sequences]

    def observe(self, sequences: int, seconds: float) -> None:
        """A decode step with so many sequences and no prompt took so long."""
        self._measured_at[sequences] = self._steps
        known = self._seconds.setdefault(sequences, seconds)
        weight = _FASTER if seconds < known else _SLOWER
        # A step that lost the processor for a while must not change the plan by itself.
        self._seconds[sequences] = known + weight * (min(seconds, 2 * known) - known)

    def next_size(self, ready: int) -> int:
        """How many of `ready` sequences to decode in the next step."""
        self._steps += 1
        if ready not in self._seconds:
            return ready
        if self._steps % _EXPLORE_STEPS == 0:
            return min(range(1, ready + 1), key=lambda size: self._measured_at.get(size, -1))
        return self.best(ready)

    def best(self, ready: int) -> int:
        """The measured number up to `ready` with most tokens per second; the greater on a tie."""
        return max((size for size in self._seconds if size <= ready), key=lambda size: (size / self.of(size), size))


class PromptPace:
    """Seconds per prompt token, and from it how many rows a step may have."""

    def __init__(self, seconds_per_token: float) -> None:
        self._seconds = seconds_per_token

    @property
    def seconds_per_token(self) -> float:
        return self._seconds

    def observe(self, rows: int, seconds: float) -> None:
        if rows >= MIN_CHUNK_TOKENS:
            self._seconds += _PACE_WEIGHT * (seconds / rows - self._seconds)

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
