"""A streamed answer on the wire: its frames as they come, comments in silence; or an error and nothing after."""

from __future__ import annotations

from collections.abc import Callable

import trio

from ryvion_node.market.interface import BoughtJob, Outcome, Piece, Placement
from ryvion_node.proxy.chunks import KEEP_ALIVE
from ryvion_node.proxy.dialect import Frames
from ryvion_node.proxy.errors import ApiError
from ryvion_node.proxy.exchange import Exchange
from ryvion_node.proxy.relay import follow


class AnswerStream:
    """One answer as server-sent events. `run` while the job is open, then `finish` or `fail`."""

    def __init__(
        self,
        exchange: Exchange,
        placement: Placement,
        frames: Callable[[Placement], Frames],
        keep_alive_s: float,
    ) -> None:
        self._exchange = exchange
        self._placement = placement
        self._make_frames = frames
        self._keep_alive_s = keep_alive_s
        self._frames: Frames | None = None
        """From the first event on: a failover before it may still change who answers."""
        self._last_sent_s = trio.current_time()

    async def run(self, job: BoughtJob) -> Outcome | Exception:
        """Pass on the job's text, with a comment after each silence; returns how the job ended."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._fill_silence)
            ended = await follow(job, self)
            nursery.cancel_scope.cancel()
        return ended

    async def taken(self, placement: Placement) -> None:
        """Send who answers."""
        if self._frames is None:
            self._placement = placement
            await self._send(self._begun().begin(placement))

    async def piece(self, piece: Piece) -> None:
        """Send a piece of the answer."""
        await self.taken(self._placement)
        if frames := self._begun().piece(piece):
            await self._send(frames)

    async def finish(self, outcome: Outcome) -> None:
        """Send what follows the last piece of an answer that ended well."""
        await self.taken(self._placement)
        ending, last = self._begun().end(self._placement, outcome)
        await self._send(ending)
        await self._exchange.finish(last)

    async def fail(self, error: ApiError) -> None:
        """Send an error as the last thing."""
        self._exchange.failure = error.code
        await self._exchange.finish(self._begun().fail(error))

    def _begun(self) -> Frames:
        if self._frames is None:
            self._frames = self._make_frames(self._placement)
        return self._frames

    async def _send(self, data: bytes) -> None:
        self._last_sent_s = trio.current_time()
        await self._exchange.write(data)

    async def _fill_silence(self) -> None:
        while True:
            due_s = self._last_sent_s + self._keep_alive_s
            if trio.current_time() < due_s:
                await trio.sleep_until(due_s)
            else:
                await self._send(
                    KEEP_ALIVE
                )  # cut short it is sent whole or not at all: connection.py shields each write
