"""One streamed completion from its request to its last event."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from ryvion_node.engine.remote import constants as limits
from ryvion_node.engine.remote.connections import ServerLost, ServerSlow
from ryvion_node.engine.remote.http import HttpServer, Reply, ServerRefused, parsed
from ryvion_node.engine.remote.sse import EventStream, Garbled


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a server is waited for; in seconds."""

    connect_s: float = 5.0
    answer_s: float = 20.0
    """For a short question: the list of its models, a count."""
    first_s: float = 120.0
    """From a job's request to the first thing generated: a long prompt is read before it."""
    gap_s: float = 30.0
    """Between two events of a stream. Comments that keep a connection alive are no events."""
    check_every_s: float = 10.0
    """Between two looks at a server that runs no job of ours."""


class Completion:
    """The events of a stream, one at a time; nothing is read ahead of the reader.

    Once something was generated, what comes within `gather_s` is read in one go: a wake-up costs more than a chunk.
    """

    def __init__(self, reply: Reply, max_tokens: int, timing: Timing, gather_s: Callable[[], float]) -> None:
        self._reply = reply
        self._timing = timing
        self._gather_s = gather_s
        self._read_at = -math.inf
        self._events = EventStream()
        self._left_bytes = limits.STREAM_BASE_BYTES + limits.STREAM_BYTES_PER_TOKEN * max_tokens
        self._is_over = False

    async def next(self, *, has_begun: bool) -> str | None:
        """The next event's data, or None at the end of the stream; `has_begun`: something was generated already.

        Raises Garbled, ServerLost or ServerSlow.
        """
        if self._events.has_more:
            return self._events.take()
        if has_begun:
            await trio.sleep_until(self._read_at + self._gather_s())
        within_s = self._timing.gap_s if has_begun else self._timing.first_s
        try:
            with trio.fail_after(within_s):
                while (event := self._events.take()) is None and not self._is_over:
                    await self._read()
        except trio.TooSlowError:
            raise ServerSlow(f"its stream was silent for {within_s:g} s") from None
        return event

    @property
    def has_more(self) -> bool:
        """Has another event come already?"""
        return self._events.has_more

    async def _read(self) -> None:
        data = await self._reply.read()
        self._read_at = trio.current_time()
        self._left_bytes -= len(data)
        if self._left_bytes < 0:
            raise Garbled("its stream is far longer than the tokens that were asked for")
        if data:
            self._events.feed(data)
        else:
            self._events.finish()
            self._is_over = True


@asynccontextmanager
async def completion(
    server: HttpServer,
    body: dict[str, object],
    max_tokens: int,
    timing: Timing,
    gather_s: Callable[[], float] = lambda: 0.0,
) -> AsyncIterator[Completion]:
    """Open a stream. Raises ServerRefused, ServerLost, ServerSlow or Garbled."""
    async with server.send("POST", "/v1/chat/completions", body, within_s=timing.first_s) as reply:
        if reply.status != 200:
            raise ServerRefused(reply.status, await _refused(reply, timing))
        if reply.media_type != "text/event-stream":
            raise Garbled("it does not stream its answers")
        yield Completion(reply, max_tokens, timing, gather_s)


async def _refused(reply: Reply, timing: Timing) -> object:
    """The body of an error, as far as it can be read."""
    try:
        with trio.fail_after(timing.answer_s):
            return parsed(await reply.whole())
    except (ServerLost, ServerSlow, trio.TooSlowError):
        return None
