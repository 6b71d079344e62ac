"""The command line's view shows what the node's own ledger shows, while the node runs, and changes nothing."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from ryvion_node.ledger import queries
from ryvion_node.ledger.errors import LedgerNotOpened
from ryvion_node.ledger.reader import read_ledger
from ryvion_node.ledger.store import SqliteLedger
from tests.node.ledger.ledger_samples import EXECUTOR, REQUESTER, begun, job_id, settlement, sold


async def test_it_agrees_with_the_running_ledger(store: SqliteLedger, path: Path) -> None:
    await store.begin_job(begun(1, completion_id="chatcmpl-1"))
    await store.settle_bought(settlement(1))
    await store.begin_job(begun(2, "sold"))
    await store.finish_sold(sold(2))
    await store.begin_job(begun(3))
    with read_ledger(path) as view:
        assert view.job(job_id(2), "sold") == await store.job(job_id(2), "sold")
        assert view.job(job_id(9), "sold") is None
        assert view.by_completion_id("chatcmpl-1") == await store.by_completion_id("chatcmpl-1")
        assert view.receipts(10) == await store.receipts(10)
        assert view.receipts(1, before=view.receipts(1)[0].position) == (await store.receipts(10))[1:]
        assert view.receipt(settlement(1).receipt_cid) == await store.receipt(settlement(1).receipt_cid)
        assert view.receipt("ryv1:sha256:none") is None
        assert view.totals() == await store.totals()
        assert view.find_damage() is None


async def test_it_cannot_write(store: SqliteLedger, path: Path) -> None:
    await store.begin_job(begun())
    with pytest.raises(LedgerNotOpened, match="readonly"), read_ledger(path) as view:
        view._db.execute("UPDATE jobs SET model = 'x'")


async def test_an_error_of_the_readers_user_stays_what_it_is(store: SqliteLedger, path: Path) -> None:
    with pytest.raises(BrokenPipeError), read_ledger(path):
        raise BrokenPipeError
    await store.begin_job(begun())


@pytest.mark.parametrize(
    "query",
    [
        queries.job("a", "sold"),
        queries.jobs_of_completion("c"),
        queries.unfinished_jobs("sold"),
        queries.last_envelope_hash(EXECUTOR, REQUESTER, "sold"),
        queries.receipts(10, None),
        queries.receipt_by_cid("ryv1:sha256:00"),
        queries.evidence("a", "sold"),
        queries.checks("a", "sold"),
        queries.totals(1),
    ],
    ids=lambda query: query.sql[-40:],
)
async def test_no_question_reads_a_whole_table(store: SqliteLedger, path: Path, query: queries.Query[object]) -> None:
    await store.begin_job(begun())
    with contextlib.closing(sqlite3.connect(path)) as db:
        plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {query.sql}", query.parameters)]
    assert plan
    assert not [step for step in plan if step.startswith("SCAN") and step != "SCAN CONSTANT ROW"]
