"""The file itself: created private, migrated with a backup, refused when it is not ours, damaged or newer."""

from __future__ import annotations

import stat
from pathlib import Path

import apsw
import pytest

from ryvion_node.knowledge import database
from ryvion_node.knowledge.database import backup_path, connect, prepare_database
from ryvion_node.knowledge.errors import (
    KnowledgeCorrupt,
    KnowledgeInUse,
    KnowledgeNotOpened,
    KnowledgeTooNew,
    KnowledgeUnavailable,
)
from ryvion_node.knowledge.fake import WordEmbedder
from ryvion_node.knowledge.records import DisclosedChunk, Disclosure
from ryvion_node.knowledge.schema import MIGRATIONS
from ryvion_node.knowledge.search import Search
from ryvion_node.paths import TooOpen
from tests.node.knowledge.store_support import ingest_all, opened

SECOND = "ALTER TABLE bases ADD COLUMN note TEXT NOT NULL DEFAULT ''; CREATE TABLE notes (text TEXT) STRICT"
NUMBER = len(MIGRATIONS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "knowledge.db"


@pytest.fixture
def made(path: Path) -> Path:
    """A file without knowledge bases."""
    prepare_database(path)
    return path


def overwrite(path: Path) -> None:
    """All but the header and the names of the tables."""
    data = bytearray(path.read_bytes())
    data[2 * 16_384 :] = b"\xa5" * (len(data) - 2 * 16_384)
    path.write_bytes(data)


def sql(path: Path, statement: str) -> list[tuple[object, ...]]:
    db = apsw.Connection(str(path))
    try:
        return list(db.execute(statement))
    finally:
        db.close()


def test_a_new_file_is_private(made: Path) -> None:
    for one in (made, *made.parent.iterdir()):
        assert stat.S_IMODE(one.stat().st_mode) == 0o600, one
    assert stat.S_IMODE(made.parent.stat().st_mode) == 0o700


def test_a_file_that_others_can_read_is_refused(made: Path) -> None:
    made.chmod(0o644)
    with pytest.raises(TooOpen, match=r"mode 0644.*chmod 600"):
        prepare_database(made)


def test_connections_are_set_up_as_decided(made: Path) -> None:
    db = connect(made, writing=True)
    try:
        for pragma, value in {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "secure_delete": 1}.items():
            assert db.pragma(pragma) == value, pragma
        assert (db.pragma("page_size"), db.pragma("auto_vacuum")) == (16_384, 2)
        assert db.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, -1) == 0
        assert db.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, -1) == 1
        with pytest.raises(apsw.Error, match=r"not authorized|disabled"):
            db.load_extension("anything")
        with pytest.raises(apsw.SQLError, match="no such column"):
            db.execute('SELECT "not a column"')
    finally:
        db.close()


def test_readers_cannot_write(made: Path) -> None:
    db = connect(made, writing=False)
    try:
        with pytest.raises(apsw.ReadOnlyError):
            db.execute("DELETE FROM bases")
    finally:
        db.close()


