"""The command line's view shows what the node's own ledger shows, while the node runs, and changes nothing."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from ryvion_node.ledger.reader import read_ledger
from ryvion_node.ledger.store import SqliteLedger
from tests.node.ledger.ledger_samples import begun, job_id, settlement, sold


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
    with read_ledger(path) as view, pytest.raises(sqlite3.OperationalError, match="readonly"):
        view._db.execute("UPDATE jobs SET model = 'x'")
