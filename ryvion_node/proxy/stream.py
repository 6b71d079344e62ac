"""A streamed answer on the wire: frames of its choices as they come, comments in silence; or an error and nothing after."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from ryvion_node.market.interface import ChatOrder, Market, Outcome, Piece, Placement
from ryvion_node.proxy.choices import buy_choices
from ryvion_node.proxy.chunks import KEEP_ALIVE
from ryvion_node.proxy.dialect import Frames
from ryvion_node.proxy.errors import ApiError
from ryvion_node.proxy.errors import Headers as HeaderPairs
from ryvion_node.proxy.exchange import Exchange


class AnswerStream:
    """One answer as server-sent events. `run`, then `finish`, or `fail` when it has opened.

    It opens once the first choice's job is accepted.
    """

    def __init__(
        self,
        exchange: Exchange,
        headers: Callable[[Placement], HeaderPairs],
        frames: Callable[[Placement], Frames],
        keep_alive_s: float,
    ) -> None:
        self._exchange = exchange
        self._headers = headers
        self._make_frames = frames
        self._keep_alive_s = keep_alive_s
        self._first: Placement | None = None
        self._frames: Frames | None = None
        """From the first event on: a failover before it may still change who answers."""
        self._opened = trio.Event()
        self._last_sent_s = trio.current_time()

    @property
    def is_open(self) -> bool:
        """Has the client been told that there is an answer?"""
        return self._opened.is_set()

    async def run(self, market: Market, orders: Sequence[ChatOrder]) -> Exception | None:
        """Buy a choice by each order and pass on what comes, with a comment after each silence; returns the failure."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._fill_silence)
            failure = await buy_choices(market, orders, [_Streamed(self, index) for index in range(len(orders))])
            nursery.cancel_scope.cancel()
        return failure

    async def open(self, placement: Placement) -> None:
        """Send the status, unless it was sent."""
        if self._first is None:
            self._first = placement
            await self._exchange.start(200, self._headers(placement))
            self._last_sent_s = trio.current_time()
            self._opened.set()

    def frames(self, placement: Placement | None = None) -> Frames:
        """The events; `placement` is whose the first of them is."""
        if self._frames is None:
            placement = placement or self._first
            assert placement is not None, "it has not opened"
            self._frames = self._make_frames(placement)
        return self._frames

    async def send(self, data: bytes) -> None:
        """Send events."""
        self._last_sent_s = trio.current_time()
        await self._exchange.write(data)

    async def finish(self) -> None:
        """Send what follows the last choice of an answer that ended well."""
        await self._exchange.finish(self.frames().finish())

    async def fail(self, error: ApiError) -> None:
        """Send an error as the last thing."""
        self._exchange.failure = error.code
        await self._exchange.finish(self.frames().fail(error))

    async def _fill_silence(self) -> None:
        await self._opened.wait()
        while True:
            due_s = self._last_sent_s + self._keep_alive_s
            if trio.current_time() < due_s:
                await trio.sleep_until(due_s)
            else:
                # Cancelled meanwhile, it is sent whole or not at all: connection.py shields each write.
                await self.send(KEEP_ALIVE)


class _Streamed:
    """One choice: a `ChoiceSink`."""

    def __init__(self, stream: AnswerStream, index: int) -> None:
        self._stream = stream
        self._index = index
        self._placement: Placement | None = None
        self._begun = False

    async def placed(self, placement: Placement) -> None:
        self._placement = placement
        await self._stream.open(placement)

    async def taken(self, placement: Placement) -> None:
        """Send who answers."""
        if not self._begun:
            self._placement = placement
            self._begun = True
            await self._stream.send(self._stream.frames(placement).begin(self._index, placement))

    async def piece(self, piece: Piece) -> None:
        """Send a piece."""
        if events := self._stream.frames().piece(self._index, piece):
            await self._stream.send(events)

    async def ended(self, outcome: Outcome) -> None:
        """Send how it ended."""
        placement = self._placement
        assert placement is not None
        await self.taken(placement)
        await self._stream.send(self._stream.frames().end(self._index, placement, outcome))
