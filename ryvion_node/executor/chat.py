"""A sold chat: text as the model makes it, gathered into Deltas (spec 04)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import trio

from ryvion_node.engine.interface import Ended, EngineError, Piece, PromptRead
from ryvion_node.executor.coalesce import DeltaBuffer, next_frame_at
from ryvion_node.executor.job import SoldJob
from ryvion_node.executor.request import generation_request
from ryvion_node.executor.workshop import SoldTerms, Workshop
from ryvion_node.p2p.channel import JobChannel
from ryvion_protocol.messages import CHAT, Finished, JobRequest
from ryvion_protocol.packet import pack
from ryvion_protocol.transcript import ResultBuilder


class SoldChat(SoldJob):
    """One answer."""

    _kind: ClassVar[str] = CHAT

    def __init__(
        self,
        workshop: Workshop,
        channel: JobChannel,
        terms: SoldTerms,
        request: JobRequest,
        turn: trio.CapacityLimiter,
    ) -> None:
        super().__init__(workshop, channel, terms, turn)
        self._request = request
        self._result = ResultBuilder()
        self._buffer = DeltaBuffer()
        self._wake = trio.Event()
        self._generated = trio.Event()
        self._ended: Ended | None = None
        self._delivered: Ended | None = None
        """The model's own end, once everything before it was sent."""

    async def _follow_engine(self, nursery: trio.Nursery) -> None:
        wanted = generation_request(self._terms.offer, self._request)
        async with self._turn, self._shop.engine.generate(wanted) as events:
            async for event in events:
                match event:
                    case PromptRead():
                        await self._prompt_read(event)
                        nursery.start_soon(self._send_deltas)
                    case Piece():
                        self._buffer.add(event)
                        self._wake.set()
                    case Ended():
                        if event.prompt_tokens is not None:
                            self._prompt_tokens = min(event.prompt_tokens, self._terms.offer.max_prompt_tokens)
                        self._ended = event
                        self._generated.set()
                        self._wake.set()

    async def _prompt_read(self, read: PromptRead) -> None:
        """Say that the job has begun; a prompt that nobody has counted yet is at most what the order allows."""
        limit = self._terms.offer.max_prompt_tokens
        if read.is_exact and read.prompt_tokens > limit:
            message = f"the prompt has {read.prompt_tokens} tokens, the order allows {limit}"
            raise EngineError("context_overflow", message)
        self._prompt_tokens = read.prompt_tokens if read.is_exact else 0
        await self._announce(min(read.prompt_tokens, limit), read.cached_tokens)

    async def _send_deltas(self) -> None:
        """First text at once, then gathered frames; ends the generating nursery after the last one."""
        await self._recorded.wait()
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            is_last = self._ended is not None  # asked before flushing: more may come while a frame is being sent
            await self._flush()
            if is_last:
                self._delivered = self._ended
                self._scope.cancel()
                return
            with trio.move_on_at(next_frame_at(trio.current_time(), self._turn.borrowed_tokens)):
                await self._generated.wait()

    async def _flush(self) -> None:
        for delta in self._buffer.take():
            packet = pack(delta)
            self._note_result(packet)
            self._result.add(delta)
            await self._send(packet)

    async def _report(self) -> Finished:
        completion = await self._completion_units()
        reasoning = min(await self._reasoning_units(), completion)
        return Finished(self._finish_reason(), self._prompt_tokens, completion, reasoning)

    def _result_hash(self) -> bytes:
        return self._result.digest

    async def _completion_units(self) -> int:
        """Canonical tokens of what was sent, never more than ordered (spec 04, billing)."""
        if self._delivered is not None:
            count = self._delivered.completion_tokens
        else:
            count = await self._count(self._result.billable_texts())
        return min(count, self._terms.offer.max_completion_tokens)

    async def _reasoning_units(self) -> int:
        if self._delivered is not None:
            return self._delivered.reasoning_tokens
        return await self._count([self._result.reasoning] if self._result.reasoning else ())

    async def _count(self, texts: Sequence[str]) -> int:
        """Tokens of what was delivered; what the engine cannot count is not billed."""
        try:
            return await self._shop.engine.count_texts(self._terms.offer.model, texts) if texts else 0
        except EngineError as exc:
            if exc.code == "unsupported":
                return 0
            raise

    def _finish_reason(self) -> str:
        if self._status == "cancelled":
            return "cancelled"
        if self._delivered is None:
            return "length"  # the order's time was up
        # An engine that was forced to call a tool may say that it simply stopped.
        return "tool_calls" if self._delivered.reason == "stop" and self._result.calls else self._delivered.reason
