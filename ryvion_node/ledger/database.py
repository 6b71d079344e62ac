"""The ledger's file: taking it for this process alone, checking it, and bringing its tables up to date."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from ryvion_node.ledger.errors import (
    LedgerCorrupt,
    LedgerInUse,
    LedgerNotOpened,
    LedgerTooNew,
)
from ryvion_node.ledger.schema import APPLICATION_ID, MIGRATIONS
from ryvion_node.paths import FILE_MODE, make_private_folder, refuse_too_open

BUSY_TIMEOUT_MS: Final = 5_000
"""How long a statement waits when a person looks at the file with another tool."""
PAGE_BYTES: Final = 4096
MAX_LEDGER_BYTES: Final = 16 * 1024**3
"""About 4 million jobs; beyond that something is wrong, and the disk is left alone."""
SAFE_SQLITE: Final = (3, 51, 3)

COMMON_PRAGMAS: Final = (
    f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}",
    "PRAGMA foreign_keys = ON",
    "PRAGMA recursive_triggers = ON",
    "PRAGMA trusted_schema = OFF",
)
WRITER_PRAGMAS: Final = (*COMMON_PRAGMAS, "PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL")
READER_PRAGMAS: Final = (*COMMON_PRAGMAS, "PRAGMA query_only = ON", "PRAGMA wal_autocheckpoint = 0")
"""The reader never checkpoints: before SQLite 3.51.3 two connections doing so at once could lose data."""

_DAMAGE = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)
_IN_USE = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_STORAGE = (
    *_DAMAGE,
    *_IN_USE,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_NOMEM,
)


def sqlite_warning() -> str | None:
    """For `doctor`: what is wrong with the SQLite that Python came with, or None."""
    if sqlite3.sqlite_version_info >= SAFE_SQLITE:
        return None
    wanted = ".".join(map(str, SAFE_SQLITE))
    return (
        f"SQLite {sqlite3.sqlite_version} is older than {wanted}, the first without a rare WAL corruption when two "
        "connections write and checkpoint at once. The node writes through one connection only, so it is safe; "
        "do not write to the ledger with other tools while it runs."
    )


def error_code(error: sqlite3.Error) -> int | None:
    """SQLite's primary result code, without the extension in the upper bits."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def is_storage_failure(error: Exception) -> bool:
    """Is it the file or the disk, and not the statement? Then the whole transaction is lost."""
    return isinstance(error, sqlite3.Error) and error_code(error) in _STORAGE


def is_passing(error: Exception) -> bool:
    """May the next write succeed, because somebody only holds a lock just now?"""
    return isinstance(error, sqlite3.Error) and error_code(error) in _IN_USE


@contextlib.contextmanager
def hold_ledger(path: Path) -> Iterator[None]:
    """Take the ledger for this process; raises LedgerInUse. A lock of the kernel's: it dies with the process."""
    make_private_folder(path.parent)
    lock_path = path.with_name(path.name + ".lock")
    try:
        descriptor = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    except OSError as exc:
        raise LedgerNotOpened(path=path, reason=(exc.strerror or str(exc)).lower()) from exc
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = file.read(32).decode("ascii", "replace").strip()
            raise LedgerInUse(path=path, holder=f"process {holder}" if holder else "another node") from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n".encode())
        yield


def is_held(path: Path) -> bool:
    """For `doctor`: does a running node hold the ledger? Changes nothing."""
    try:
        with path.with_name(path.name + ".lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def prepare_database(path: Path, migrations: Sequence[str] = MIGRATIONS) -> None:
    """Create or check the file and migrate it, keeping a backup; call with the ledger held.

    Raises LedgerCorrupt, LedgerTooNew, LedgerInUse, LedgerNotOpened or TooOpen.
    """
    with operator_errors(path):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE))
        refuse_too_open(path, path.stat())
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
            for pragma in COMMON_PRAGMAS:
                db.execute(pragma)
            version = schema_version(db, path, len(migrations))
            if version < len(migrations):
                if version > 0:
                    _back_up(db, path, version)
                _migrate(db, migrations, version)
            for pragma in WRITER_PRAGMAS:
                db.execute(pragma)


def schema_version(db: sqlite3.Connection, path: Path, known: int) -> int:
    """The file's schema number, 0 for a new one; raises LedgerCorrupt for another program's file, and LedgerTooNew."""
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    owner = int(db.execute("PRAGMA application_id").fetchone()[0])
    empty = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
    if owner != APPLICATION_ID and not empty:
        raise LedgerCorrupt(path=path, reason="it is a database of another program")
    if version > known:
        raise LedgerTooNew(path=path, found=version, known=known)
    return version


@contextlib.contextmanager
def operator_errors(path: Path) -> Iterator[None]:
    """Translate what SQLite or the operating system says about opening the file."""
    try:
        with sqlite_errors(path):
            yield
    except OSError as exc:
        raise LedgerNotOpened(path=path, reason=(exc.strerror or str(exc)).lower()) from exc


@contextlib.contextmanager
def sqlite_errors(path: Path) -> Iterator[None]:
    """Translate what SQLite says about the file."""
    try:
        yield
    except sqlite3.Error as exc:
        if error_code(exc) in _DAMAGE:
            raise LedgerCorrupt(path=path, reason=str(exc)) from exc
        if error_code(exc) in _IN_USE:
            raise LedgerInUse(path=path, holder="it holds a lock on the database") from exc
        raise LedgerNotOpened(path=path, reason=str(exc)) from exc


def backup_path(path: Path, version: int) -> Path:
    """Where the copy of a file of schema `version` is kept."""
    return path.with_name(f"{path.name}.schema-{version}.backup")


def _back_up(db: sqlite3.Connection, path: Path, version: int) -> None:
    """Copy the database as it is, durably, before a migration touches it."""
    target = backup_path(path, version)
    unfinished = target.with_name(target.name + ".unfinished")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    try:
        with contextlib.closing(sqlite3.connect(unfinished)) as copy:
            db.backup(copy)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    unfinished.replace(target)


def _migrate(db: sqlite3.Connection, migrations: Sequence[str], version: int) -> None:
    """Run what is missing, each migration and its number in one transaction."""
    for number in range(version + 1, len(migrations) + 1):
        steps = migrations[number - 1]
        header = f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {number};"
        try:
            db.executescript(f"BEGIN IMMEDIATE; {steps}; {header} COMMIT;")
        except sqlite3.Error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
