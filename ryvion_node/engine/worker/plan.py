"""Decides which sequences a step serves and how much prompt it reads. Pure.

On a CPU a step with two sequences can take longer than two steps with one (another matrix kernel), so the number
that decodes at once is the one with the best measured tokens per second; the others wait their turn.

One pass over the weights serves sequences of consecutive numbers, so a step with gaps between them is several passes,
unless rows of no meaning fill the gaps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from ryvion_node.engine.constants import GATHER_PROMPT_S, GATHER_S, MIN_CHUNK_TOKENS, STEP_TARGET_S

_SLOWER: Final = 0.1
_FASTER: Final = 0.5
"""Weights of a new time in a running one: a fast step is a fact, a slow one may be the fault of other programs."""
_EXPLORE_STEPS: Final = 64
"""One step in so many measures the size that was not measured for longest."""
_PACE_WEIGHT: Final = 0.3
"""Prompts are read in few steps: their pace must follow quickly."""
_STRETCH: Final = 1.1
"""What a step may have beyond its rows to finish a prompt: from 90 to 99 ms."""
_TELLING: Final = 0.75
"""Of the rows that a step may have: with less, the pass over the weights counts for too much in the pace."""


class StepTimes:
    """Seconds per decode step by number of sequences; measured at start, kept up to date while running."""

    def __init__(self, measured: Mapping[int, float]) -> None:
        """`measured` has at least one sequence."""
        self._seconds = dict(measured)
        self._steps = 0
        self._measured_at: dict[int, int] = {}

    def of(self, sequences: int) -> float:
        """Numbers that were never measured lie on a line between their neighbours, or beyond the greatest ones."""
        known = self._seconds.get(sequences)
        if known is not None:
            return known
        below = max((size for size in self._seconds if size < sequences), default=0)
        above = min((size for size in self._seconds if size > sequences), default=below)
        start = self._seconds.get(below, 0.0)
        if above == below:
            return start * sequences / below
        return start + (self._seconds[above] - start) * (sequences - below) / (above - below)

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
        self._rows = MIN_CHUNK_TOKENS

    @property
    def seconds_per_token(self) -> float:
        return self._seconds

    def observe(self, rows: int, seconds: float) -> None:
        if rows >= max(MIN_CHUNK_TOKENS, _TELLING * self._rows):
            self._seconds += _PACE_WEIGHT * (seconds / rows - self._seconds)

    def rows(self, limit: int, taken_s: float = 0.0) -> int:
        """Rows for one step, of whose time a part is taken: as many as the target allows, at least a chunk."""
        self._rows = max(MIN_CHUNK_TOKENS, min(limit, int((STEP_TARGET_S - taken_s) / self._seconds)))
        return self._rows


class Gathering:
    """Jobs that come together to an idle worker begin together: full steps cost least per token.

    The first token of each is told at once; the second waits while the others' prompts are read, for a limited time.
    Nobody waits for a long prompt, and jobs that run already for none.
    """

    def __init__(self) -> None:
        self._since: float | None = None

    def waits(self, prompts_s: Sequence[float], now: float) -> bool:
        """Shall those that are ready wait for prompts which take so long to read, each by itself?"""
        if self._since is None:
            self._since = now
        return max(prompts_s) <= GATHER_PROMPT_S and now - self._since + sum(prompts_s) <= GATHER_S

    def over(self) -> None:
        """No prompt is left, or jobs run."""
        self._since = None


def share_rows(rows: int, most: int, left: Sequence[int], passed_over: Sequence[int]) -> list[int]:
    """Rows of this step for each waiting prompt: none, or as many as each other that is served.

    The shortest goes first, but a prompt's rank improves by each row that went to others while it waited, so a long
    one takes at most about twice its time. As many are served, in this order, as use the most rows: pieces of equal
    length are one pass over the weights. Rather than leave a few rows to a step of their own, a step has a tenth more,
    but no more than `most`.
    """
    order = sorted(range(len(left)), key=lambda index: left[index] - passed_over[index])
    if order and rows < left[order[0]] <= min(most, rows * _STRETCH):
        rows = left[order[0]]
    share = served = 0
    shortest = rows
    for count, index in enumerate(order, 1):
        shortest = min(shortest, left[index])
        if (equal := min(shortest, rows // count)) * count > share * served:
            share, served = equal, count
    shares = [0] * len(left)
    for index in order[:served]:
        shares[index] = share
    return shares


def spans(sequences: Sequence[int], times: StepTimes, *, fill: bool) -> list[range]:
    """The passes of a step that serves these sequences, in rising order; with `fill`, gaps may be closed."""
    runs: list[range] = []
    for sequence in sequences:
        if runs and runs[-1].stop == sequence:
            runs[-1] = range(runs[-1].start, sequence + 1)
        else:
            runs.append(range(sequence, sequence + 1))
    if not fill or len(runs) < 2:
        return runs
    # best[i]: the least time, and the passes, for the first i runs.
    best: list[tuple[float, list[range]]] = [(0.0, [])]
    for end in range(len(runs)):
        joined = (range(runs[first].start, runs[end].stop) for first in range(end + 1))
        options = ((best[first][0] + times.of(len(span)), [*best[first][1], span]) for first, span in enumerate(joined))
        best.append(min(options, key=lambda option: (option[0], len(option[1]))))
    return best[-1][1]
