"""A streamed completion on the wire: role, pieces, finish with the evidence, usage, end; or an error and nothing after."""

from __future__ import annotations

import time

import trio

from ryvion_node.market.interface import BoughtJob, Outcome, Piece, Placement
from ryvion_node.proxy.answers import fingerprint_of, outcome_json, taken_json, usage_json
from ryvion_node.proxy.chunks import DONE, KEEP_ALIVE, ChunkEncoder, error_event
from ryvion_node.proxy.errors import ApiError
from ryvion_node.proxy.exchange import Exchange
from ryvion_node.proxy.relay import follow


class ChatStream:
    """One answer as server-sent events. `run` while the job is open, then `finish` or `fail`."""

    def __init__(
        self, exchange: Exchange, completion_id: str, placement: Placement, *, include_usage: bool, keep_alive_s: float
    ) -> None:
        self._exchange = exchange
        self._completion_id = completion_id
        self._placement = placement
        self._include_usage = include_usage
        self._keep_alive_s = keep_alive_s
        self._chunks: ChunkEncoder | None = None
        """From the first chunk on: a failover before it may still change who answers."""
        self._last_sent_s = trio.current_time()

    async def run(self, job: BoughtJob) -> Outcome | Exception:
        """Pass on the job's text, with a comment after each silence; returns how the job ended."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._fill_silence)
            ended = await follow(job, self)
            nursery.cancel_scope.cancel()
        return ended

    async def taken(self, placement: Placement) -> None:
        """Send the role chunk: who answers."""
        if self._chunks is None:
            self._placement = placement
            await self._send(self._begin().role(taken_json(placement)))

    async def piece(self, piece: Piece) -> None:
        """Send a piece of the answer."""
        if self._chunks is None:
            await self.taken(self._placement)
        await self._send(self._begin().piece(piece))

    async def finish(self, outcome: Outcome) -> None:
        """Send what follows the last piece of an answer that ended well."""
        await self.taken(self._placement)
        chunks = self._begin()
        await self._send(chunks.finish(outcome.finish_reason, outcome_json(self._placement, outcome)))
        tail = chunks.usage(usage_json(outcome)) if self._include_usage else b""
        await self._exchange.finish(tail + DONE)

    async def fail(self, error: ApiError) -> None:
        """Send an error as the last thing: no finish chunk, no [DONE], so that no client takes it for an end."""
        await self._exchange.finish(error_event(error))

    def _begin(self) -> ChunkEncoder:
        if self._chunks is None:
            self._chunks = ChunkEncoder(
                self._completion_id,
                int(time.time()),
                self._placement.model,
                fingerprint_of(self._placement),
                include_usage=self._include_usage,
            )
        return self._chunks

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
