"""The ledger as the rest of the node sees it.

`store.SqliteLedger` is the real one, `fake.FakeLedger` an in-memory one with the same contract tests.
Every write is one transaction that runs to its end even when its caller is cancelled; it raises
LedgerUnavailable when nothing can be written, and LedgerConflict when it contradicts what is recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ryvion_node.ledger.records import (
    Evidence,
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
from ryvion_node.ledger.spending import Spending
from ryvion_protocol.checks import Check
from ryvion_protocol.schema import JobId, NodeKey


class JobWriter(Protocol):
    """Records what happens to jobs. Where a method returns bool: False when the very same was recorded before."""

    async def begin_job(self, begun: JobBegun) -> None:
        """Record a job with its quote and offer, before it runs.

        Raises JobExists for a replayed offer, AllowanceExceeded when its key has too little left.
        """
        ...

    async def finish_sold(self, result: SoldResult) -> bool:
        """Executor: commit receipt and envelope, before they are sent; raises ChainMoved, JobUnknown, LedgerConflict."""
        ...

    async def record_acceptance(self, job_id: JobId, acceptance: bytes, *, accepted: bool, reason: str = "") -> bool:
        """Executor: keep the requester's verdict on a delivered job; raises JobUnknown, LedgerConflict."""
        ...

    async def settle_bought(self, settlement: Settlement) -> bool:
        """Requester: commit evidence, checks, cost and verdict in one, before the Acceptance is sent.

        A retry never settles twice; raises JobUnknown, LedgerConflict.
        """
        ...

    async def fail_job(
        self, job_id: JobId, side: Side, code: str, message: str, *, evidence: Sequence[Evidence] = ()
    ) -> bool:
        """End a running job as failed, cost 0. False when it had ended, or was delivered, before: that stays.

        Raises JobUnknown. `message` must hold no prompt or answer.
        """
        ...

    async def abandon_unfinished(self) -> tuple[JobRecord, ...]:
        """At start: end as interrupted what a crash left running; the evidence stays. Returns those jobs."""
        ...


class LedgerReader(Protocol):
    """Answers what was recorded; raises LedgerUnavailable when the file cannot be read."""

    async def job(self, job_id: JobId, side: Side) -> JobRecord | None: ...

    async def by_completion_id(self, completion_id: str) -> tuple[JobRecord, ...]:
        """All jobs that one completion took, oldest first."""
        ...

    async def unfinished_jobs(self, side: Side) -> tuple[JobRecord, ...]:
        """Running ones, oldest first."""
        ...

    async def last_envelope_hash(self, executor_key: NodeKey, requester_key: NodeKey, side: Side = "sold") -> bytes:
        """SHA-256 of the last envelope body between the two; 32 zero bytes when there is none."""
        ...

    async def receipts(self, limit: int, before: int | None = None) -> tuple[ReceiptRecord, ...]:
        """Newest first, at most 1000; `before` is the `position` of the last one seen."""
        ...

    async def receipt(self, cid: str) -> ReceiptDetail | None:
        """A receipt with its evidence and checks."""
        ...

    async def evidence(self, job_id: JobId, side: Side) -> tuple[EvidenceRecord, ...]:
        """A job's packets, in the order they were written."""
        ...

    async def checks(self, job_id: JobId, side: Side) -> tuple[Check, ...]: ...

    async def totals(self, since_ms: int = 0) -> Totals:
        """Earned and spent by jobs that finished since then."""
        ...

    async def spending(self, key_id: str) -> Spending:
        """What an API key has spent, and what its running jobs may cost, now."""
        ...

    async def room_returns_ms(self, key_id: str, microcredits: int) -> int | None:
        """When so much of the last hour's spending will be an hour old; None when less was spent."""
        ...


class Ledger(JobWriter, LedgerReader, Protocol):
    """Both."""

    @property
    def write_failure(self) -> str | None:
        """Why the ledger is read-only since some write failed; None while it works."""
        ...
