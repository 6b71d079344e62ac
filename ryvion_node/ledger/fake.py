"""A ledger in memory, for tests of what stands on it; it passes the contract tests of the real one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from ryvion_node.ledger.errors import ChainMoved, JobExists, JobUnknown, LedgerUnavailable
from ryvion_node.ledger.queries import MAX_ROWS
from ryvion_node.ledger.records import (
    MAX_MESSAGE_CHARACTERS,
    NO_ENVELOPE,
    Evidence,
    EvidenceKind,
    EvidenceRecord,
    JobBegun,
    JobRecord,
    ReceiptDetail,
    ReceiptRecord,
    Settlement,
    Side,
    SoldResult,
    Totals,
)
from ryvion_node.ledger.rules import expect_delivered, expect_running, verdict
from ryvion_node.ledger.spending import HOUR_MS, AllowanceExceeded, Spending, day_of, overrun
from ryvion_protocol.checks import Check
from ryvion_protocol.schema import JobId, NodeKey


@dataclass(slots=True)
class _Entry:
    record: JobRecord
    evidence: list[tuple[int, EvidenceRecord]] = field(default_factory=list)
    checks: tuple[Check, ...] = ()
    envelope_hash: bytes | None = None
    envelope_position: int = 0
    max_price: int = 0

    def packet(self, kind: EvidenceKind) -> bytes | None:
        return next((item.packet for _, item in self.evidence if item.kind == kind), None)


class FakeLedger:
    """See `interface.Ledger`. `fail_writes(reason)` makes it read-only, as a full disk would."""

    def __init__(self, *, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._jobs: dict[tuple[str, Side], _Entry] = {}
        self._positions = 0
        self._failure: str | None = None

    @property
    def write_failure(self) -> str | None:
        return self._failure

    def fail_writes(self, reason: str) -> None:
        """From now on every write raises LedgerUnavailable."""
        self._failure = reason

    async def begin_job(self, begun: JobBegun) -> None:
        self._check_writable()
        exceeded = overrun(begun.allowance, await self.spending(begun.key_id), begun.max_price)
        if exceeded is not None:
            raise AllowanceExceeded(exceeded)
        if (begun.job_id, begun.side) in self._jobs:
            raise JobExists(f"job {begun.job_id} was begun before")
        now_ms = self._clock()
        entry = _Entry(_new_record(begun, now_ms), max_price=begun.max_price)
        self._jobs[begun.job_id, begun.side] = entry
        self._keep(entry, (Evidence("quote", begun.quote), Evidence("job_offer", begun.job_offer)), now_ms)

    async def finish_sold(self, result: SoldResult) -> bool:
        self._check_writable()
        entry = self._jobs.get((result.job_id, "sold"))
        found = None if entry is None else (entry.record.state, entry.packet("envelope"))
        if not expect_running(result.job_id, found, result.envelope) or entry is None:
            return False
        if self._last_hash(entry.record.executor_key, entry.record.requester_key, "sold") != result.previous_envelope:
            raise ChainMoved(f"job {result.job_id}: another envelope of this pair was committed meanwhile")
        entry.record = replace(entry.record, state="delivered")
        self._finish(entry, result, (), self._clock())
        return True

    async def record_acceptance(self, job_id: JobId, acceptance: bytes, *, accepted: bool, reason: str = "") -> bool:
        self._check_writable()
        entry = self._jobs.get((job_id, "sold"))
        found = None if entry is None else (entry.record.state, entry.packet("acceptance"))
        if not expect_delivered(job_id, found, acceptance) or entry is None:
            return False
        self._keep(entry, (Evidence("acceptance", acceptance),), self._clock())
        entry.record = replace(entry.record, state=verdict(accepted), failure_code=reason)
        return True

    async def settle_bought(self, settlement: Settlement) -> bool:
        self._check_writable()
        entry = self._jobs.get((settlement.job_id, "bought"))
        found = None if entry is None else (entry.record.state, entry.packet("acceptance"))
        if not expect_running(settlement.job_id, found, settlement.acceptance) or entry is None:
            return False
        entry.record = replace(entry.record, state=verdict(settlement.accepted), failure_code=settlement.reason)
        entry.checks = settlement.checks
        self._finish(entry, settlement, (Evidence("acceptance", settlement.acceptance),), self._clock())
        return True

    async def fail_job(
        self, job_id: JobId, side: Side, code: str, message: str, *, evidence: Sequence[Evidence] = ()
    ) -> bool:
        self._check_writable()
        entry = self._jobs.get((job_id, side))
        if entry is None:
            raise JobUnknown(f"job {job_id} was never begun")
        if entry.record.state != "running":
            return False
        now_ms = self._clock()
        self._keep(entry, evidence, now_ms)
        entry.record = replace(
            entry.record,
            state="failed",
            failure_code=code,
            failure_message=message[:MAX_MESSAGE_CHARACTERS],
            finished_ms=now_ms,
        )
        return True

    async def abandon_unfinished(self) -> tuple[JobRecord, ...]:
        self._check_writable()
        ended = (*await self.unfinished_jobs("bought"), *await self.unfinished_jobs("sold"))
        now_ms = self._clock()
        for job in ended:
            entry = self._jobs[job.job_id, job.side]
            entry.record = replace(job, state="interrupted", failure_code="interrupted", finished_ms=now_ms)
        return ended

    async def job(self, job_id: JobId, side: Side) -> JobRecord | None:
        entry = self._jobs.get((job_id, side))
        return None if entry is None else entry.record

    async def by_completion_id(self, completion_id: str) -> tuple[JobRecord, ...]:
        return _oldest_first(job for job in self._records() if completion_id and job.completion_id == completion_id)

    async def unfinished_jobs(self, side: Side) -> tuple[JobRecord, ...]:
        return _oldest_first(job for job in self._records() if job.side == side and job.state == "running")

    async def last_envelope_hash(self, executor_key: NodeKey, requester_key: NodeKey, side: Side = "sold") -> bytes:
        return self._last_hash(executor_key, requester_key, side)

    async def receipts(self, limit: int, before: int | None = None) -> tuple[ReceiptRecord, ...]:
        older = [record for record in self._receipts() if before is None or record.position < before]
        return tuple(sorted(older, key=lambda record: -record.position)[: max(0, min(limit, MAX_ROWS))])

    async def receipt(self, cid: str) -> ReceiptDetail | None:
        found = [record for record in self._receipts() if record.job.receipt_cid == cid]
        if not found:
            return None
        record = min(found, key=lambda record: (record.job.state == "disputed", record.position))
        job = record.job
        return ReceiptDetail(record, await self.evidence(job.job_id, job.side), await self.checks(job.job_id, job.side))

    async def evidence(self, job_id: JobId, side: Side) -> tuple[EvidenceRecord, ...]:
        entry = self._jobs.get((job_id, side))
        return () if entry is None else tuple(item for _, item in entry.evidence)

    async def checks(self, job_id: JobId, side: Side) -> tuple[Check, ...]:
        entry = self._jobs.get((job_id, side))
        return () if entry is None else entry.checks

    async def totals(self, since_ms: int = 0) -> Totals:
        done = [job for job in self._records() if job.finished_ms is not None and job.finished_ms >= since_ms]
        accepted = [job for job in done if job.side == "sold" and job.state == "accepted"]
        waiting = [job for job in done if job.side == "sold" and job.state == "delivered"]
        bought = [job for job in done if job.side == "bought" and job.state == "accepted"]
        return Totals(
            earned_microcredits=sum(job.cost_microcredits for job in accepted),
            unconfirmed_microcredits=sum(job.cost_microcredits for job in waiting),
            spent_microcredits=sum(job.cost_microcredits for job in bought),
            jobs_sold=len(accepted) + len(waiting),
            jobs_bought=len(bought),
            units_sold=sum(job.prompt_units + job.completion_units for job in (*accepted, *waiting)),
            units_bought=sum(job.prompt_units + job.completion_units for job in bought),
        )

    async def spending(self, key_id: str) -> Spending:
        now_ms = self._clock()
        paid = self._paid(key_id)
        return Spending(
            hour=sum(cost for at_ms, cost in paid if at_ms > now_ms - HOUR_MS),
            day=sum(cost for at_ms, cost in paid if day_of(at_ms) == day_of(now_ms)),
            total=sum(cost for _, cost in paid),
            running=sum(
                entry.max_price
                for entry in self._jobs.values()
                if (entry.record.side, entry.record.state, entry.record.key_id) == ("bought", "running", key_id)
            ),
        )

    async def room_returns_ms(self, key_id: str, microcredits: int) -> int | None:
        now_ms, freed = self._clock(), 0
        for at_ms, cost in sorted(self._paid(key_id)):
            freed += cost if at_ms > now_ms - HOUR_MS else 0
            if at_ms > now_ms - HOUR_MS and freed >= microcredits:
                return at_ms + HOUR_MS
        return None

    def _paid(self, key_id: str) -> list[tuple[int, int]]:
        """(when, how much) of each accepted purchase of a key."""
        return [
            (job.finished_ms, job.cost_microcredits)
            for job in self._records()
            if key_id and job.finished_ms is not None
            if (job.side, job.state, job.key_id) == ("bought", "accepted", key_id)
        ]

    def _check_writable(self) -> None:
        if self._failure is not None:
            raise LedgerUnavailable(self._failure)

    def _records(self) -> Iterable[JobRecord]:
        return (entry.record for entry in self._jobs.values())

    def _receipts(self) -> Iterable[ReceiptRecord]:
        for entry in self._jobs.values():
            for position, item in entry.evidence:
                if item.kind == "receipt":
                    yield ReceiptRecord(position=position, at_ms=item.at_ms, job=entry.record)

    def _last_hash(self, executor_key: NodeKey, requester_key: NodeKey, side: Side) -> bytes:
        pair = [
            entry
            for entry in self._jobs.values()
            if (entry.record.executor_key, entry.record.requester_key, entry.record.side)
            == (executor_key, requester_key, side)
        ]
        last = max(pair, key=lambda entry: entry.envelope_position, default=None)
        return NO_ENVELOPE if last is None or last.envelope_hash is None else last.envelope_hash

    def _keep(self, entry: _Entry, packets: Iterable[Evidence], now_ms: int) -> None:
        for item in packets:
            self._positions += 1
            record = EvidenceRecord(kind=item.kind, packet=item.packet, at_ms=now_ms)
            entry.evidence.append((self._positions, record))

    def _finish(self, entry: _Entry, result: SoldResult | Settlement, more: tuple[Evidence, ...], now_ms: int) -> None:
        self._keep(
            entry,
            (
                Evidence("finished", result.finished),
                Evidence("receipt", result.receipt),
                Evidence("envelope", result.envelope),
                *more,
            ),
            now_ms,
        )
        entry.envelope_hash, entry.envelope_position = result.envelope_hash, self._positions
        entry.record = replace(
            entry.record,
            prompt_units=result.prompt_units,
            completion_units=result.completion_units,
            cost_microcredits=result.cost_microcredits,
            receipt_cid=result.receipt_cid,
            finished_ms=now_ms,
        )


def _new_record(begun: JobBegun, now_ms: int) -> JobRecord:
    return JobRecord(
        job_id=begun.job_id,
        side=begun.side,
        executor_key=begun.executor_key,
        requester_key=begun.requester_key,
        model=begun.model,
        digest=begun.digest,
        jurisdiction=begun.jurisdiction,
        state="running",
        prompt_units=0,
        completion_units=0,
        cost_microcredits=0,
        created_ms=now_ms,
        finished_ms=None,
        failure_code="",
        failure_message="",
        receipt_cid="",
        completion_id=begun.completion_id,
        key_id=begun.key_id,
    )


def _oldest_first(jobs: Iterable[JobRecord]) -> tuple[JobRecord, ...]:
    return tuple(sorted(jobs, key=lambda job: (job.created_ms, job.job_id)))
