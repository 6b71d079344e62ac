"""When a Delta frame is sent: the first token at once, later ones gathered (pure)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ryvion_node.executor.constants import FRAME_BASE_S, FRAME_MAX_S, FRAME_PER_JOB_S, MAX_FRAME_TEXT_BYTES
from ryvion_protocol.constants import MAX_TOKENS_PER_DELTA
from ryvion_protocol.messages import Delta


def next_frame_at(now_s: float, running_jobs: int) -> float:
    """When a job's next frame goes out, on the clock of `now_s`: at most one interval away, longer the more jobs run.

    All jobs of a node send at the same ticks, so that one wake-up of each process on the way serves them all.
    """
    interval_s = min(FRAME_MAX_S, FRAME_BASE_S + FRAME_PER_JOB_S * running_jobs)
    return (math.floor(now_s / interval_s) + 1) * interval_s


@dataclass(slots=True)
class DeltaBuffer:
    """Gathers pieces of text and cuts them into Delta messages within the frame's limits."""

    seq: int = 0
    text: list[str] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)

    def add(self, text: str, tokens: tuple[int, ...]) -> None:
        if text:
            self.text.append(text)
        self.tokens += tokens

    def has_text(self) -> bool:
        return bool(self.text)

    def take(self) -> list[Delta]:
        """Everything gathered, as one Delta, or several where one would be too large."""
        text, tokens = "".join(self.text), self.tokens
        self.text, self.tokens = [], []
        deltas: list[Delta] = []
        while text or tokens:
            part = _prefix(text)
            deltas.append(Delta(self.seq, 0, part, tuple(tokens[:MAX_TOKENS_PER_DELTA])))
            text, tokens = text[len(part) :], tokens[MAX_TOKENS_PER_DELTA:]
            self.seq += 1
        return deltas


def _prefix(text: str) -> str:
    """As many whole characters as fit a frame (a character has at most 4 bytes)."""
    if len(text) * 4 <= MAX_FRAME_TEXT_BYTES or len(text.encode()) <= MAX_FRAME_TEXT_BYTES:
        return text
    return text[: MAX_FRAME_TEXT_BYTES // 4]
