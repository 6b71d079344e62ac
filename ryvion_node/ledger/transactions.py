"""What each kind of write does to the tables. Every function returns an operation for the writer to run.

An operation runs inside a transaction, on the writing connection's thread, and either returns or raises; when it
raises, its changes are undone.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from ryvion_node.ledger import queries
from ryvion_node.ledger.errors import ChainMoved, JobExists, JobUnknown
from ryvion_node.ledger.records import (
    MAX_MESSAGE_CHARACTERS,
    NO_ENVELOPE,
    Evidence,
    JobBegun,
    JobRecord,
    JobState,
    Settlement,
    Side,
    SoldResult,
)
from ryvion_node.ledger.rules import expect_delivered, expect_running, verdict
from ryvion_node.ledger.spending import AllowanceExceeded, day_of, overrun
from ryvion_protocol.checks import Check
from ryvion_protocol.schema import JobId

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]

_STATE_AND_PACKET = (
    "SELECT state, (SELECT packet FROM evidence e WHERE e.job_id = j.job_id AND e.side = j.side AND e.kind = ?) "
    "FROM jobs j WHERE job_id = ? AND side = ?"
)
_RESULT = (
    "UPDATE jobs SET state = ?, prompt_units = ?, completion_units = ?, cost_microcredits = ?, finished_ms = ?, "
    "failure_code = ?, receipt_cid = ?, envelope_hash = ?, envelope_seq = "
    "(SELECT seq FROM evidence e WHERE e.job_id = jobs.job_id AND e.side = jobs.side AND e.kind = 'envelope') "
    "WHERE job_id = ? AND side = ?"
)
_SPEND = (
    "INSERT INTO spending (key_id, day, microcredits) SELECT key_id, ?, cost_microcredits FROM jobs "
    "WHERE job_id = ? AND side = 'bought' AND key_id <> '' AND cost_microcredits > 0 "
    "ON CONFLICT (key_id, day) DO UPDATE SET microcredits = microcredits + excluded.microcredits"
)


def begin(begun: JobBegun, now_ms: int) -> Operation[None]:
    """Insert the job with its quote and offer, if its key can pay for it."""

    def run(db: sqlite3.Connection) -> None:
        _expect_room(db, begun, now_ms)
        try:
            db.execute(
                "INSERT INTO jobs (job_id, side, executor_key, requester_key, model, digest, jurisdiction, state, "
                "created_ms, completion_id, key_id, max_price) VALUES (?, ?, ?, ?, ?, ?, ?, 'running', ?, ?, ?, ?)",
                (
                    begun.job_id,
                    begun.side,
                    begun.executor_key,
                    begun.requester_key,
                    begun.model,
                    begun.digest,
                    begun.jurisdiction,
                    now_ms,
                    begun.completion_id,
                    begun.key_id,
                    begun.max_price,
                ),
            )
        except sqlite3.IntegrityError as exc:
            if exc.sqlite_errorcode == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY:
                raise JobExists(f"job {begun.job_id} was begun before") from None
            raise
        packets = (Evidence("quote", begun.quote), Evidence("job_offer", begun.job_offer))
        _keep(db, begun.job_id, begun.side, packets, now_ms)

    return run


def finish_sold(result: SoldResult, now_ms: int) -> Operation[bool]:
    """Move a running job to delivered, extending the pair's chain of envelopes."""

    def run(db: sqlite3.Connection) -> bool:
        row = _one(
            db,
            "SELECT state, (SELECT packet FROM evidence e WHERE e.job_id = j.job_id AND e.side = j.side "
            "AND e.kind = 'envelope'), (SELECT p.envelope_hash FROM jobs p WHERE p.executor_key = j.executor_key "
            "AND p.requester_key = j.requester_key AND p.side = j.side AND p.envelope_seq IS NOT NULL "
            "ORDER BY p.envelope_seq DESC LIMIT 1) FROM jobs j WHERE job_id = ? AND side = 'sold'",
            (result.job_id,),
        )
        if not expect_running(result.job_id, row[:2] if row else None, result.envelope):
            return False
        if (row[2] or NO_ENVELOPE) != result.previous_envelope:
            raise ChainMoved(f"job {result.job_id}: another envelope of this pair was committed meanwhile")
        packets = (
            Evidence("finished", result.finished),
            Evidence("receipt", result.receipt),
            Evidence("envelope", result.envelope),
        )
        _keep(db, result.job_id, "sold", packets, now_ms)
        db.execute(_RESULT, _result_values(result, "delivered", "", now_ms, "sold"))
        return True

    return run


