"""Scoring: how well claimed tokens fit the model and the rules they should have been drawn by (spec 05)."""

from __future__ import annotations

from collections.abc import Sequence

from ryvion_node.engine import constants as limits
from ryvion_node.engine.wire import WireScore
from ryvion_node.engine.worker.choosing import Chooser
from ryvion_node.engine.worker.sampler import Logits


class Scoring:
    """The claimed tokens of one job, judged one by one as their logits come in."""

    def __init__(self, chooser: Chooser, claimed: Sequence[int], first: int) -> None:
        """`first`: the index in the sequence of the first of them, of which there is at least one."""
        self._chooser = chooser
        self._claimed = claimed
        self._first = first
        self.scores: list[WireScore] = []

    @property
    def next_row(self) -> int:
        """The index of the token whose logits are wanted next: they say what comes after it."""
        return self._first - 1 + len(self.scores)

    @property
    def complete(self) -> bool:
        return len(self.scores) == len(self._claimed)

    def add(self, logits: Logits) -> None:
        """Judge the next token. Raises NotFinite."""
        at = len(self.scores)
        self.scores.append(self._chooser.judge(logits, self._first + at, self._claimed[at]))


def rows_at_once(vocabulary_size: int) -> int:
    """Rows with logits in one step: they are as wide as the vocabulary, and each is judged between two steps."""
    return max(1, min(limits.SCORE_ROWS, limits.SCORE_BYTES // (4 * vocabulary_size)))
