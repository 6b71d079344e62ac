"""Every question the ledger answers: the SQL, and how its rows become records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from ryvion_node.ledger.records import (
    NO_ENVELOPE,
    EvidenceRecord,
    JobRecord,
    ReceiptRecord,
    Side,
    Totals,
)
from ryvion_node.ledger.spending import HOUR_MS, Spending, day_of
from ryvion_protocol.checks import Check
from ryvion_protocol.schema import NodeKey

T = TypeVar("T")
Row = Sequence[Any]

MAX_ROWS: Final = 1000
"""Longest page of any list."""
_END: Final = 2**63 - 1

_JOB_COLUMNS: Final = (
    "j.job_id, j.side, j.executor_key, j.requester_key, j.model, j.digest, j.jurisdiction, j.state, j.prompt_units, "
    "j.completion_units, j.cost_microcredits, j.created_ms, j.finished_ms, j.failure_code, j.failure_message, "
    "j.receipt_cid, j.completion_id, j.key_id"
)
_RECEIPTS: Final = (
    f"SELECT e.seq, e.at_ms, {_JOB_COLUMNS} FROM evidence e JOIN jobs j ON j.job_id = e.job_id AND j.side = e.side "
    "WHERE e.kind = 'receipt'"
)
_SPENT: Final = "side = 'bought' AND state = 'accepted' AND key_id <> '' AND key_id = ? AND finished_ms > ?"
"""Covered by the index jobs_spent."""


@dataclass(frozen=True, slots=True)
class Query(Generic[T]):
    """A SELECT with its parameters; `decode` turns one row into a record."""

    sql: str
    parameters: tuple[object, ...]
    decode: Callable[[Row], T]


def job(job_id: str, side: Side) -> Query[JobRecord]:
    """One row, or none."""
    return Query(f"SELECT {_JOB_COLUMNS} FROM jobs j WHERE job_id = ? AND side = ?", (job_id, side), _job)


def jobs_of_completion(completion_id: str) -> Query[JobRecord]:
    """Oldest first."""
    return Query(
        f"SELECT {_JOB_COLUMNS} FROM jobs j WHERE completion_id = ? AND completion_id <> '' ORDER BY created_ms, job_id",
        (completion_id,),
        _job,
    )


def unfinished_jobs(side: Side) -> Query[JobRecord]:
    """Oldest first."""
    return Query(
        f"SELECT {_JOB_COLUMNS} FROM jobs j WHERE side = ? AND state = 'running' ORDER BY created_ms, job_id",
        (side,),
        _job,
    )


def last_envelope_hash(executor_key: NodeKey, requester_key: NodeKey, side: Side) -> Query[bytes]:
    """One row: the hash, or NO_ENVELOPE."""
    sql = (
        "SELECT (SELECT envelope_hash FROM jobs WHERE executor_key = ? AND requester_key = ? AND side = ? "
        "AND envelope_seq IS NOT NULL ORDER BY envelope_seq DESC LIMIT 1)"
    )
    return Query(sql, (executor_key, requester_key, side), lambda row: row[0] or NO_ENVELOPE)


def receipts(limit: int, before: int | None) -> Query[ReceiptRecord]:
    """Newest first, older than the position `before`."""
    sql = f"{_RECEIPTS} AND e.seq < ? ORDER BY e.seq DESC LIMIT ?"
    return Query(sql, (_END if before is None else before, max(0, min(limit, MAX_ROWS))), _receipt)


def receipt_by_cid(cid: str) -> Query[ReceiptRecord]:
    """Ones that were not disputed first, then oldest first: a copy that a liar sent again comes last."""
    sql = f"{_RECEIPTS} AND j.receipt_cid = ? AND j.receipt_cid <> '' ORDER BY j.state = 'disputed', e.seq LIMIT 1"
    return Query(sql, (cid,), _receipt)


def evidence(job_id: str, side: Side) -> Query[EvidenceRecord]:
    """In the order it was written."""
    return Query(
        "SELECT kind, packet, at_ms FROM evidence WHERE job_id = ? AND side = ? ORDER BY seq",
        (job_id, side),
        lambda row: EvidenceRecord(kind=row[0], packet=row[1], at_ms=row[2]),
    )


def checks(job_id: str, side: Side) -> Query[Check]:
    """In the order they were made."""
    return Query(
        "SELECT name, outcome, detail FROM checks WHERE job_id = ? AND side = ? ORDER BY position",
        (job_id, side),
        lambda row: Check(name=row[0], outcome=row[1], detail=row[2]),
    )


def totals(since_ms: int) -> Query[Totals]:
    """One row."""
    units = "prompt_units + completion_units"
    sums = (
        _sum("cost_microcredits", "side = 'sold' AND state = 'accepted'"),
        _sum("cost_microcredits", "side = 'sold' AND state = 'delivered'"),
        _sum("cost_microcredits", "side = 'bought' AND state = 'accepted'"),
        _sum("1", "side = 'sold' AND state IN ('accepted', 'delivered')"),
        _sum("1", "side = 'bought' AND state = 'accepted'"),
        _sum(units, "side = 'sold' AND state IN ('accepted', 'delivered')"),
        _sum(units, "side = 'bought' AND state = 'accepted'"),
    )
    return Query(f"SELECT {', '.join(sums)} FROM jobs WHERE finished_ms >= ?", (since_ms,), lambda row: Totals(*row))


def spending(key_id: str, now_ms: int) -> Query[Spending]:
    """One row."""
    sql = (
        f"SELECT (SELECT coalesce(sum(cost_microcredits), 0) FROM jobs WHERE {_SPENT}), "
        "(SELECT coalesce(sum(microcredits), 0) FROM spending WHERE key_id = ? AND day = ?), "
        "(SELECT coalesce(sum(microcredits), 0) FROM spending WHERE key_id = ?), "
        "(SELECT coalesce(sum(max_price), 0) FROM jobs WHERE side = 'bought' AND state = 'running' AND key_id = ?)"
    )
    parameters = (key_id, now_ms - HOUR_MS, key_id, day_of(now_ms), key_id, key_id)
    return Query(sql, parameters, lambda row: Spending(*row))


def room_returns_ms(key_id: str, microcredits: int, now_ms: int) -> Query[int | None]:
    """One row."""
    sql = (
        f"SELECT min(finished_ms) + {HOUR_MS} FROM (SELECT finished_ms, sum(cost_microcredits) "
        f"OVER (ORDER BY finished_ms) AS freed FROM jobs WHERE {_SPENT}) WHERE freed >= ?"
    )
    return Query(sql, (key_id, now_ms - HOUR_MS, microcredits), lambda row: row[0])


def _sum(value: str, condition: str) -> str:
    return f"coalesce(sum(CASE WHEN {condition} THEN {value} ELSE 0 END), 0)"


def _job(row: Row) -> JobRecord:
    return JobRecord(*row)


def _receipt(row: Row) -> ReceiptRecord:
    return ReceiptRecord(position=row[0], at_ms=row[1], job=JobRecord(*row[2:]))
