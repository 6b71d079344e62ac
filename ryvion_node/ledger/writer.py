"""One task that writes, many that ask: whatever waits is committed in one transaction.

A disk flush costs the same for one request as for fifty, so requests that arrive while one is under way share
the next. Each runs in its own savepoint: one that is refused does not take the others with it.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

import trio
import trio_asyncio

from ryvion_node.ledger.connection import LedgerConnection
from ryvion_node.ledger.database import is_passing, is_storage_failure
from ryvion_node.ledger.errors import LedgerConflict, LedgerUnavailable
from ryvion_node.ledger.transactions import Operation

T = TypeVar("T")

MAX_GROUP: Final = 64
"""Requests per transaction: about 10 ms of work, so nobody waits long for the others."""
MAX_WAITING: Final = 1024
"""Requests in the queue; further callers wait to get in."""
PATIENCE_S: Final = 0.05
"""How long what nobody waits for is held back for a transaction that comes anyway: a flush less for each sale."""
_CLOSED: Final = "the ledger is closed"


class _Request:
    """An operation on its way, and how it went."""

    __slots__ = ("can_wait", "done", "error", "run")

    def __init__(self, run: Callable[[sqlite3.Connection], None], can_wait: bool) -> None:
        self.run = run
        self.can_wait = can_wait
        self.done = trio.Event()
        self.error: Exception | None = None


class GroupWriter:
    """Owns the writing connection. `failure` says why nothing can be written any more, None while all is well."""

    def __init__(self, db: LedgerConnection, loop: trio_asyncio.TrioEventLoop) -> None:
        self._db = db
        self._loop = loop
        self._send, self._requests = trio.open_memory_channel[_Request](MAX_WAITING)
        self.failure: str | None = None
        self.commits = 0
        """Transactions committed."""

    async def submit(self, operation: Operation[T], *, can_wait: bool = False) -> T:
        """Run `operation` in a transaction and return once it is on disk; a cancelled caller still waits for that.

        What `can_wait` is written with the next operation that cannot, or after PATIENCE_S.
        """
        results: list[T] = []

        def run(db: sqlite3.Connection) -> None:
            results.append(operation(db))

        request = _Request(run, can_wait)
        with trio.CancelScope(shield=True):
            try:
                await self._send.send(request)
            except trio.ClosedResourceError:
                raise LedgerUnavailable(_CLOSED) from None
            await request.done.wait()
        if request.error is not None:
            raise request.error
        return results[0]

    async def run(self) -> None:
        """Write until closed. Shielded: callers wait for their answer, so it must come whatever is cancelled."""
        with trio.CancelScope(shield=True):
            async for first in self._requests:
                group = [first]
                with contextlib.suppress(trio.WouldBlock, trio.EndOfChannel):
                    await self._wait_for_others(group)
                    while len(group) < MAX_GROUP:
                        group.append(self._requests.receive_nowait())
                await self._write(group)

    def close(self) -> None:
        """Take no more requests; `run` returns when the queue is empty."""
        self._send.close()

    async def _wait_for_others(self, group: list[_Request]) -> None:
        with trio.move_on_after(PATIENCE_S):
            while group[-1].can_wait and len(group) < MAX_GROUP:
                group.append(await self._requests.receive())

    async def _write(self, group: list[_Request]) -> None:
        """Commit the group and answer every request in it."""
        try:
            if self.failure is not None:
                raise LedgerUnavailable(self.failure)
            await trio_asyncio.aio_as_trio(self._db.run, loop=self._loop)(partial(_commit, group=group))
            self.commits += 1
        except Exception as exc:  # noqa: BLE001 - whatever it is, every waiting caller must get an answer
            error = self._unavailable(exc)
            for request in group:
                request.error = error
        for request in group:
            request.done.set()

    def _unavailable(self, exc: Exception) -> LedgerUnavailable:
        if isinstance(exc, LedgerUnavailable):
            return exc
        reason = f"the ledger cannot be written: {exc}"
        if not is_passing(exc):
            self.failure = f"{reason}; it is read-only until the node is started again"
            reason = self.failure
        error = LedgerUnavailable(reason)
        error.__cause__ = exc
        return error


def _commit(db: sqlite3.Connection, group: list[_Request]) -> None:
    """One transaction for the group, on the connection's thread; raises when the transaction as a whole is lost."""
    db.execute("BEGIN IMMEDIATE")
    try:
        for request in group:
            request.error = _attempt(db, request)
        db.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise


def _attempt(db: sqlite3.Connection, request: _Request) -> Exception | None:
    """Run one request in its own savepoint; returns what refused it."""
    db.execute("SAVEPOINT request")
    try:
        request.run(db)
    except Exception as exc:
        if is_storage_failure(exc):
            raise
        db.execute("ROLLBACK TO request")
        db.execute("RELEASE request")
        return (
            LedgerConflict(f"the ledger's rules forbid it: {exc}") if isinstance(exc, sqlite3.IntegrityError) else exc
        )
    db.execute("RELEASE request")
    return None