def accept_sold(job_id: JobId, acceptance: bytes, accepted: bool, reason: str, now_ms: int) -> Operation[bool]:
    """Move a delivered job to the requester's verdict."""

    def run(db: sqlite3.Connection) -> bool:
        row = _one(db, _STATE_AND_PACKET, ("acceptance", job_id, "sold"))
        if not expect_delivered(job_id, row, acceptance):
            return False
        _keep(db, job_id, "sold", (Evidence("acceptance", acceptance),), now_ms)
        db.execute(
            "UPDATE jobs SET state = ?, failure_code = ? WHERE job_id = ? AND side = 'sold'",
            (verdict(accepted), reason, job_id),
        )
        return True

    return run


def settle_bought(settlement: Settlement, now_ms: int) -> Operation[bool]:
    """Move a running job to our own verdict, with evidence, checks and cost."""

    def run(db: sqlite3.Connection) -> bool:
        row = _one(db, _STATE_AND_PACKET, ("acceptance", settlement.job_id, "bought"))
        if not expect_running(settlement.job_id, row, settlement.acceptance):
            return False
        packets = (
            Evidence("finished", settlement.finished),
            Evidence("receipt", settlement.receipt),
            Evidence("envelope", settlement.envelope),
            Evidence("acceptance", settlement.acceptance),
        )
        _keep(db, settlement.job_id, "bought", packets, now_ms)
        _keep_checks(db, settlement.job_id, "bought", settlement.checks)
        values = _result_values(settlement, verdict(settlement.accepted), settlement.reason, now_ms, "bought")
        db.execute(_RESULT, values)
        db.execute(_SPEND, (day_of(now_ms), settlement.job_id))
        return True

    return run


def fail(
    job_id: JobId, side: Side, code: str, message: str, evidence: Sequence[Evidence], now_ms: int
) -> Operation[bool]:
    """Move a running job to failed; leave any other alone."""

    def run(db: sqlite3.Connection) -> bool:
        row = _one(db, "SELECT state FROM jobs WHERE job_id = ? AND side = ?", (job_id, side))
        if row is None:
            raise JobUnknown(f"job {job_id} was never begun")
        if row[0] != "running":
            return False
        _keep(db, job_id, side, evidence, now_ms)
        db.execute(
            "UPDATE jobs SET state = 'failed', failure_code = ?, failure_message = ?, finished_ms = ? "
            "WHERE job_id = ? AND side = ?",
            (code, message[:MAX_MESSAGE_CHARACTERS], now_ms, job_id, side),
        )
        return True

    return run


def abandon(now_ms: int) -> Operation[tuple[JobRecord, ...]]:
    """Move every running job to interrupted."""

    def run(db: sqlite3.Connection) -> tuple[JobRecord, ...]:
        ended: list[JobRecord] = []
        for side in ("bought", "sold"):
            query = queries.unfinished_jobs(side)
            ended += map(query.decode, db.execute(query.sql, query.parameters))
        db.execute(
            "UPDATE jobs SET state = 'interrupted', failure_code = 'interrupted', finished_ms = ? WHERE state = 'running'",
            (now_ms,),
        )
        return tuple(ended)

    return run


# --- statements -------------------------------------------------------------------------------------------


def _one(db: sqlite3.Connection, sql: str, parameters: tuple[object, ...]) -> Any:
    return db.execute(sql, parameters).fetchone()


def _expect_room(db: sqlite3.Connection, begun: JobBegun, now_ms: int) -> None:
    """Raise AllowanceExceeded. Jobs are begun one after the other, so each sees those before it as running."""
    if not begun.allowance.limited:
        return
    query = queries.spending(begun.key_id, now_ms)
    spent = query.decode(_one(db, query.sql, query.parameters))
    exceeded = overrun(begun.allowance, spent, begun.max_price)
    if exceeded is not None:
        raise AllowanceExceeded(exceeded)


def _keep(db: sqlite3.Connection, job_id: str, side: Side, packets: Iterable[Evidence], now_ms: int) -> None:
    db.executemany(
        "INSERT INTO evidence (job_id, side, kind, packet, at_ms) VALUES (?, ?, ?, ?, ?)",
        [(job_id, side, item.kind, item.packet, now_ms) for item in packets],
    )


def _keep_checks(db: sqlite3.Connection, job_id: str, side: Side, checks: Sequence[Check]) -> None:
    db.executemany(
        "INSERT INTO checks (job_id, side, position, name, outcome, detail) VALUES (?, ?, ?, ?, ?, ?)",
        [(job_id, side, position, c.name, c.outcome, c.detail) for position, c in enumerate(checks)],
    )


def _result_values(
    result: SoldResult | Settlement, state: JobState, reason: str, now_ms: int, side: Side
) -> tuple[object, ...]:
    return (
        state,
        result.prompt_units,
        result.completion_units,
        result.cost_microcredits,
        now_ms,
        reason,
        result.receipt_cid,
        result.envelope_hash,
        result.job_id,
        side,
    )
