"""What only the real ledger does: it lasts, groups its commits, refuses what its rules forbid, and fails closed."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
import trio_asyncio

from ryvion_node.ledger.errors import JobExists, LedgerConflict, LedgerUnavailable
from ryvion_node.ledger.store import SqliteLedger, open_ledger
from tests.node.ledger.ledger_samples import begun, job_id, settlement, sold, ticking

TRIGGERS = [
    "DELETE FROM evidence",
    "UPDATE evidence SET packet = x'00'",
    "DELETE FROM checks",
    "UPDATE checks SET outcome = 'passed'",
    "DELETE FROM jobs",
    "UPDATE jobs SET cost_microcredits = 1",
    "UPDATE jobs SET requester_key = executor_key",
    "UPDATE jobs SET max_price = 0",
    "DELETE FROM spending",
    "UPDATE spending SET microcredits = microcredits - 1",
    "UPDATE spending SET key_id = 'another'",
    "INSERT OR REPLACE INTO evidence (seq, job_id, side, kind, packet, at_ms) SELECT seq, job_id, side, kind, x'00', 0 "
    "FROM evidence",
]


async def test_what_was_written_is_there_after_opening_again(path: Path) -> None:
    async with trio_asyncio.open_loop():
        async with open_ledger(path, clock=ticking()) as ledger:
            await ledger.begin_job(begun())
            await ledger.settle_bought(settlement())
            before = await ledger.receipt(settlement().receipt_cid)
        async with open_ledger(path, clock=ticking()) as ledger:
            assert await ledger.receipt(settlement().receipt_cid) == before
            assert before is not None


async def test_requests_that_wait_share_a_commit(store: SqliteLedger) -> None:
    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(store.begin_job, begun(number))
    assert len(await store.unfinished_jobs("bought")) == 50
    assert store.commits < 10


async def test_a_verdict_is_written_with_the_next_order_or_soon_by_itself(store: SqliteLedger) -> None:
    await store.begin_job(begun(0, "sold"))
    await store.begin_job(begun(1, "sold"))
    await store.finish_sold(sold(0))
    await store.finish_sold(sold(1, previous=sold(0).envelope_hash))
    before = store.commits
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(store.record_acceptance, job_id(0), b"verdict", accepted=True))
        await trio.testing.wait_all_tasks_blocked()
        await store.begin_job(begun(2, "sold"))
    assert store.commits == before + 1
    assert await store.record_acceptance(job_id(1), b"verdict", accepted=True)
    assert store.commits == before + 2
    assert [job.job_id for job in await store.unfinished_jobs("sold")] == [job_id(2)]


async def test_one_refused_request_does_not_take_its_group_with_it(store: SqliteLedger) -> None:
    await store.begin_job(begun(0))
    refused: list[int] = []

    async def begin(number: int) -> None:
        try:
            await store.begin_job(begun(number))
        except JobExists:
            refused.append(number)

    async with trio.open_nursery() as nursery:
        for number in (1, 0, 2, 0, 3):
            nursery.start_soon(begin, number)
    assert refused == [0, 0]
    assert {job.job_id for job in await store.unfinished_jobs("bought")} == {job_id(n) for n in range(4)}


async def test_what_the_tables_forbid_is_a_conflict_and_leaves_nothing(store: SqliteLedger) -> None:
    with pytest.raises(LedgerConflict, match="length"):
        await store.begin_job(replace(begun(), digest=b"short"))
    with pytest.raises(LedgerConflict, match="length"):
        await store.begin_job(replace(begun(), quote=bytes(65537)))
    assert await store.job(job_id(1), "bought") is None
    await store.begin_job(begun())
    with pytest.raises(LedgerConflict, match="CHECK"):
        await store.settle_bought(replace(settlement(accepted=False), cost_microcredits=5))
    assert await store.checks(job_id(1), "bought") == ()
    assert store.write_failure is None


async def test_a_bug_in_one_request_reaches_its_caller_only(store: SqliteLedger) -> None:
    await store.begin_job(begun())
    with pytest.raises(OverflowError):
        await store.settle_bought(replace(settlement(), prompt_units=2**64))
    assert await store.settle_bought(settlement())


@pytest.mark.parametrize("statement", TRIGGERS)
async def test_history_cannot_be_rewritten(store: SqliteLedger, path: Path, statement: str) -> None:
    await store.begin_job(begun())
    await store.settle_bought(settlement())
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("PRAGMA recursive_triggers = ON")
        with pytest.raises(sqlite3.IntegrityError, match="never"):
            other.execute(statement)
    other.close()


async def test_the_durable_settings_are_on(store: SqliteLedger, path: Path) -> None:
    with sqlite3.connect(path) as other:
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        strict = other.execute(
            "SELECT name, strict FROM pragma_table_list WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
        )
        assert dict(strict.fetchall()) == {"jobs": 1, "evidence": 1, "checks": 1, "spending": 1}
    other.close()
    writing, reading = store._writer._db, store._reading
    for pragma, wanted in (("synchronous", 2), ("foreign_keys", 1), ("trusted_schema", 0), ("busy_timeout", 5000)):
        rows = await trio_asyncio.aio_as_trio(writing.execute_fetchall)(f"PRAGMA {pragma}")
        assert [tuple(row) for row in rows] == [(wanted,)], pragma
    rows = await trio_asyncio.aio_as_trio(reading.execute_fetchall)("PRAGMA query_only")
    assert [tuple(row) for row in rows] == [(1,)]


async def fill(ledger: SqliteLedger) -> int:
    """Begin jobs until that fails; returns how many were begun."""
    for number in range(1000):
        try:
            await ledger.begin_job(replace(begun(number), quote=bytes(8000)))
        except LedgerUnavailable:
            return number
    return 1000


async def test_a_full_disk_makes_it_read_only_and_says_why(path: Path) -> None:
    async with trio_asyncio.open_loop():
        async with open_ledger(path, clock=ticking(), max_bytes=40 * 4096) as ledger:
            written = await fill(ledger)
            assert 2 < written < 1000
            assert ledger.write_failure is not None
            assert "read-only until the node is started again" in ledger.write_failure
            with pytest.raises(LedgerUnavailable, match="full"):
                await ledger.fail_job(job_id(0), "bought", "x", "x")
            assert len(await ledger.unfinished_jobs("bought")) == written
        async with open_ledger(path, clock=ticking()) as ledger:
            assert len(await ledger.unfinished_jobs("bought")) == written
            await ledger.begin_job(begun(9999))


async def test_a_lock_that_another_tool_holds_passes(path: Path) -> None:
    async with trio_asyncio.open_loop(), open_ledger(path, clock=ticking()) as ledger:
        await trio_asyncio.aio_as_trio(ledger._writer._db.execute)("PRAGMA busy_timeout = 1")
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerUnavailable, match="locked"):
            await ledger.begin_job(begun())
        other.execute("ROLLBACK")
        other.close()
        assert ledger.write_failure is None
        await ledger.begin_job(begun())


async def test_after_closing_nothing_is_written(path: Path) -> None:
    async with trio_asyncio.open_loop():
        async with open_ledger(path, clock=ticking()) as ledger:
            await ledger.begin_job(begun())
        with pytest.raises(LedgerUnavailable, match="closed"):
            await ledger.begin_job(begun(2))
        with pytest.raises(LedgerUnavailable):
            await ledger.job(job_id(1), "bought")


async def test_what_is_under_way_at_closing_is_still_written(path: Path) -> None:
    async with trio_asyncio.open_loop():
        async with trio.open_nursery() as nursery, open_ledger(path, clock=ticking()) as ledger:
            for number in range(20):
                nursery.start_soon(ledger.begin_job, begun(number))
            await trio.testing.wait_all_tasks_blocked()
        async with open_ledger(path, clock=ticking()) as ledger:
            assert len(await ledger.unfinished_jobs("bought")) == 20


async def test_an_error_inside_comes_out_as_itself(path: Path) -> None:
    async with trio_asyncio.open_loop():
        with pytest.raises(KeyError, match="mine"):
            async with open_ledger(path, clock=ticking()):
                raise KeyError("mine")
        with trio.CancelScope() as scope:
            async with open_ledger(path, clock=ticking()) as ledger:
                scope.cancel()
                await ledger.begin_job(begun())
                await trio.sleep_forever()
        assert scope.cancelled_caught
        async with open_ledger(path, clock=ticking()) as ledger:
            assert await ledger.job(job_id(1), "bought") is not None


async def test_outside_the_loop_it_says_so(path: Path) -> None:
    with pytest.raises(RuntimeError, match="open_loop"):
        async with open_ledger(path, clock=ticking()):
            pass


async def test_two_envelopes_at_once_cannot_fork_the_chain(store: SqliteLedger) -> None:
    for number in (1, 2):
        await store.begin_job(begun(number, "sold"))
    outcomes: list[str] = []

    async def finish(number: int) -> None:
        try:
            outcomes.append(str(await store.finish_sold(sold(number))))
        except LedgerConflict as exc:
            outcomes.append(type(exc).__name__)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(finish, 1)
        nursery.start_soon(finish, 2)
    assert sorted(outcomes) == ["ChainMoved", "True"]
