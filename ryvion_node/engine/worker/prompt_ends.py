"""The logits after prompts that sequences still hold: who asks the same again waits for no step.

It also gets the same answer again. A prompt's last token that is read by itself, because all before it was cached, has
other last bits than one that is read together with them, and one seed in six then leads elsewhere within 40 tokens.
"""

from __future__ import annotations

from ryvion_node.engine.worker.sampler import Logits


class PromptEnds:
    """Of the last prompt that was read in each sequence. A row per sequence: 0.5 MB for the largest vocabularies."""

    def __init__(self) -> None:
        self._ends: dict[int, tuple[list[int], Logits]] = {}

    def keep(self, sequence: int, prompt: list[int], logits: Logits) -> None:
        """`logits`: a view will do."""
        self._ends[sequence] = prompt, logits.copy()

    def find(self, sequence: int, prompt: list[int], kept: int) -> Logits | None:
        """What follows `prompt`, of which the sequence holds `kept` tokens from a job of the same owner."""
        known = self._ends.get(sequence)
        # The sequence held the last token as well when it was read: only what a job adds comes behind it.
        if known is not None and 0 < kept == len(prompt) - 1 and known[0] == prompt:
            return known[1]
        self._ends.pop(sequence, None)
        return None

    def forget(self, sequence: int) -> None:
        """The sequence is emptied."""
        self._ends.pop(sequence, None)
