"""SQLite off the event loop: one connection that writes, a few that read, each on a worker thread."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar

import apsw
import trio

from ryvion_node.knowledge.constants import BUSY_TIMEOUT_MS, READERS
from ryvion_node.knowledge.database import connect, one, operator_errors, prepare_database
from ryvion_node.knowledge.errors import KnowledgeDamaged, KnowledgeUnavailable

T = TypeVar("T")
Operation = Callable[[apsw.Connection], T]
_PASSING: Final = (apsw.BusyError, apsw.LockedError)


@contextlib.asynccontextmanager
async def open_connections(path: Path) -> AsyncIterator[Connections]:
    """Prepare the file at `path` and open it; raises the operator errors of `prepare_database`."""
    with contextlib.ExitStack() as opened:

        def open_all() -> list[apsw.Connection]:
            prepare_database(path)
            with operator_errors(path):
                return [
                    opened.enter_context(contextlib.closing(connect(path, writing=number == 0)))
                    for number in range(READERS + 1)
                ]

        writer, *readers = await trio.to_thread.run_sync(open_all)
        yield Connections(path, writer, readers)


class Connections:
    """Runs whole transactions on threads. One that began is finished, whoever is cancelled meanwhile."""

    def __init__(self, path: Path, writer: apsw.Connection, readers: list[apsw.Connection]) -> None:
        self.path = path
        self._writer = writer
        self._idle = readers
        self._writing = trio.CapacityLimiter(1)
        self._reading = trio.CapacityLimiter(len(readers))

    async def write(self, operation: Operation[T]) -> T:
        """Run `operation` in a transaction, on disk when this returns; raises KnowledgeUnavailable and what it raises."""
        return await trio.to_thread.run_sync(_write, self._writer, operation, limiter=self._writing)

    async def read(self, operation: Operation[T]) -> T:
        """Run `operation` on one state of the database; raises KnowledgeUnavailable and what it raises."""
        return await trio.to_thread.run_sync(self._read, operation, limiter=self._reading)

    async def empty_log(self) -> bool:
        """Bring SQLite's log of changes into the file, and empty it: until then both still hold what was deleted.

        False when there is nothing in it, or somebody reads just now. Raises KnowledgeUnavailable.
        """
        return await trio.to_thread.run_sync(_empty_log, self._writer, self.path, limiter=self._writing)

    def _read(self, operation: Operation[T]) -> T:
        db = self._idle.pop()  # the limiter lets in no more than there are, and list operations are atomic
        try:
            with _as_unavailable("read"), _transaction(db, "BEGIN"):
                return operation(db)
        finally:
            self._idle.append(db)


def _write(db: apsw.Connection, operation: Operation[T]) -> T:
    with _as_unavailable("written"), _transaction(db, "BEGIN IMMEDIATE"):
        return operation(db)


def _empty_log(db: apsw.Connection, path: Path) -> bool:
    log = path.with_name(f"{path.name}-wal")
    if not log.exists() or log.stat().st_size == 0:
        return False
    db.set_busy_timeout(0)  # others would wait as well
    try:
        with _as_unavailable("written"):
            (is_busy, _, _) = one(db, "PRAGMA wal_checkpoint(TRUNCATE)")
    except KnowledgeUnavailable as exc:
        if isinstance(exc.__cause__, _PASSING):
            return False
        raise
    finally:
        db.set_busy_timeout(BUSY_TIMEOUT_MS)
    return not is_busy


@contextlib.contextmanager
def _transaction(db: apsw.Connection, begin: str) -> Iterator[None]:
    db.execute(begin)
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def _as_unavailable(done: str) -> Iterator[None]:
    """Translate what SQLite says about file and disk; a broken rule of the schema (ConstraintError) is our bug."""
    try:
        yield
    except _PASSING as exc:
        raise KnowledgeUnavailable(
            f"the knowledge bases cannot be {done} just now, another program writes to them; try again"
        ) from exc
    except (apsw.CorruptError, apsw.NotADBError) as exc:
        raise KnowledgeDamaged(
            f"the file of the knowledge bases is damaged ({exc}): put a backup in its place"
        ) from exc
    except (apsw.ConstraintError, apsw.SQLError, apsw.MisuseError):
        raise
    except apsw.Error as exc:
        raise KnowledgeUnavailable(f"the knowledge bases cannot be {done}: {exc}; check the disk's free space") from exc
