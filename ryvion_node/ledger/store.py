"""The node's ledger on SQLite: one connection that writes in groups, one that reads."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import trio
import trio_asyncio

from ryvion_node.ledger import transactions
from ryvion_node.ledger.connection import LedgerConnection, connect
from ryvion_node.ledger.database import (
    MAX_LEDGER_BYTES,
    PAGE_BYTES,
    READER_PRAGMAS,
    WRITER_PRAGMAS,
    hold_ledger,
    operator_errors,
    prepare_database,
)
from ryvion_node.ledger.errors import LedgerUnavailable
from ryvion_node.ledger.reader import LedgerView
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
from ryvion_node.ledger.writer import GroupWriter
from ryvion_protocol.checks import Check
from ryvion_protocol.schema import JobId, NodeKey

T = TypeVar("T")
Clock = Callable[[], int]
"""Unix milliseconds."""


@contextlib.asynccontextmanager
async def open_ledger(path: Path, *, clock: Clock, max_bytes: int = MAX_LEDGER_BYTES) -> AsyncIterator[SqliteLedger]:
    """Take, check and open the ledger at `path`, inside `trio_asyncio.open_loop()`.

    Raises LedgerInUse, LedgerCorrupt, LedgerTooNew, LedgerNotOpened or TooOpen. On leaving, what was submitted
    is still written.
    """
    loop = trio_asyncio.current_loop.get()
    if loop is None:
        raise RuntimeError("open_ledger must run inside trio_asyncio.open_loop()")
    pages = max(1, max_bytes // PAGE_BYTES)
    failure: BaseException | None = None
    with hold_ledger(path):
        await trio.to_thread.run_sync(prepare_database, path)
        async with (
            _connection(path, (*WRITER_PRAGMAS, f"PRAGMA max_page_count = {pages}"), loop) as writing,
            _connection(path, READER_PRAGMAS, loop) as reading,
            trio.open_nursery() as nursery,
        ):
            writer = GroupWriter(writing, loop)
            nursery.start_soon(writer.run)
            try:
                yield SqliteLedger(writer, reading, loop, clock)
            except BaseException as exc:  # noqa: BLE001 - raised again below, out of the nursery, so that it is not wrapped in a group
                failure = exc
            finally:
                writer.close()
        if failure is not None:
            raise failure


class SqliteLedger:
    """See `interface.Ledger` for what each method promises."""

    def __init__(
        self, writer: GroupWriter, reading: LedgerConnection, loop: trio_asyncio.TrioEventLoop, clock: Clock
    ) -> None:
        self._writer = writer
        self._reading = reading
        self._loop = loop
        self._clock = clock

    @property
    def write_failure(self) -> str | None:
        return self._writer.failure

    @property
    def commits(self) -> int:
        """Transactions committed since it was opened; fewer than writes when they were grouped."""
        return self._writer.commits

    async def begin_job(self, begun: JobBegun) -> None:
        await self._writer.submit(transactions.begin(begun, self._clock()))

    async def finish_sold(self, result: SoldResult) -> bool:
        return await self._writer.submit(transactions.finish_sold(result, self._clock()))

    async def record_acceptance(self, job_id: JobId, acceptance: bytes, *, accepted: bool, reason: str = "") -> bool:
        operation = transactions.accept_sold(job_id, acceptance, accepted, reason, self._clock())
        return await self._writer.submit(operation, can_wait=True)

    async def settle_bought(self, settlement: Settlement) -> bool:
        return await self._writer.submit(transactions.settle_bought(settlement, self._clock()))

    async def fail_job(
        self, job_id: JobId, side: Side, code: str, message: str, *, evidence: Sequence[Evidence] = ()
    ) -> bool:
        operation = transactions.fail(job_id, side, code, message, tuple(evidence), self._clock())
        return await self._writer.submit(operation)

    async def abandon_unfinished(self) -> tuple[JobRecord, ...]:
        return await self._writer.submit(transactions.abandon(self._clock()))

    async def job(self, job_id: JobId, side: Side) -> JobRecord | None:
        return await self._read(lambda view: view.job(job_id, side))

    async def by_completion_id(self, completion_id: str) -> tuple[JobRecord, ...]:
        return await self._read(lambda view: view.by_completion_id(completion_id))

    async def unfinished_jobs(self, side: Side) -> tuple[JobRecord, ...]:
        return await self._read(lambda view: view.unfinished_jobs(side))

    async def last_envelope_hash(self, executor_key: NodeKey, requester_key: NodeKey, side: Side = "sold") -> bytes:
        return await self._read(lambda view: view.last_envelope_hash(executor_key, requester_key, side))

    async def receipts(self, limit: int, before: int | None = None) -> tuple[ReceiptRecord, ...]:
        return await self._read(lambda view: view.receipts(limit, before))

    async def receipt(self, cid: str) -> ReceiptDetail | None:
        return await self._read(lambda view: view.receipt(cid))

    async def evidence(self, job_id: JobId, side: Side) -> tuple[EvidenceRecord, ...]:
        return await self._read(lambda view: view.evidence(job_id, side))

    async def checks(self, job_id: JobId, side: Side) -> tuple[Check, ...]:
        return await self._read(lambda view: view.checks(job_id, side))

    async def totals(self, since_ms: int = 0) -> Totals:
        return await self._read(lambda view: view.totals(since_ms))

    async def spending(self, key_id: str) -> Spending:
        now_ms = self._clock()
        return await self._read(lambda view: view.spending(key_id, now_ms))

    async def room_returns_ms(self, key_id: str, microcredits: int) -> int | None:
        now_ms = self._clock()
        return await self._read(lambda view: view.room_returns_ms(key_id, microcredits, now_ms))

    async def _read(self, ask: Callable[[LedgerView], T]) -> T:
        """Shielded, because it is short and a half-cancelled crossing is not worth its trouble."""
        run = trio_asyncio.aio_as_trio(self._reading.run, loop=self._loop)
        with trio.CancelScope(shield=True):
            try:
                answer: T = await run(lambda db: ask(LedgerView(db)))
            except (sqlite3.Error, ValueError) as exc:
                raise LedgerUnavailable(f"the ledger cannot be read: {exc}") from exc
        return answer


@contextlib.asynccontextmanager
async def _connection(
    path: Path, pragmas: Iterable[str], loop: trio_asyncio.TrioEventLoop
) -> AsyncIterator[LedgerConnection]:
    with trio.CancelScope(shield=True), operator_errors(path):
        db = await trio_asyncio.aio_as_trio(connect, loop=loop)(path, tuple(pragmas))
    try:
        yield db
    finally:
        with trio.CancelScope(shield=True):
            await trio_asyncio.aio_as_trio(db.close, loop=loop)()
