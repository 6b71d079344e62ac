"""One sold job, from Started to Acceptance: the executor's side of the job stream (spec 04)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Literal

import trio

from ryvion_node.engine.interface import Ended, EngineError, Piece, PromptRead
from ryvion_node.executor.coalesce import DeltaBuffer, next_frame_at
from ryvion_node.executor.constants import ACCEPTANCE_TIMEOUT_S, BUSY_RETRY_MS
from ryvion_node.executor.request import generation_request
from ryvion_node.executor.workshop import SoldTerms, Workshop
from ryvion_node.ledger.errors import LedgerError
from ryvion_node.ledger.records import JobBegun, SoldResult
from ryvion_node.log import log_event
from ryvion_node.p2p.channel import JobChannel
from ryvion_node.p2p.interface import StreamBroken
from ryvion_protocol.errors import ProtocolError
from ryvion_protocol.messages import (
    Acceptance,
    AuditEnvelope,
    Cancel,
    Error,
    Finished,
    Started,
)
from ryvion_protocol.money import cost_microcredits, metering_units
from ryvion_protocol.packet import Packet, pack
from ryvion_protocol.receipt import ReceiptFields, issue_receipt
from ryvion_protocol.schema import as_note
from ryvion_protocol.transcript import ResultBuilder, Transcript

log = logging.getLogger("ryvion.executor.job")

Status = Literal["completed", "cancelled", "failed"]

_FAULTS_OF_THE_REQUEST = ("context_overflow", "template_failed", "grammar_invalid", "unsupported")
_LATER = ("busy", "rate_limited")


class SoldJob:
    """Runs one job: `generate`, then `settle`. Neither raises for what the requester or the engine does wrong."""

    def __init__(self, workshop: Workshop, channel: JobChannel, terms: SoldTerms, turn: trio.CapacityLimiter) -> None:
        self._shop = workshop
        self._channel = channel
        self._terms = terms
        self._turn = turn
        self._transcript = Transcript(terms.job_id)
        self._result = ResultBuilder()
        self._buffer = DeltaBuffer()
        self._wake = trio.Event()
        self._generated = trio.Event()
        self._scope = trio.CancelScope()
        self._prompt_tokens = 0
        self._ended: Ended | None = None
        self._delivered: Ended | None = None
        """The model's own end, once everything before it was sent."""
        self._failure: EngineError | None = None
        self._ledger_failure: LedgerError | None = None
        self._recorded = trio.Event()
        self._status: Status = "completed"
        self._reachable = True
        self._started_ms = workshop.clock_ms()
        self._first_token_ms = 0

    # -- generating --------------------------------------------------------------------------------------

    async def generate(self) -> None:
        """Stream until the model ends or fails, the order's time is up, the requester cancels or is gone.

        The order is written to disk while the engine begins: no text leaves before that is done. Raises LedgerError.
        """
        offer = self._terms.offer
        # The order's lifetime on our own clock: the requester's may be up to two minutes away.
        self._scope.deadline = trio.current_time() + (offer.expires_ms - offer.issued_ms) / 1000
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch_requester)
                nursery.start_soon(self._record_order)
                try:
                    await self._follow_engine(nursery)
                except EngineError as exc:
                    self._failure = exc
                    self._scope.cancel()
        if self._ledger_failure is not None:
            raise self._ledger_failure
        if self._status == "completed" and self._channel.machine.state == "requested" and self._failure is None:
            self._failure = EngineError("worker_stalled", "the order's time was up before it could begin")

    async def _record_order(self) -> None:
        terms = self._terms
        begun = JobBegun(
            job_id=terms.job_id,
            side="sold",
            executor_key=terms.offer.executor_key,
            requester_key=terms.offer.requester_key,
            model=terms.offer.model,
            digest=terms.offer.digest,
            jurisdiction=terms.quote.jurisdiction,
            quote=terms.quote_packet.raw,
            job_offer=terms.order.raw,
        )
        try:
            await self._shop.ledger.begin_job(begun)
        except LedgerError as exc:
            self._ledger_failure = exc
            self._scope.cancel()
        else:
            self._recorded.set()

    async def _follow_engine(self, nursery: trio.Nursery) -> None:
        wanted = generation_request(self._terms.offer, self._terms.request)
        async with self._turn, self._shop.engine.generate(wanted) as events:
            async for event in events:
                match event:
                    case PromptRead():
                        await self._announce(event)
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

    async def _announce(self, read: PromptRead) -> None:
        """Say that the job has begun; a prompt that nobody has counted yet is at most what the order allows."""
        limit = self._terms.offer.max_prompt_tokens
        if read.is_exact and read.prompt_tokens > limit:
            message = f"the prompt has {read.prompt_tokens} tokens, the order allows {limit}"
            raise EngineError("context_overflow", message)
        self._prompt_tokens = read.prompt_tokens if read.is_exact else 0
        prompt_tokens = min(read.prompt_tokens, limit)
        started = Started(
            job_id=self._terms.job_id,
            prompt_tokens=prompt_tokens,
            hardware=self._shop.hardware,
            jurisdiction=self._terms.quote.jurisdiction,
            location=self._shop.location,
            started_ms=self._started_ms,
            cached_tokens=min(read.cached_tokens, prompt_tokens),
        )
        await self._send(pack(started))

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
            if not self._first_token_ms:
                self._first_token_ms = self._shop.clock_ms()
            self._transcript.add(packet.raw)
            self._result.add(delta)
            await self._send(packet)

    async def _send(self, packet: Packet) -> None:
        """Shielded from the job's end: the receipt cannot follow half a frame. The stream bounds how long it takes."""
        try:
            with trio.CancelScope(shield=True):
                await self._channel.send(packet)
        except (StreamBroken, ProtocolError):  # the peer is gone, or has just ended the job with an Error
            await self._stop(reachable=False)

    async def _watch_requester(self) -> None:
        """Cancel, a broken protocol or a lost stream ends the job."""
        try:
            packet = await self._channel.receive()
        except (StreamBroken, ProtocolError):
            await self._stop(reachable=False)
        else:
            await self._stop(reachable=isinstance(packet.message, Cancel))

    async def _stop(self, *, reachable: bool) -> None:
        self._status = "cancelled"
        self._reachable = self._reachable and reachable
        self._scope.cancel()
        await trio.lowlevel.checkpoint()

    # -- settling ----------------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Commit receipt and envelope, then send them, then wait a little for the verdict; after a failure say so."""
        try:
            if self._failure is not None:
                raise self._failure
            await self._settle()
        except EngineError as exc:
            await self._fail(exc)

    async def _settle(self) -> None:
        completion = await self._completion_units()
        units = metering_units(self._prompt_tokens, completion)
        prompt = self._prompt_tokens
        reasoning = min(await self._reasoning_units(), completion)
        finished = pack(Finished(self._finish_reason(), prompt, completion, reasoning))
        fields = ReceiptFields(self._terms.job_id, self._shop.identity.public_key, self._result.digest, units)
        receipt = pack(issue_receipt(fields, self._shop.identity))
        quote = self._terms.quote
        cost = cost_microcredits(prompt, completion, quote.price_in, quote.price_out)
        await self._shop.chains.load(self._terms.offer.requester_key)
        previous = self._shop.chains.last(self._terms.offer.requester_key)
        envelope = self._envelope(fields.digest(), prompt, completion, previous)
        self._shop.chains.extend(self._terms.offer.requester_key, envelope)
        result = SoldResult(
            job_id=self._terms.job_id,
            prompt_units=prompt,
            completion_units=completion,
            cost_microcredits=cost,
            finished=finished.raw,
            receipt=receipt.raw,
            receipt_cid=fields.cid(),
            envelope=envelope.raw,
            envelope_hash=envelope.hash,
            previous_envelope=previous,
        )
        try:
            await self._shop.ledger.finish_sold(result)
        except LedgerError:
            self._shop.chains.forget(self._terms.offer.requester_key)
            raise
        self._shop.tally.sold(self._status, prompt, completion)
        log_event(log, "job_sold", job=self._terms.job_id, status=self._status, units=units, cost_microcredits=cost)
        if self._reachable:
            verdict = await self._exchange(finished, receipt, envelope)
            if verdict is not None:
                await self._keep_verdict(verdict, envelope, units, cost)

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

    def _envelope(self, receipt_digest: bytes, prompt: int, completion: int, previous: bytes) -> Packet:
        offer = self._terms.offer
        envelope = AuditEnvelope(
            job_id=self._terms.job_id,
            executor_key=self._shop.identity.public_key,
            requester_key=offer.requester_key,
            receipt_digest=receipt_digest,
            quote_hash=self._terms.quote_packet.hash,
            transcript_hash=self._transcript.digest,
            status=self._status,
            prompt_units=prompt,
            completion_units=completion,
            model=offer.model,
            model_digest=offer.digest,
            jurisdiction=self._terms.quote.jurisdiction,
            chunk_hashes=self._terms.request.chunk_hashes,
            started_ms=self._started_ms,
            first_token_ms=self._first_token_ms,
            finished_ms=self._shop.clock_ms(),
            previous_envelope=previous,
        )
        return pack(envelope, self._shop.identity)

    async def _exchange(self, *evidence: Packet) -> Packet | None:
        """Send the evidence; returns the verdict when it comes, it is not needed."""
        try:
            with trio.fail_after(ACCEPTANCE_TIMEOUT_S):
                await self._channel.send(*evidence)
                packet = await self._channel.receive()
                while isinstance(packet.message, Cancel):
                    packet = await self._channel.receive()
        except (StreamBroken, ProtocolError, trio.TooSlowError):
            return None
        return packet

    async def _keep_verdict(self, packet: Packet, envelope: Packet, units: int, cost: int) -> None:
        """Record an Acceptance that binds this requester to this envelope; any other proves nothing (spec 04)."""
        verdict = packet.message
        if not isinstance(verdict, Acceptance):
            return
        named = (verdict.job_id, verdict.requester_key, verdict.envelope_hash)
        binds = named == (self._terms.job_id, self._terms.offer.requester_key, envelope.hash)
        if not binds or (verdict.accepted and verdict.agreed_units != units):
            log_event(log, "verdict_worthless", job=self._terms.job_id, peer=self._channel.peer.hex())
            return
        await self._shop.ledger.record_acceptance(
            self._terms.job_id, packet.raw, accepted=verdict.accepted, reason=verdict.reason
        )
        self._shop.tally.judged(verdict.accepted, cost)

    async def _fail(self, failure: EngineError) -> None:
        """An error bills nothing and gets no receipt (spec 04, billing)."""
        log_event(log, "job_failed", job=self._terms.job_id, code=failure.code)
        self._shop.tally.failed(failure.code)
        await self._shop.ledger.fail_job(self._terms.job_id, "sold", failure.code, str(failure))
        later = failure.code in _LATER
        status = 400 if failure.code in _FAULTS_OF_THE_REQUEST else 300 if later else 500
        retry_ms = BUSY_RETRY_MS if later else 0
        try:
            await self._channel.send(pack(Error(status, failure.code, as_note(str(failure)), retry_ms)))
        except (StreamBroken, ProtocolError):
            return
