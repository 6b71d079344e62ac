"""Which sequence of the context a job gets, and how much of its prompt is in there from earlier jobs. Pure.

What a job leaves serves later jobs of the same owner only: a stranger could tell from the time to the first token
what others asked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class Held:
    """The tokens in the cells of a sequence that no job uses."""

    owner: bytes = b""
    tokens: list[int] = field(default_factory=list)


NOTHING: Final = Held()


class Sequences:
    """The sequences that are free, least recently used first. Each holds the tokens of at most one job."""

    def __init__(self, count: int) -> None:
        self._free = dict.fromkeys(range(count), NOTHING)

    def __bool__(self) -> bool:
        return bool(self._free)

    def held(self, sequence: int) -> int:
        """Tokens in the cells of a free sequence."""
        return len(self._free[sequence].tokens)

    def take(self, owner: bytes, prompt: list[int]) -> tuple[int, int]:
        """A free sequence for a job, and how many of its cells fit the prompt; the others must be emptied.

        The prompt's last token is never among them: reading it gives the first logits.
        """
        before_last = prompt[:-1]
        common = {
            sequence: _common(held.tokens, before_last)
            for sequence, held in self._free.items()
            if owner and held.owner == owner
        }
        empty = [sequence for sequence, held in self._free.items() if not held.tokens]
        sequence = max(common, key=lambda each: common[each], default=-1)
        kept = common.get(sequence, 0)
        if not kept or (empty and self._is_poor(sequence, kept, len(prompt))):
            sequence, kept = (self._beside(empty) if empty else next(iter(self._free))), 0
        del self._free[sequence]
        return sequence, kept

    def give_back(self, sequence: int, owner: bytes, tokens: list[int]) -> bool:
        """The job is over and left these tokens; False: empty the sequence."""
        kept = bool(owner and tokens)
        self._free[sequence] = Held(owner, tokens) if kept else NOTHING
        return kept

    def _is_poor(self, sequence: int, kept: int, prompt_tokens: int) -> bool:
        """A few common tokens at the beginning are not worth a long conversation that may go on."""
        return kept < prompt_tokens / 2 and kept < len(self._free[sequence].tokens) - kept

    def _beside(self, empty: list[int]) -> int:
        """The lowest empty one next to those in use: steps without gaps cost least."""
        return min(empty, key=lambda each: (each and each - 1 in self._free, each))


def _common(held: list[int], prompt: list[int]) -> int:
    """Length of the common beginning, found by halving: comparing slices costs far less than tokens."""
    low, high = 0, min(len(held), len(prompt))
    while low < high:
        middle = (low + high + 1) // 2
        if held[low:middle] == prompt[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
