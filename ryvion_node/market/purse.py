"""What one order may cost at most: its own limit, the node's, and what the key that pays has left.

The cap lets an auction fail closed before anything is ordered. What holds between orders that run at once is the
ledger's check when a job is begun (`ledger.spending`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from ryvion_node.ledger.errors import LedgerError
from ryvion_node.ledger.interface import LedgerReader
from ryvion_node.ledger.spending import Overrun, Spending, left, overrun
from ryvion_node.market.constants import HELD_RETRY_MS
from ryvion_node.market.interface import Account, ChatOrder, EmbeddingOrder, MarketError, Order

Ordered = TypeVar("Ordered", ChatOrder, EmbeddingOrder)
_LIMITS: Final = {"total": "budget in total", "day": "budget for this day of UTC", "hour": "limit for 60 minutes"}


@dataclass(frozen=True, slots=True)
class Cap:
    """Most micro-credits for an order; None: anything. `overrun` is set when the key's allowance is what caps it."""

    microcredits: int | None
    overrun: Overrun | None = None

    def on(self, order: Order) -> Order:
        """The order under this cap."""
        return replace(order, max_price=self.microcredits, tells_max_price=self.overrun is None)


class Purse:
    """The node's money, as orders see it."""

    def __init__(self, ledger: LedgerReader, clock_ms: Callable[[], int], max_price: int | None) -> None:
        """`max_price`: most micro-credits that any one job may cost."""
        self._ledger = ledger
        self._clock_ms = clock_ms
        self._max_price = max_price

    async def cap(self, order: Order) -> Cap:
        """What `order` may cost, 0 when its key has nothing left: free executors still serve it. Raises MarketError."""
        limit = min((price for price in (order.max_price, self._max_price) if price is not None), default=None)
        account = order.account
        if not account.allowance.limited:
            return Cap(limit)
        spent = await self._spent(account)
        room = max(left(account.allowance, spent) or 0, 0)
        if limit is not None and limit <= room:
            return Cap(limit)
        return Cap(room, overrun(account.allowance, spent, room + 1))

    async def refusal(self, account: Account, exceeded: Overrun) -> MarketError:
        """Why `account` may not buy now, and when it may again; `exceeded` is the limit in the way."""
        spent = await self._spent(account)
        limit = getattr(account.allowance, exceeded.limit)
        used = getattr(spent, exceeded.limit)
        state = f"{used} of {limit} micro-credits are spent, running jobs may cost {spent.running} more"
        message = f"the key's {_LIMITS[exceeded.limit]} leaves too little for this job: {state}"
        if exceeded.held:
            return MarketError("budget_held", f"{message}; what they do not use comes back", HELD_RETRY_MS)
        message += "; ask for less, or raise it with `ryvion-node keys set`"
        if exceeded.limit == "hour":
            return MarketError("spending_velocity", message, await self._wait_ms(account, spent, limit))
        return MarketError("budget_exhausted", message)

    async def _wait_ms(self, account: Account, spent: Spending, limit: int) -> int:
        """Until the hour has any room again."""
        needed = spent.hour + spent.running - limit + 1
        try:
            returns_ms = await self._ledger.room_returns_ms(account.key_id, max(needed, 1))
        except LedgerError as exc:
            raise books_closed(exc) from exc
        return HELD_RETRY_MS if returns_ms is None else max(returns_ms - self._clock_ms(), 1)

    async def _spent(self, account: Account) -> Spending:
        try:
            return await self._ledger.spending(account.key_id)
        except LedgerError as exc:
            raise books_closed(exc) from exc


def books_closed(error: LedgerError) -> MarketError:
    """Nothing is bought that could not be recorded, or whose limits cannot be read."""
    return MarketError("no_capacity", f"this node cannot keep its books, so it buys nothing: {error}", 60_000)
