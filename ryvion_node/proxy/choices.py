"""The jobs of one answer, one for each of its choices: placed, followed to their ends, given up together (ADR 0019)."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final, Protocol

import trio

from ryvion_node.market.interface import ChatOrder, Market, MarketError, Outcome, Placement
from ryvion_node.proxy.relay import Sink, follow

_LATER: Final = ("no_capacity", "rate_limited", "budget_held", "node_timeout")
"""Why a job is not placed while others of the same answer run, and may be once one of them has ended."""


class ChoiceSink(Sink, Protocol):
    """Who shows one choice."""

    async def placed(self, placement: Placement) -> None:
        """An executor has accepted its job; first of all of them the first choice's."""
        ...

    async def ended(self, outcome: Outcome) -> None:
        """After the last piece."""
        ...


async def buy_choices(market: Market, orders: Sequence[ChatOrder], sinks: Sequence[ChoiceSink]) -> Exception | None:
    """Buy every order and pass what comes of it on to its sink; returns the first failure, with which all are given up.

    The others are placed once the first is. A failure is returned, not raised, so that no nursery on the way wraps it.
    """
    async with trio.open_nursery() as nursery:
        choices = _Choices(market, orders, sinks, nursery)
        await choices.buy(0)
    return choices.failure


class _Choices:
    """One answer's jobs. A job that finds no room waits, holding nothing, until another one has got on."""

    def __init__(
        self, market: Market, orders: Sequence[ChatOrder], sinks: Sequence[ChoiceSink], nursery: trio.Nursery
    ) -> None:
        self.failure: Exception | None = None
        """The first."""
        self._market = market
        self._orders = orders
        self._sinks = sinks
        self._nursery = nursery
        self._placed = False
        """Is any?"""
        self._under_way = 1
        """Jobs that are being placed or run."""
        self._waiting: deque[trio.Event] = deque()

    async def buy(self, index: int) -> None:
        """One choice to its end, or to the end of all."""
        failure = await self._buy(index)
        if failure is not None and self.failure is None:
            self.failure = failure
            self._nursery.cancel_scope.cancel()

    async def _buy(self, index: int) -> Exception | None:
        """One choice from order to end; returns why it has no end."""
        sink = self._sinks[index]
        while True:
            try:
                async with self._market.buy(self._orders[index]) as job:
                    await sink.placed(job.placement)
                    self._got_on()
                    ended = await follow(job, sink)
                if isinstance(ended, Outcome):
                    self._under_way -= 1
                    self._wake_one()
                    await sink.ended(ended)
                    return None
                return ended
            except MarketError as error:
                refusal = error
            except Exception as exc:  # noqa: BLE001 - handed to the caller, as `follow` does
                return exc
            if refusal.code not in _LATER or not await self._room():
                return refusal

    def _got_on(self) -> None:
        """A job was placed. Executors hold few quotes for one asker, and those it did not take are free again."""
        if self._placed:
            self._wake_one()
            return
        self._placed = True
        for other in range(1, len(self._orders)):
            self._under_way += 1
            self._nursery.start_soon(self.buy, other)

    async def _room(self) -> bool:
        """Wait until another job was placed or has ended; False when none is under way."""
        self._under_way -= 1
        if not self._under_way:
            return False
        woken = trio.Event()
        self._waiting.append(woken)
        await woken.wait()
        return True

    def _wake_one(self) -> None:
        """Each job that gets on lets one more try: at most three times as many tries as jobs, and never a crowd."""
        if self._waiting:
            self._under_way += 1
            self._waiting.popleft().set()
