"""The tables of knowledge bases, as numbered migrations. A released migration is never edited; changes are new ones.

Each knowledge base has index tables of its own besides (`index.py`), named by its number: statistics of words are
those of its own documents, and deleting it drops them whole.
"""

from __future__ import annotations

from typing import Final

APPLICATION_ID: Final = 0x52_59_56_4B
"""`RYVK` in the file's header, so that another program's database is not taken for ours."""

_FIRST = """
CREATE TABLE bases (
    number        INTEGER PRIMARY KEY AUTOINCREMENT,
    id            TEXT    NOT NULL UNIQUE,
    name          TEXT    NOT NULL,
    jurisdictions TEXT    NOT NULL,
    key_id        TEXT    NOT NULL,
    created_ms    INTEGER NOT NULL,
    documents     INTEGER NOT NULL DEFAULT 0, -- kept by triggers: every search and step asks, and counting 100,000 took 0.1 s
    chunks        INTEGER NOT NULL DEFAULT 0,
    model         BLOB    CHECK (length(model) = 32),
    dimensions    INTEGER CHECK (dimensions > 0),
    cleaning      TEXT    NOT NULL DEFAULT 'done' CHECK (cleaning IN ('done', 'due', 'begun')),
    CHECK ((model IS NULL) = (dimensions IS NULL))
) STRICT;

CREATE TABLE documents (
    number     INTEGER PRIMARY KEY AUTOINCREMENT,
    id         TEXT    NOT NULL UNIQUE,
    base       INTEGER NOT NULL REFERENCES bases (number),
    filename   TEXT    NOT NULL,
    sha256     BLOB    NOT NULL CHECK (length(sha256) = 32),
    size_bytes INTEGER NOT NULL,
    state      TEXT    NOT NULL CHECK (state IN ('queued', 'reading', 'embedding', 'ready', 'failed')),
    attempts   INTEGER NOT NULL DEFAULT 0,
    pages      INTEGER,
    chunks     INTEGER NOT NULL DEFAULT 0,
    embedded   INTEGER NOT NULL DEFAULT 0,
    error      TEXT,
    warnings   TEXT    NOT NULL DEFAULT '[]',
    note       TEXT    NOT NULL DEFAULT '',
    created_ms INTEGER NOT NULL,
    CHECK ((state = 'failed') = (error IS NOT NULL)),
    CHECK (embedded <= chunks)
) STRICT;
CREATE UNIQUE INDEX documents_ready   ON documents (base, filename) WHERE state = 'ready';
CREATE UNIQUE INDEX documents_coming  ON documents (base, filename) WHERE state <> 'ready';
CREATE INDEX        documents_base    ON documents (base, number);
CREATE INDEX        documents_content ON documents (base, sha256);
CREATE INDEX        documents_work    ON documents (state, number) WHERE state IN ('queued', 'reading', 'embedding');
CREATE INDEX        documents_backlog ON documents (number) WHERE state = 'ready' AND embedded < chunks;

CREATE TRIGGER documents_come   AFTER INSERT ON documents BEGIN
    UPDATE bases SET documents = documents + 1, chunks = chunks + iif(NEW.state = 'ready', NEW.chunks, 0)
        WHERE number = NEW.base;
END;
CREATE TRIGGER documents_change AFTER UPDATE OF state, chunks ON documents
    WHEN OLD.state = 'ready' OR NEW.state = 'ready' BEGIN
    UPDATE bases SET chunks = chunks - iif(OLD.state = 'ready', OLD.chunks, 0) + iif(NEW.state = 'ready', NEW.chunks, 0)
        WHERE number = NEW.base;
END;
CREATE TRIGGER documents_go     AFTER DELETE ON documents BEGIN
    UPDATE bases SET documents = documents - 1, chunks = chunks - iif(OLD.state = 'ready', OLD.chunks, 0)
        WHERE number = OLD.base;
END;

CREATE TABLE uploads (
    document INTEGER PRIMARY KEY REFERENCES documents (number) ON DELETE CASCADE,
    data     BLOB NOT NULL
) STRICT;

CREATE TABLE chunks (
    number        INTEGER PRIMARY KEY,
    document      INTEGER NOT NULL REFERENCES documents (number),
    position      INTEGER NOT NULL,
    embedded      INTEGER NOT NULL DEFAULT 0 CHECK (embedded IN (0, 1)),
    id            BLOB    NOT NULL UNIQUE CHECK (length(id) = 12),
    sha256        BLOB    NOT NULL CHECK (length(sha256) = 32),
    embedding_key BLOB    NOT NULL CHECK (length(embedding_key) = 32),
    start         INTEGER NOT NULL,
    "end"         INTEGER NOT NULL,
    page          INTEGER,
    headings      TEXT    NOT NULL,
    text          TEXT    NOT NULL,
    UNIQUE (document, position)
) STRICT;
CREATE INDEX chunks_key     ON chunks (embedding_key);
CREATE INDEX chunks_waiting ON chunks (document, position) WHERE embedded = 0;

CREATE TABLE embeddings (
    number INTEGER PRIMARY KEY,
    key    BLOB NOT NULL CHECK (length(key) = 32),
    model  BLOB NOT NULL CHECK (length(model) = 32),
    vector BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX embeddings_key ON embeddings (key, model, length(vector)); -- a seller may lie about its model

CREATE TABLE disclosures (
    number         INTEGER PRIMARY KEY,
    job_id         TEXT    NOT NULL,
    completion_id  TEXT    NOT NULL,
    knowledge_base TEXT    NOT NULL,
    node_key       BLOB    NOT NULL CHECK (length(node_key) = 32),
    jurisdiction   TEXT    NOT NULL,
    purpose        TEXT    NOT NULL CHECK (purpose IN ('prompt', 'embedding', 'query')),
    at_ms          INTEGER NOT NULL,
    UNIQUE (job_id, knowledge_base)
) STRICT;
CREATE INDEX disclosures_completion ON disclosures (completion_id) WHERE completion_id <> '';

CREATE TABLE disclosed_chunks (
    disclosure INTEGER NOT NULL REFERENCES disclosures (number),
    position   INTEGER NOT NULL,
    chunk_id   BLOB    NOT NULL CHECK (length(chunk_id) = 12),
    sha256     BLOB    NOT NULL CHECK (length(sha256) = 32),
    PRIMARY KEY (disclosure, position)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER disclosures_kept  BEFORE DELETE ON disclosures
    BEGIN SELECT RAISE(ABORT, 'what left the machine is never forgotten'); END;
CREATE TRIGGER disclosures_fixed BEFORE UPDATE ON disclosures
    BEGIN SELECT RAISE(ABORT, 'what left the machine never changes'); END;
CREATE TRIGGER disclosed_kept    BEFORE DELETE ON disclosed_chunks
    BEGIN SELECT RAISE(ABORT, 'what left the machine is never forgotten'); END;
CREATE TRIGGER disclosed_fixed   BEFORE UPDATE ON disclosed_chunks
    BEGIN SELECT RAISE(ABORT, 'what left the machine never changes'); END;
"""

MIGRATIONS: Final[tuple[str, ...]] = (_FIRST,)
"""Migration number n (from 1) brings a file of version n - 1 to n; the number stands in the file's user_version."""
