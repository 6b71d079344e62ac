"""One order on one executor, from JobOffer to Acceptance: the requester's side of the job stream (spec 04)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Generic, Literal, TypeVar

import trio

from ryvion_node.engine.interface import TokenCounter
from ryvion_node.ledger.interface import Ledger
from ryvion_node.ledger.records import Evidence, EvidenceKind, JobBegun, Settlement
from ryvion_node.market.bidding import LiveBid
from ryvion_node.market.constants import (
    FIRST_TOKEN_GRACE_S,
    JOB_GRACE_S,
    SETTLE_TIMEOUT_S,
    STARTED_TIMEOUT_S,
    TOKEN_TIMEOUT_S,
)
from ryvion_node.market.intake import Intake
from ryvion_node.market.interface import Outcome, Recipient
from ryvion_node.market.tally import NOBODY, MarketTally
from ryvion_node.market.terms import Terms
from ryvion_node.p2p.channel import JobChannel
from ryvion_node.p2p.interface import StreamBroken
from ryvion_protocol.agreement import check_started
from ryvion_protocol.any_message import Message
from ryvion_protocol.checks import Check, JobEvidence, all_passed, check_finished_job, first_failure
from ryvion_protocol.errors import ProtocolError
from ryvion_protocol.exported import export_envelope
from ryvion_protocol.messages import (
    Acceptance,
    AuditEnvelope,
    Cancel,
    Delta,
    EmbedRequest,
    Error,
    Finished,
    JobRequest,
    Receipt,
    Started,
    Vectors,
)
from ryvion_protocol.money import cost_microcredits
from ryvion_protocol.packet import Packet, pack
from ryvion_protocol.receipt import fields_of
from ryvion_protocol.signing import SigningIdentity
from ryvion_protocol.transcript import Transcript

P = TypeVar("P")
"""What the caller is shown, piece by piece."""

_EVIDENCE: Final[dict[type[Message], EvidenceKind]] = {
    Finished: "finished",
    Receipt: "receipt",
    AuditEnvelope: "envelope",
    Error: "error",
}
_REASONS: Final[dict[str, Literal["stop", "length", "tool_calls"]]] = {"length": "length", "tool_calls": "tool_calls"}
"""Of a cancelled job nobody reads the reason."""


class AttemptFailed(Exception):
    """This executor did not finish the job; another may. `timed_out`: it stalled rather than failed."""

    def __init__(self, message: str, *, code: str, timed_out: bool = False, retry_after_ms: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.timed_out = timed_out
        self.retry_after_ms = retry_after_ms
        """When it says that asking again may help; 0: it does not."""


@dataclass(frozen=True, slots=True)
class Desk:
    """What every attempt needs from its node."""

    identity: SigningIdentity
    ledger: Ledger
    counter: TokenCounter
    clock_ms: Callable[[], int]
    first_token_timeout_s: float
    tally: MarketTally = NOBODY


class Attempt(Generic[P]):
    """Drives one job stream. One task at a time uses it: `start`, then `next_piece`, then `settle`; or `cancel` in between."""

    def __init__(self, desk: Desk, live_bid: LiveBid, terms: Terms, intake: Intake[P]) -> None:
        self.terms = terms
        self.bid = live_bid.bid
        self.ordered = False
        """Has the executor been sent the order?"""
        self.started: Started | None = None
        self._desk = desk
        self._channel: JobChannel = live_bid.channel
        self._hold = live_bid.hold
        self._transcript = Transcript(terms.job_id)
        self._intake = intake
        self._begun_at = trio.current_time()
        self._offered_ms = desk.clock_ms()
        self._first_piece_at: float | None = None
        self._finished: Packet | None = None
        self._verdict: Packet | None = None
        """Recorded, and not sent yet."""
        self._proof: list[Packet] = []
        """Receipt and envelope, as far as they came."""
        self._evidence: list[Evidence] = []
        """What came besides text, for the ledger when the job breaks."""

    @property
    def delivered(self) -> bool:
        """Has any part of the answer arrived?"""
        return self._first_piece_at is not None

    async def start(self) -> None:
        """Order the job; returns when the executor has taken it. The order is on disk before it is on the wire.

        Raises AttemptFailed, NotRecorded, AllowanceExceeded or another LedgerError.
        """
        offer, quote = self.terms.job_offer, self.bid.quote
        await self._desk.ledger.begin_job(
            JobBegun(
                job_id=self.terms.job_id,
                side="bought",
                executor_key=quote.node_key,
                requester_key=self._desk.identity.public_key,
                model=quote.model,
                digest=quote.digest,
                jurisdiction=quote.jurisdiction,
                quote=self.terms.quote.raw,
                job_offer=offer.raw,
                completion_id=self.terms.account.completion_id,
                key_id=self.terms.account.key_id,
                max_price=self.terms.max_price,
                allowance=self.terms.account.allowance,
            )
        )
        if self.terms.witness is not None:
            await self.terms.witness(Recipient(self.terms.job_id, quote.node_key, quote.jurisdiction))
        with _translated(STARTED_TIMEOUT_S + quote.first_token_ms / 1000, "take the job"):
            await self._channel.send(offer, self.terms.job_request)
            self.ordered = True
            self._hold.release()
            packet = await self._receive()
            if isinstance(packet.message, Started):
                check_started(packet.message, offer, self.terms.quote)
        if not isinstance(packet.message, Started):
            raise _unwanted(packet.message)
        self.started = packet.message

    async def next_piece(self) -> P | None:
        """The next piece of the answer, or None after the last; raises AttemptFailed when the job breaks."""
        promised_s = self.bid.quote.first_token_ms / 1000
        first_s = max(self._desk.first_token_timeout_s, promised_s + min(promised_s, FIRST_TOKEN_GRACE_S))
        left_s = self._begun_at + self.terms.lifetime_s + JOB_GRACE_S - trio.current_time()
        # One deadline until something comes: frames that show nothing are no sign of life.
        with _translated(min(TOKEN_TIMEOUT_S if self.delivered else first_s, max(left_s, 0)), "send the next token"):
            while self._finished is None:
                packet = await self._receive()
                match packet.message:
                    case Delta() | Vectors() as part:
                        piece = self._take(packet, part)
                        if piece is not None:
                            return piece
                    case Finished(reason="stop" | "length" | "tool_calls") as finished:
                        self._intake.check_end(finished)
                        self._finished = packet
                    case other:
                        raise _unwanted(other)
        return self._intake.rest()

    async def _receive(self) -> Packet:
        packet = await self._channel.receive()
        kind = _EVIDENCE.get(type(packet.message))
        if kind is not None:
            self._evidence.append(Evidence(kind, packet.raw))
        return packet

    def _take(self, packet: Packet, part: Delta | Vectors) -> P | None:
        piece = self._intake.take(part)
        self._transcript.add(packet.raw)
        if piece is not None and self._first_piece_at is None:
            self._first_piece_at = trio.current_time()
        return piece

    async def settle(self) -> Outcome:
        """Receive receipt and envelope, check them against what we saw, record the verdict, then send it.

        Cancelled on the way, it goes on from there when it is called again: whoever leaves just now pays all the same.
        """
        with _translated(SETTLE_TIMEOUT_S, "send the receipt"):
            if not self._proof:
                self._proof.append(await self._receive())
            if len(self._proof) == 1 and isinstance(self._proof[0].message, Receipt):
                self._proof.append(await self._receive())
        receipt, envelope = self._proof[0], self._proof[-1]
        finished = self._finished
        if not isinstance(receipt.message, Receipt) or not isinstance(envelope.message, AuditEnvelope):
            raise _unwanted(envelope.message)
        assert finished is not None  # the state machine lets a receipt come after it only
        assert isinstance(finished.message, Finished)
        request = self.terms.job_request.message
        assert isinstance(request, JobRequest | EmbedRequest)
        seen = await self._intake.witness(self._desk.counter, self.bid)
        evidence = JobEvidence(
            job_offer=self.terms.job_offer,
            quote=self.terms.quote,
            state=self._channel.machine.state,
            frames=self._channel.frames_received,
            frame_bytes=self._channel.frame_bytes_received,
            result_hash=seen.result_hash,
            transcript_hash=self._transcript.digest,
            text_bytes=seen.text_bytes,
            billable_texts=seen.billable_texts,
            own_prompt_units=seen.own_prompt_units,
            own_completion_units=seen.own_completion_units,
            finished=finished.message,
            receipt=receipt.message,
            envelope=envelope,
            offered_ms=self._offered_ms,
            ended_ms=self._desk.clock_ms(),
            chunk_root=request.chunk_root,
            kind=seen.kind,
            embedded_bytes=seen.embedded_bytes,
            embedded_texts=seen.embedded_texts,
            must_be_counted=self.terms.must_be_counted,
        )
        ended_at = trio.current_time()
        checks = check_finished_job(evidence)
        await self._record(finished, receipt, receipt.message, envelope, envelope.message, checks)
        return self._outcome(finished.message, receipt.message, envelope, envelope.message, checks, ended_at)

    async def _record(
        self,
        finished: Packet,
        receipt: Packet,
        issued: Receipt,
        envelope: Packet,
        told: AuditEnvelope,
        checks: tuple[Check, ...],
    ) -> None:
        """Receipt, checks and verdict in one transaction; only then may the verdict be sent."""
        accepted = all_passed(checks)
        acceptance = pack(
            Acceptance(
                job_id=self.terms.job_id,
                requester_key=self._desk.identity.public_key,
                envelope_hash=envelope.hash,
                agreed_units=issued.metering_units if accepted else 0,
                accepted=accepted,
                reason=first_failure(checks),
            ),
            self._desk.identity,
        )
        settlement = Settlement(
            job_id=self.terms.job_id,
            prompt_units=told.prompt_units,
            completion_units=told.completion_units,
            cost_microcredits=self._cost(told) if accepted else 0,
            finished=finished.raw,
            receipt=receipt.raw,
            receipt_cid=fields_of(issued).cid(),
            envelope=envelope.raw,
            envelope_hash=envelope.hash,
            acceptance=acceptance.raw,
            accepted=accepted,
            reason=first_failure(checks),
            checks=checks,
        )
        if await self._desk.ledger.settle_bought(settlement):
            self._desk.tally.settled(settlement)
        try:
            await self._channel.send(acceptance)
        except (StreamBroken, ProtocolError):
            return  # the executor has the order and its receipt; the verdict is on our disk

    def _cost(self, envelope: AuditEnvelope) -> int:
        quote = self.bid.quote
        kind = self.bid.eligible.model.kind
        return cost_microcredits(
            envelope.prompt_units, envelope.completion_units, quote.price_in, quote.price_out, kind
        )

    def _outcome(
        self,
        finished: Finished,
        receipt: Receipt,
        envelope: Packet,
        told: AuditEnvelope,
        checks: tuple[Check, ...],
        ended_at: float,
    ) -> Outcome:
        first_at = self._first_piece_at or ended_at
        accepted = all_passed(checks)
        return Outcome(
            finish_reason=_REASONS.get(finished.reason, "stop"),
            prompt_tokens=told.prompt_units,
            completion_tokens=told.completion_units,
            cached_tokens=min(self.started.cached_tokens, told.prompt_units) if self.started is not None else 0,
            reasoning_tokens=finished.reasoning_tokens,
            receipt=receipt,
            cid=fields_of(receipt).cid(),
            envelope=export_envelope(envelope.raw),
            checks=checks,
            accepted=accepted,
            cost=self._cost(told) if accepted else 0,
            first_token_ms=round((first_at - self._begun_at) * 1000),
            duration_ms=round((ended_at - self._begun_at) * 1000),
        )

    async def cancel(self, reason: str) -> Outcome | None:
        """Stop the executor and settle what it delivered; None when it no longer answers."""
        try:
            with _translated(SETTLE_TIMEOUT_S, "stop"):
                if self._finished is None:
                    await self._channel.send(pack(Cancel(reason)))
                while self._finished is None:
                    packet = await self._receive()
                    match packet.message:
                        case Delta() | Vectors() as part:
                            self._take(packet, part)
                        case Finished():
                            self._finished = packet
                        case Started() as started:
                            self.started = started
                        case other:
                            raise _unwanted(other)
            return await self.settle()
        except AttemptFailed as exc:
            await self.record_failure(exc.code, str(exc))
            return None

    async def record_failure(self, code: str, message: str) -> None:
        """Close the job in the ledger: nothing is settled, its evidence stays."""
        await self._desk.ledger.fail_job(self.terms.job_id, "bought", code, message, evidence=self._evidence)

    async def close(self) -> None:
        """End the stream, with the verdict if there is one: whoever reads the answer does not wait for that."""
        self._hold.release()
        try:
            if self._verdict is not None:
                # The executor has the order and its receipt, and the verdict is on our disk.
                with contextlib.suppress(StreamBroken, ProtocolError):
                    await self._channel.send(self._verdict)
        finally:
            await self._channel.close()


@contextlib.contextmanager
def _translated(deadline_s: float, doing: str) -> Iterator[None]:
    """Everything that can be wrong with the peer becomes AttemptFailed; waits at most `deadline_s` seconds."""
    try:
        with trio.fail_after(deadline_s):
            yield
    except trio.TooSlowError:
        raise AttemptFailed(f"it did not {doing} within {deadline_s:g} s", code="timeout", timed_out=True) from None
    except StreamBroken as exc:
        raise AttemptFailed(f"the connection was lost: {exc}", code="stream_lost") from exc
    except ProtocolError as exc:
        raise AttemptFailed(f"it broke the protocol ({exc.code}): {exc}", code=exc.code) from exc


def _unwanted(message: object) -> AttemptFailed:
    if isinstance(message, Error):
        said = f"{message.code}: {message.message}"
        return AttemptFailed(said, code=message.code, retry_after_ms=message.retry_after_ms)
    if isinstance(message, Finished):
        return AttemptFailed(f"it ended the job with '{message.reason}'", code="unexpected_end")
    return AttemptFailed(f"it sent an unexpected {type(message).__name__}", code="unexpected_message")
