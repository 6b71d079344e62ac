"""What the endpoints that sell answers differ in: how a request is written, and how its answer is.

The way from one to the other is the same for all (`completions.py`): every dialect says what to buy as a chat request.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ryvion_node.market.interface import Outcome, Piece, Placement
from ryvion_node.proxy.errors import ApiError
from ryvion_node.proxy.requests import ChatRequest


class Frames(Protocol):
    """The server-sent events of one answer; in this order: begin, piece*, end."""

    def begin(self, placement: Placement) -> bytes:
        """Who answers."""
        ...

    def piece(self, piece: Piece) -> bytes:
        """A piece of the answer; empty when there is nothing to tell yet."""
        ...

    def end(self, placement: Placement, outcome: Outcome) -> tuple[bytes, bytes]:
        """What follows the last piece of an answer that ended well, and the very last of it."""
        ...

    def fail(self, error: ApiError) -> bytes:
        """An error as the last thing, also before `begin`: no client may take it for an end."""
        ...


class Asked(Protocol):
    """One request, in the words of its endpoint."""

    @property
    def chat(self) -> ChatRequest:
        """What to buy."""
        ...

    def frames(self, answer_id: str, placement: Placement) -> Frames:
        """A stream's events."""
        ...

    def whole(
        self, answer_id: str, placement: Placement, pieces: Sequence[Piece], outcome: Outcome
    ) -> dict[str, object]:
        """The answer at once."""
        ...

    def told(self, error: ApiError) -> ApiError:
        """A problem with `chat`, by the names that the client used."""
        ...
