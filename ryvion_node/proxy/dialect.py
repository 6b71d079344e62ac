"""What the endpoints that sell answers differ in: how a request is written, and how its answer is.

The way from one to the other is the same for all (`completions.py`): every dialect says what to buy as chat requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ryvion_node.market.interface import ChatOrder, Outcome, Piece, Placement
from ryvion_node.proxy.errors import ApiError
from ryvion_node.proxy.requests import ChatRequest
from ryvion_node.proxy.whole import WholeChoice


class Frames(Protocol):
    """The server-sent events of one answer; of each choice in this order: begin, piece*, end."""

    def begin(self, index: int, placement: Placement) -> bytes:
        """Who answers."""
        ...

    def piece(self, index: int, piece: Piece) -> bytes:
        """A piece of a choice; empty when there is nothing to tell yet."""
        ...

    def end(self, index: int, placement: Placement, outcome: Outcome) -> bytes:
        """What follows the last piece of a choice that ended well."""
        ...

    def finish(self) -> bytes:
        """The very last, when all choices have ended well."""
        ...

    def fail(self, error: ApiError) -> bytes:
        """An error as the last thing, also before any `begin`: no client may take it for an end."""
        ...


class Asked(Protocol):
    """One request, in the words of its endpoint."""

    @property
    def chats(self) -> Sequence[ChatRequest]:
        """What to buy: a chat for each prompt, alike in all else; `choices` of each."""
        ...

    def question(self, order: ChatOrder) -> str:
        """What a knowledge base is searched for, on behalf of one of the orders made of `chats`."""
        ...

    def frames(self, answer_id: str, placement: Placement, about: Sequence[dict[str, object]]) -> Frames:
        """A stream's events; `placement` is whose the first of them is, `about` what `ryvion` says besides, by choice."""
        ...

    def whole(self, answer_id: str, choices: Sequence[WholeChoice]) -> dict[str, object]:
        """The answer at once."""
        ...

    def told(self, error: ApiError) -> ApiError:
        """A problem with a chat, by the names that the client used."""
        ...
