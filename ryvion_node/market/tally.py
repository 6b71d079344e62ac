"""Who counts what the requester's side does; by itself nobody does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from ryvion_node.ledger.records import Settlement
from ryvion_node.market.interface import Candidate, Placement


class MarketTally(Protocol):
    """Told what happened, right after it did. Must neither block nor raise."""

    def asked(self, bids: int, others: Sequence[Candidate]) -> None:
        """A round of quotes is over: how many bid, and those that did not."""
        ...

    def placed(self, placement: Placement) -> None:
        """An executor has taken a job."""
        ...

    def broke(self, code: str) -> None:
        """An executor did not finish its job. `code` may be its own word."""
        ...

    def settled(self, settlement: Settlement) -> None:
        """A receipt has been judged and recorded."""
        ...


class _Nobody:
    def asked(self, bids: int, others: Sequence[Candidate]) -> None: ...

    def placed(self, placement: Placement) -> None: ...

    def broke(self, code: str) -> None: ...

    def settled(self, settlement: Settlement) -> None: ...


NOBODY: Final = _Nobody()