def test_every_table_is_strict(made: Path) -> None:
    tables = sql(made, "SELECT name, strict FROM pragma_table_list WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    assert len(tables) == 7 and {strict for _, strict in tables} == {1}


async def test_what_left_the_machine_can_be_neither_changed_nor_deleted(path: Path) -> None:
    async with opened(path) as store:
        chunk = DisclosedChunk("chk_" + "ab" * 12, "cd" * 32)
        await store.record_disclosure(Disclosure("job", "", "kb_x", b"k" * 32, "DE", "embedding", 7, (chunk,)))
    for statement in (
        "DELETE FROM disclosures",
        "DELETE FROM disclosed_chunks",
        "UPDATE disclosures SET jurisdiction = 'FR'",
        "UPDATE disclosed_chunks SET sha256 = zeroblob(32)",
        "INSERT OR REPLACE INTO disclosures SELECT * FROM disclosures",
    ):
        db = connect(path, writing=True)
        with pytest.raises(apsw.ConstraintError, match="what left the machine"):
            db.execute(statement)
        db.close()


def test_a_newer_schema_is_refused_untouched(made: Path) -> None:
    sql(made, f"PRAGMA user_version = {NUMBER + 3}")
    before = made.read_bytes()
    with pytest.raises(KnowledgeTooNew, match=f"schema {NUMBER + 3}, this one knows {NUMBER}"):
        prepare_database(made)
    assert made.read_bytes() == before


def test_another_programs_database_is_refused(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    sql(path, "CREATE TABLE theirs (a)")
    path.chmod(0o600)
    with pytest.raises(KnowledgeCorrupt, match="a database of another program"):
        prepare_database(path)


def test_what_is_no_database_is_refused(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    path.write_bytes(b"these are not the pages that you look for " * 500)
    path.chmod(0o600)
    with pytest.raises(KnowledgeCorrupt, match=r"file is not a database.*move it away"):
        prepare_database(path)


def test_a_folder_in_its_place_is_named(path: Path) -> None:
    path.mkdir(parents=True)
    path.parent.chmod(0o700)
    with pytest.raises(KnowledgeNotOpened, match="is a directory"):
        prepare_database(path)


def test_a_file_locked_by_a_tool_is_refused(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 1)
    other = apsw.Connection(str(made))
    other.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(KnowledgeInUse, match="locked by another program"):
            prepare_database(made, (*MIGRATIONS, SECOND))
    finally:
        other.close()
    prepare_database(made, (*MIGRATIONS, SECOND))


async def test_a_migration_keeps_a_backup_and_everything_in_it(path: Path) -> None:
    async with opened(path) as store:
        base = await store.create_knowledge_base("b")
        await store.add_document(base.id, b"tin costs nine euros", "tin.txt")
        await ingest_all(store, WordEmbedder())
    prepare_database(path, (*MIGRATIONS, SECOND))
    backup = backup_path(path, NUMBER)
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    assert sql(path, "SELECT name, note FROM bases") == [("b", "")]
    with pytest.raises(KnowledgeTooNew):
        prepare_database(path)
    backup.replace(path)
    async with opened(path) as store:
        assert await store.find_damage() is None
        assert len((await Search(store, WordEmbedder()).search(base.id, "tin")).passages) == 1


async def test_a_failed_migration_changes_nothing(made: Path) -> None:
    with pytest.raises(KnowledgeNotOpened, match="nothing_there"):
        prepare_database(made, (*MIGRATIONS, "CREATE TABLE half (a TEXT) STRICT; DROP TABLE nothing_there"))
    assert sql(made, "PRAGMA user_version") == [(NUMBER,)]
    prepare_database(made)


async def test_damage_is_found_and_searches_of_it_fail_in_good_order(path: Path) -> None:
    async with opened(path) as store:
        base = await store.create_knowledge_base("b")
        for number in range(40):
            await store.add_document(base.id, f"tin number {number} ".encode() * 200, f"{number}.txt")
        await ingest_all(store, WordEmbedder())
    overwrite(path)
    async with opened(path) as store:
        with pytest.raises(KnowledgeUnavailable, match="malformed"):
            await Search(store, WordEmbedder()).search(base.id, "tin")
        assert await store.find_damage()


async def test_a_full_disk_is_said_and_what_was_there_stays(path: Path) -> None:
    async with opened(path) as store:
        base = await store.create_knowledge_base("b")
        pages = await store.connections.read(lambda db: db.pragma("page_count"))
        store.connections._writer.execute(f"PRAGMA max_page_count = {pages + 2}")
        with pytest.raises(KnowledgeUnavailable, match=r"full.*free space"):
            await store.add_document(base.id, b"x" * 1_000_000, "long.txt")
        assert await store.documents(base.id) == ()
        await store.add_document(base.id, b"short", "short.txt")


async def test_a_write_waits_for_another_program_and_then_says_so(path: Path) -> None:
    async with opened(path) as store:
        other = apsw.Connection(str(path))
        other.execute("BEGIN IMMEDIATE")
        store.connections._writer.set_busy_timeout(1)
        with pytest.raises(KnowledgeUnavailable, match="another program writes"):
            await store.create_knowledge_base("b")
        assert await store.knowledge_bases() == ()
        other.close()
        await store.create_knowledge_base("b")
