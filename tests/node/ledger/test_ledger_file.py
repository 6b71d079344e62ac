"""The file itself: created private, held by one node, migrated with a backup, refused when it is not ours or damaged."""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path

import pytest

from ryvion_node.ledger import database
from ryvion_node.ledger.database import backup_path, hold_ledger, prepare_database, sqlite_warning
from ryvion_node.ledger.errors import (
    LedgerCorrupt,
    LedgerInUse,
    LedgerMissing,
    LedgerNotOpened,
    LedgerTooNew,
    LedgerTooOld,
)
from ryvion_node.ledger.reader import read_ledger
from ryvion_node.ledger.schema import MIGRATIONS
from ryvion_node.paths import TooOpen

SECOND = "ALTER TABLE jobs ADD COLUMN note TEXT NOT NULL DEFAULT ''; CREATE TABLE notes (text TEXT) STRICT"
ROW = (
    "INSERT INTO jobs (job_id, side, executor_key, requester_key, model, digest, jurisdiction, state, created_ms, "
    "completion_id, key_id) VALUES ('aa', 'sold', zeroblob(32), zeroblob(32), 'm', zeroblob(32), 'CA', 'running', 5, '', '')"
)


@pytest.fixture
def made(path: Path) -> Path:
    """An empty ledger."""
    path.parent.mkdir(mode=0o700)
    prepare_database(path)
    return path


def sql(path: Path, statement: str) -> list[tuple[object, ...]]:
    db = sqlite3.connect(path)
    try:
        with db:
            return db.execute(statement).fetchall()
    finally:
        db.close()


def test_a_new_file_is_private(path: Path) -> None:
    with hold_ledger(path):
        prepare_database(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert path.with_name("ledger.sqlite3.lock").read_text() == f"{os.getpid()}\n"


def test_a_file_that_others_can_read_is_refused(made: Path) -> None:
    made.chmod(0o644)
    with pytest.raises(TooOpen, match=r"mode 0644.*chmod 600"):
        prepare_database(made)


def test_a_second_node_on_the_same_home_is_refused(path: Path) -> None:
    with hold_ledger(path), pytest.raises(LedgerInUse, match=f"process {os.getpid()}"), hold_ledger(path):
        pass
    with hold_ledger(path):
        pass


def test_a_database_locked_by_a_tool_is_refused(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "COMMON_PRAGMAS", ("PRAGMA busy_timeout = 1",))
    other = sqlite3.connect(made, isolation_level=None)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(LedgerInUse, match="holds a lock"):
            prepare_database(made, (*MIGRATIONS, SECOND))
    finally:
        other.close()


def test_a_newer_schema_is_refused_untouched(made: Path) -> None:
    sql(made, f"PRAGMA user_version = {len(MIGRATIONS) + 3}")
    before = made.read_bytes()
    with pytest.raises(LedgerTooNew, match=f"schema {len(MIGRATIONS) + 3}, this one knows {len(MIGRATIONS)}"):
        prepare_database(made)
    assert made.read_bytes() == before
    with pytest.raises(LedgerTooNew), read_ledger(made):
        pass


def test_an_older_schema_is_migrated_and_backed_up(made: Path) -> None:
    sql(made, ROW)
    prepare_database(made, (*MIGRATIONS, SECOND))
    assert sql(made, "SELECT job_id, note FROM jobs") == [("aa", "")]
    assert sql(made, "PRAGMA user_version") == [(len(MIGRATIONS) + 1,)]
    backup = backup_path(made, len(MIGRATIONS))
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    assert sql(backup, "SELECT job_id, state FROM jobs") == [("aa", "running")]
    assert sql(backup, "PRAGMA user_version") == [(len(MIGRATIONS),)]
    prepare_database(made, (*MIGRATIONS, SECOND))
    assert list(made.parent.glob("*.unfinished")) == []


def test_a_failed_migration_changes_nothing(made: Path) -> None:
    sql(made, ROW)
    with pytest.raises(LedgerNotOpened, match="no such table"):
        prepare_database(made, (*MIGRATIONS, "CREATE TABLE half (a TEXT) STRICT; INSERT INTO missing VALUES (1)"))
    assert sql(made, "SELECT name FROM sqlite_schema WHERE name = 'half'") == []
    assert sql(made, "PRAGMA user_version") == [(len(MIGRATIONS),)]
    prepare_database(made)


def test_a_reader_asks_for_the_migration(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    sqlite3.connect(path).close()
    path.touch()
    with pytest.raises(LedgerTooOld, match="ryvion-node up"), read_ledger(path):
        pass


@pytest.mark.parametrize("content", [b"not a database at all, " * 50, b"SQLite format 3\0" + bytes(4080)])
def test_garbage_is_refused_and_kept(path: Path, content: bytes) -> None:
    path.parent.mkdir(mode=0o700)
    path.touch(0o600)
    path.write_bytes(content)
    with pytest.raises(LedgerCorrupt, match=r"Keep the file"):
        prepare_database(path)
    assert path.read_bytes() == content
    with pytest.raises(LedgerCorrupt), read_ledger(path):
        pass


def test_another_programs_database_is_refused(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    path.touch(0o600)
    sql(path, "CREATE TABLE bookmarks (url TEXT)")
    with pytest.raises(LedgerCorrupt, match="another program"):
        prepare_database(path)


def test_a_damaged_page_is_found_by_the_doctor(made: Path) -> None:
    for number in range(200):
        sql(made, ROW.replace("'aa'", f"'{number:064x}'"))
    sql(made, "PRAGMA wal_checkpoint(TRUNCATE)")
    with read_ledger(made) as view:
        assert view.find_damage() is None
    with made.open("r+b") as file:
        file.seek(made.stat().st_size - 3 * 4096)
        file.write(b"\xff" * 2 * 4096)
    with read_ledger(made) as view:
        assert view.find_damage() is not None


def test_a_missing_ledger_is_named(path: Path) -> None:
    with pytest.raises(LedgerMissing, match="no ledger"), read_ledger(path):
        pass


def test_a_folder_in_the_files_place_is_named(path: Path) -> None:
    path.mkdir(parents=True, mode=0o700)
    path.parent.chmod(0o700)
    with pytest.raises(LedgerNotOpened, match="directory"):
        prepare_database(path)


def test_an_old_sqlite_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 51, 3))
    assert sqlite_warning() is None
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 40, 1))
    assert "older than 3.51.3" in (sqlite_warning() or "")
