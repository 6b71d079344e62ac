"""What one piece of an answer's text turned out to be."""

from __future__ import annotations

from dataclasses import dataclass

from ryvion_node.engine.wire import WireCallPiece


@dataclass(frozen=True, slots=True)
class Parts:
    """Any of these may be empty."""

    content: str = ""
    reasoning: str = ""
    calls: tuple[WireCallPiece, ...] = ()

    def __add__(self, other: Parts) -> Parts:
        return Parts(self.content + other.content, self.reasoning + other.reasoning, self.calls + other.calls)

    def __bool__(self) -> bool:
        return bool(self.content or self.reasoning or self.calls)
