"""The file of knowledge bases: opening it safely, checking it, and bringing its tables up to date.

By apsw, which brings a SQLite of its own: FTS5 is in it, extensions can be loaded, and it is newer than 3.51.3, before
which two connections that write and checkpoint at once could lose data. So several processes may use one file.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import apsw

from ryvion_node.knowledge.constants import BUSY_TIMEOUT_MS, CACHE_KIB, MAX_DATABASE_BYTES, PAGE_BYTES
from ryvion_node.knowledge.errors import KnowledgeCorrupt, KnowledgeInUse, KnowledgeNotOpened, KnowledgeTooNew
from ryvion_node.knowledge.schema import APPLICATION_ID, MIGRATIONS
from ryvion_node.paths import FILE_MODE, make_private_folder, refuse_too_open

_COMMON: Final = (
    "PRAGMA foreign_keys = ON",
    "PRAGMA recursive_triggers = ON",
    f"PRAGMA cache_size = -{CACHE_KIB}",
)
_WRITER: Final = (
    *_COMMON,
    "PRAGMA synchronous = FULL",  # a disclosure must be on disk before the passage leaves
    "PRAGMA secure_delete = ON",  # what an owner deletes is gone from the file
    f"PRAGMA max_page_count = {MAX_DATABASE_BYTES // PAGE_BYTES}",
    f"PRAGMA journal_size_limit = {64 * 1024 * 1024}",
)
_READER: Final = (*_COMMON, "PRAGMA query_only = ON")
_SWITCHES: Final = (
    (apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0),
    (apsw.SQLITE_DBCONFIG_DEFENSIVE, 1),
    (apsw.SQLITE_DBCONFIG_DQS_DML, 0),
    (apsw.SQLITE_DBCONFIG_DQS_DDL, 0),
)
_DAMAGE: Final = (apsw.NotADBError, apsw.CorruptError)
_IN_USE: Final = (apsw.BusyError, apsw.LockedError)


def prepare_database(path: Path, migrations: Sequence[str] = MIGRATIONS) -> None:
    """Create or check the file and migrate it, keeping a backup; one process at a time, others wait.

    Raises KnowledgeCorrupt, KnowledgeTooNew, KnowledgeInUse, KnowledgeNotOpened or TooOpen.
    """
    make_private_folder(path.parent)
    with operator_errors(path), _alone(path):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE))
        refuse_too_open(path, path.stat())
        with contextlib.closing(apsw.Connection(str(path))) as db:
            db.set_busy_timeout(BUSY_TIMEOUT_MS)
            version = schema_version(db, path, len(migrations))
            if version == 0:
                db.execute(f"PRAGMA page_size = {PAGE_BYTES}; PRAGMA auto_vacuum = INCREMENTAL")
            db.execute("PRAGMA journal_mode = WAL")
            if 0 < version < len(migrations):
                _back_up(db, path, version)
            _migrate(db, migrations, version)


def connect(path: Path, *, writing: bool) -> apsw.Connection:
    """A connection with sqlite-vec in it; raises apsw.Error with nothing left open."""
    db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        db.set_busy_timeout(BUSY_TIMEOUT_MS)
        for switch, value in _SWITCHES:
            db.config(switch, value)
        db.config(apsw.SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 1)
        db.load_extension(_vector_extension())
        db.config(apsw.SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0)
        for pragma in _WRITER if writing else _READER:
            db.execute(pragma)
    except BaseException:
        db.close()
        raise
    return db


@contextlib.contextmanager
def operator_errors(path: Path) -> Iterator[None]:
    """Translate what SQLite or the operating system says about opening the file."""
    try:
        yield
    except _DAMAGE as exc:
        raise KnowledgeCorrupt(path=path, reason=str(exc)) from exc
    except _IN_USE as exc:
        raise KnowledgeInUse(path=path) from exc
    except apsw.Error as exc:
        raise KnowledgeNotOpened(path=path, reason=str(exc)) from exc
    except OSError as exc:
        raise KnowledgeNotOpened(path=path, reason=(exc.strerror or str(exc)).lower()) from exc


def find_damage(db: apsw.Connection) -> str | None:
    """What is wrong with the file, for `doctor`; reads all of it."""
    for (verdict,) in db.execute("PRAGMA quick_check(1)"):
        if verdict != "ok":
            return str(verdict)
    return None


def backup_path(path: Path, version: int) -> Path:
    """Where the copy of a file of schema `version` is kept."""
    return path.with_name(f"{path.name}.schema-{version}.backup")


def one(db: apsw.Connection, sql: str, *parameters: Any) -> Any:
    """The first row of a query as a tuple, or None."""
    for row in db.execute(sql, parameters):
        return row
    return None


def rows(db: apsw.Connection, sql: str, *parameters: Any) -> list[Any]:
    """All rows of a query, each a tuple."""
    return list(db.execute(sql, parameters))


def _vector_extension() -> str:
    """The loadable library in the sqlite-vec package. Importing that package would load numpy where it is installed."""
    found = importlib.util.find_spec("sqlite_vec")
    if found is None or not found.submodule_search_locations:
        raise apsw.ExtensionLoadingError("the package sqlite-vec is not installed; install ryvion-node again")
    return str(Path(found.submodule_search_locations[0]) / "vec0")


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold back other processes that open the file; a lock of the kernel's, so it dies with this one."""
    lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def schema_version(db: apsw.Connection, path: Path, known: int) -> int:
    """The file's schema number, 0 for a new one; raises KnowledgeCorrupt for another program's file, KnowledgeTooNew."""
    version = int(db.pragma("user_version"))
    empty = one(db, "SELECT count(*) FROM sqlite_schema")[0] == 0
    if db.pragma("application_id") != APPLICATION_ID and not empty:
        raise KnowledgeCorrupt(path=path, reason="it is a database of another program")
    if version > known:
        raise KnowledgeTooNew(path=path, found=version, known=known)
    return version


def _migrate(db: apsw.Connection, migrations: Sequence[str], version: int) -> None:
    """Run what is missing, each migration and its number in one transaction."""
    for number in range(version + 1, len(migrations) + 1):
        db.execute("BEGIN IMMEDIATE")
        try:
            db.execute(migrations[number - 1])
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {number}")
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise


def _back_up(db: apsw.Connection, path: Path, version: int) -> None:
    """Copy the database as it is, durably, before a migration touches it."""
    target = backup_path(path, version)
    unfinished = target.with_name(target.name + ".unfinished")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    try:
        with contextlib.closing(apsw.Connection(str(unfinished))) as copy, copy.backup("main", db, "main") as copying:
            copying.step()
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    unfinished.replace(target)
