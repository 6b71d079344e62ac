"""One sold job, from Started to Acceptance: the executor's side of the job stream (spec 04)."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import trio

from ryvion_node.engine.interface import EngineError
from ryvion_node.executor.constants import ACCEPTANCE_TIMEOUT_S, BUSY_RETRY_MS
from ryvion_node.executor.workshop import SoldTerms, Workshop
from ryvion_node.ledger.errors import LedgerError
from ryvion_node.ledger.records import JobBegun, SoldResult
from ryvion_node.log import log_event
from ryvion_node.p2p.channel import JobChannel
from ryvion_node.p2p.interface import StreamBroken
from ryvion_protocol.errors import ProtocolError
from ryvion_protocol.merkle import merkle_root
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
from ryvion_protocol.transcript import Transcript

log = logging.getLogger("ryvion.executor.job")

Status = Literal["completed", "cancelled", "failed"]

_FAULTS_OF_THE_REQUEST = ("context_overflow", "template_failed", "grammar_invalid", "unsupported")
_NOT_BEGUN = ("requested", "embed_requested")
_LATER = ("busy", "rate_limited")


class SoldJob(ABC):
    """Runs one job: `generate`, then `settle`. Neither raises for what the requester or the engine does wrong.

    What is made and how it is counted is up to its kind: `SoldChat`, `SoldEmbedding`.
    """

    _kind: ClassVar[str]

    def __init__(self, workshop: Workshop, channel: JobChannel, terms: SoldTerms, turn: trio.CapacityLimiter) -> None:
        self._shop = workshop
        self._channel = channel
        self._terms = terms
        self._turn = turn
        self._transcript = Transcript(terms.job_id)
        self._scope = trio.CancelScope()
        self._prompt_tokens = 0
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
        if self._status == "completed" and self._channel.machine.state in _NOT_BEGUN and self._failure is None:
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

    @abstractmethod
    async def _follow_engine(self, nursery: trio.Nursery) -> None:
        """Run the job on the engine and have its results sent; once all of them are, `_scope` is cancelled. Raises
        EngineError.
        """

    async def _announce(self, prompt_tokens: int, cached_tokens: int = 0) -> None:
        """Say that the job has begun."""
        started = Started(
            job_id=self._terms.job_id,
            prompt_tokens=prompt_tokens,
            hardware=self._shop.hardware,
            jurisdiction=self._terms.quote.jurisdiction,
            location=self._shop.location,
            started_ms=self._started_ms,
            cached_tokens=min(cached_tokens, prompt_tokens),
        )
        await self._send(pack(started))

    def _note_result(self, packet: Packet) -> None:
        """A frame of results is about to be sent."""
        if not self._first_token_ms:
            self._first_token_ms = self._shop.clock_ms()
        self._transcript.add(packet.raw)

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
        report = await self._report()
        prompt, completion = report.prompt_tokens, report.completion_tokens
        units = metering_units(prompt, completion, self._kind)
        finished = pack(report)
        fields = ReceiptFields(self._terms.job_id, self._shop.identity.public_key, self._result_hash(), units)
        receipt = pack(issue_receipt(fields, self._shop.identity))
        quote = self._terms.quote
        cost = cost_microcredits(prompt, completion, quote.price_in, quote.price_out, self._kind)
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

    @abstractmethod
    async def _report(self) -> Finished:
        """Reason and units of what was delivered. Raises EngineError."""

    @abstractmethod
    def _result_hash(self) -> bytes:
        """Over everything that was sent."""

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
            chunk_hashes=self._terms.chunk_hashes,
            chunk_root=merkle_root(self._terms.chunk_hashes),
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
