"""When a Delta frame is sent: the first token at once, later ones gathered (pure)."""

from __future__ import annotations

from dataclasses import dataclass, field

from ryvion_node.executor.constants import FRAME_BASE_S, FRAME_MAX_S, FRAME_PER_JOB_S, MAX_FRAME_TEXT_BYTES
from ryvion_protocol.constants import MAX_TOKENS_PER_DELTA
from ryvion_protocol.messages import Delta


def frame_interval_s(running_jobs: int) -> float:
    """Time between two frames of one job, longer the more jobs share the node."""
    return min(FRAME_MAX_S, FRAME_BASE_S + FRAME_PER_JOB_S * running_jobs)


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
