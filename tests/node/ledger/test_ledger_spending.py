"""What keys may spend: counted from the begin of a job, by hour, day and in total, whatever runs at once."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
import trio_asyncio
from hypothesis import given
from hypothesis import strategies as st

from ryvion_node.ledger import queries
from ryvion_node.ledger.database import prepare_database
from ryvion_node.ledger.fake import FakeLedger
from ryvion_node.ledger.interface import Ledger
from ryvion_node.ledger.reader import read_ledger
from ryvion_node.ledger.schema import MIGRATIONS
from ryvion_node.ledger.spending import DAY_MS, HOUR_MS, Allowance, AllowanceExceeded, Overrun, Spending, left, overrun
from ryvion_node.ledger.store import open_ledger
from tests.node.ledger.ledger_samples import begun, job_id, settlement

NOON_MS = 20_000 * DAY_MS + DAY_MS // 2


@dataclass(slots=True)
class Clock:
    now_ms: int = NOON_MS

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sqlite", "fake"])
async def ledger(request: pytest.FixtureRequest, path: Path, clock: Clock) -> AsyncIterator[Ledger]:
    if request.param == "fake":
        yield FakeLedger(clock=clock)
        return
    async with trio_asyncio.open_loop(), open_ledger(path, clock=clock) as opened:
        yield opened


async def bought(ledger: Ledger, number: int, cost: int = 700) -> None:
    await ledger.begin_job(begun(number))
    await ledger.settle_bought(settlement(number, cost=cost))


async def test_a_running_job_counts_with_the_most_it_may_cost_and_a_finished_one_with_what_it_did(
    ledger: Ledger,
) -> None:
    await ledger.begin_job(begun(1, max_price=1_000))
    assert await ledger.spending("key-1") == Spending(running=1_000)
    await ledger.settle_bought(settlement(1, cost=300))
    assert await ledger.spending("key-1") == Spending(hour=300, day=300, total=300)
    assert await ledger.spending("key-2") == Spending()


@pytest.mark.parametrize("end", ["disputed", "failed", "interrupted"])
async def test_a_job_that_ends_badly_gives_everything_back(ledger: Ledger, end: str) -> None:
    await ledger.begin_job(begun(1))
    match end:
        case "disputed":
            await ledger.settle_bought(settlement(1, accepted=False))
        case "failed":
            await ledger.fail_job(job_id(1), "bought", "node_failed", "it broke")
        case _:
            await ledger.abandon_unfinished()
    assert await ledger.spending("key-1") == Spending()


async def test_what_is_sold_is_nobodys_spending(ledger: Ledger) -> None:
    await ledger.begin_job(begun(1, "sold"))
    assert await ledger.spending("") == await ledger.spending("key-1") == Spending()


async def test_hours_roll_days_end_and_totals_stay(ledger: Ledger, clock: Clock) -> None:
    await bought(ledger, 1, 100)
    clock.now_ms += HOUR_MS - 1
    await bought(ledger, 2, 20)
    assert await ledger.spending("key-1") == Spending(hour=120, day=120, total=120)
    clock.now_ms += 1
    assert await ledger.spending("key-1") == Spending(hour=20, day=120, total=120)
    clock.now_ms = NOON_MS + DAY_MS // 2 - 1
    assert (await ledger.spending("key-1")).day == 120
    clock.now_ms += 1
    assert await ledger.spending("key-1") == Spending(hour=0, day=0, total=120)


async def test_it_is_known_when_room_returns(ledger: Ledger, clock: Clock) -> None:
    await bought(ledger, 1, 100)
    clock.now_ms += 60_000
    await bought(ledger, 2, 20)
    assert await ledger.room_returns_ms("key-1", 1) == NOON_MS + HOUR_MS
    assert await ledger.room_returns_ms("key-1", 100) == NOON_MS + HOUR_MS
    assert await ledger.room_returns_ms("key-1", 101) == NOON_MS + HOUR_MS + 60_000
    assert await ledger.room_returns_ms("key-1", 121) is None
    assert await ledger.room_returns_ms("key-2", 1) is None


async def test_a_job_without_room_is_not_begun(ledger: Ledger) -> None:
    allowance = Allowance(total=1_500)
    await ledger.begin_job(begun(1, max_price=1_000, allowance=allowance))
    with pytest.raises(AllowanceExceeded) as refused:
        await ledger.begin_job(begun(2, max_price=501, allowance=allowance))
    assert refused.value.overrun == Overrun("total", held=True)
    assert await ledger.job(job_id(2), "bought") is None
    await ledger.begin_job(begun(2, max_price=500, allowance=allowance))
    await ledger.begin_job(begun(3, max_price=500, allowance=allowance, key_id="key-2"))


@pytest.mark.parametrize("limit", ["hour", "day", "total"])
async def test_jobs_begun_at_once_never_pass_a_limit_together(ledger: Ledger, limit: str) -> None:
    allowance = Allowance(**{limit: 5_000})
    refused: list[int] = []

    async def spend(number: int) -> None:
        try:
            await ledger.begin_job(begun(number, max_price=1_000, allowance=allowance))
            await ledger.settle_bought(settlement(number, cost=1_000))
        except AllowanceExceeded:
            refused.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(spend, number)
    assert len(refused) == 15
    assert await ledger.spending("key-1") == Spending(5_000, 5_000, 5_000)


async def test_what_was_spent_is_known_after_a_restart(path: Path, clock: Clock) -> None:
    async with trio_asyncio.open_loop():
        async with open_ledger(path, clock=clock) as ledger:
            await bought(ledger, 1, 100)
            await ledger.begin_job(begun(2))
        async with open_ledger(path, clock=clock) as ledger:
            await ledger.abandon_unfinished()
            assert await ledger.spending("key-1") == Spending(100, 100, 100)
    with read_ledger(path) as view:
        assert view.spending("key-1", clock()) == Spending(100, 100, 100)
        assert view.room_returns_ms("key-1", 50, clock()) == NOON_MS + HOUR_MS


def test_what_was_spent_before_is_counted_when_the_file_is_brought_up_to_date(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    prepare_database(path, MIGRATIONS[:1])
    with sqlite3.connect(path) as db:
        for number, (state, side, cost, at_ms, key) in enumerate(
            [
                ("accepted", "bought", 5, NOON_MS, "key-1"),
                ("accepted", "bought", 7, NOON_MS, "key-1"),
                ("accepted", "bought", 20, NOON_MS - DAY_MS, "key-1"),
                ("accepted", "bought", 300, NOON_MS, ""),
                ("accepted", "sold", 4_000, NOON_MS, "key-1"),
                ("failed", "bought", 0, NOON_MS, "key-1"),
            ]
        ):
            db.execute(
                "INSERT INTO jobs (job_id, side, executor_key, requester_key, model, digest, jurisdiction, state, "
                "created_ms, completion_id, key_id, cost_microcredits, finished_ms) "
                "VALUES (?, ?, zeroblob(32), zeroblob(32), 'm', zeroblob(32), 'CA', ?, 5, '', ?, ?, ?)",
                (f"job {number}", side, state, key, cost, at_ms),
            )
    db.close()
    prepare_database(path)
    with read_ledger(path) as view:
        assert view.spending("key-1", NOON_MS) == Spending(hour=12, day=12, total=32)


MONEY = st.integers(0, 20)
ALLOWANCES = st.builds(Allowance, *(st.none() | MONEY for _ in range(3)))


@given(ALLOWANCES, st.builds(Spending, MONEY, MONEY, MONEY, MONEY), st.integers(1, 20))
def test_a_job_passes_exactly_when_it_costs_no_more_than_is_left(
    allowance: Allowance, spent: Spending, max_price: int
) -> None:
    room = left(allowance, spent)
    found = overrun(allowance, spent, max_price)
    assert (found is None) == (room is None or max_price <= room)
    assert allowance.limited == (room is not None)
    if found is not None:
        idle = Spending(spent.hour, spent.day, spent.total)
        assert not found.held or overrun(Allowance(**{found.limit: getattr(allowance, found.limit)}), idle, 1) is None
    assert overrun(allowance, spent, 0) is None


def test_the_last_hour_is_added_up_from_an_index_alone(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    prepare_database(path)
    with contextlib.closing(sqlite3.connect(path)) as db:
        for query in (queries.spending("key-1", NOON_MS), queries.room_returns_ms("key-1", 1, NOON_MS)):
            plan = [str(row[3]) for row in db.execute(f"EXPLAIN QUERY PLAN {query.sql}", query.parameters)]
            assert any("USING COVERING INDEX jobs_spent" in step for step in plan)
            assert not any(step.startswith("SCAN jobs") for step in plan)
