"""A synchronous view of the ledger; `read_ledger` opens one for the command line, while the node may run."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from ryvion_node.ledger import queries
from ryvion_node.ledger.database import COMMON_PRAGMAS, schema_version, sqlite_errors
from ryvion_node.ledger.errors import LedgerMissing, LedgerTooOld
from ryvion_node.ledger.records import EvidenceRecord, JobRecord, ReceiptDetail, ReceiptRecord, Side, Totals
from ryvion_node.ledger.schema import MIGRATIONS
from ryvion_node.ledger.spending import Spending
from ryvion_protocol.checks import Check
from ryvion_protocol.schema import NodeKey

T = TypeVar("T")


@contextlib.contextmanager
def read_ledger(path: Path) -> Iterator[LedgerView]:
    """Open `path` read-only; raises LedgerMissing, LedgerTooOld, LedgerTooNew, LedgerCorrupt, LedgerInUse."""
    if not path.exists():
        raise LedgerMissing(path=path)
    with (
        sqlite_errors(path),
        contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db,
    ):
        for pragma in COMMON_PRAGMAS:
            db.execute(pragma)
        version = schema_version(db, path, len(MIGRATIONS))
        if version < len(MIGRATIONS):
            raise LedgerTooOld(path=path, found=version, known=len(MIGRATIONS))
        yield LedgerView(db)


class LedgerView:
    """What `interface.LedgerReader` promises, without waiting; the node's own ledger reads through it as well."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def job(self, job_id: str, side: Side) -> JobRecord | None:
        return self._first(queries.job(job_id, side))

    def by_completion_id(self, completion_id: str) -> tuple[JobRecord, ...]:
        """All jobs that one completion took, oldest first."""
        return self._all(queries.jobs_of_completion(completion_id))

    def unfinished_jobs(self, side: Side) -> tuple[JobRecord, ...]:
        """Running ones, oldest first."""
        return self._all(queries.unfinished_jobs(side))

    def last_envelope_hash(self, executor_key: NodeKey, requester_key: NodeKey, side: Side) -> bytes:
        """SHA-256 of the last envelope body between the two; 32 zero bytes when there is none."""
        return self._all(queries.last_envelope_hash(executor_key, requester_key, side))[0]

    def receipts(self, limit: int, before: int | None = None) -> tuple[ReceiptRecord, ...]:
        """Newest first, at most 1000; `before` is the `position` of the last one seen."""
        return self._all(queries.receipts(limit, before))

    def receipt(self, cid: str) -> ReceiptDetail | None:
        """A receipt with its evidence and checks."""
        record = self._first(queries.receipt_by_cid(cid))
        if record is None:
            return None
        job = record.job
        return ReceiptDetail(record, self.evidence(job.job_id, job.side), self.checks(job.job_id, job.side))

    def evidence(self, job_id: str, side: Side) -> tuple[EvidenceRecord, ...]:
        """A job's packets, in the order they were written."""
        return self._all(queries.evidence(job_id, side))

    def checks(self, job_id: str, side: Side) -> tuple[Check, ...]:
        return self._all(queries.checks(job_id, side))

    def totals(self, since_ms: int = 0) -> Totals:
        """Earned and spent by jobs that finished since then."""
        return self._all(queries.totals(since_ms))[0]

    def spending(self, key_id: str, now_ms: int) -> Spending:
        """What an API key has spent, and what its running jobs may cost."""
        return self._all(queries.spending(key_id, now_ms))[0]

    def room_returns_ms(self, key_id: str, microcredits: int, now_ms: int) -> int | None:
        """When so much of the last hour's spending will be an hour old; None when less was spent."""
        return self._all(queries.room_returns_ms(key_id, microcredits, now_ms))[0]

    def find_damage(self) -> str | None:
        """For `doctor`: SQLite's own check of the whole file, its first complaint or None. Takes seconds per GB."""
        verdict = str(self._db.execute("PRAGMA quick_check(1)").fetchone()[0])
        return None if verdict == "ok" else verdict

    def _all(self, query: queries.Query[T]) -> tuple[T, ...]:
        return tuple(query.decode(row) for row in self._db.execute(query.sql, query.parameters))

    def _first(self, query: queries.Query[T]) -> T | None:
        found = self._all(query)
        return found[0] if found else None
