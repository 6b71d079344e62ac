"""The ledger's tables, as numbered migrations. A released migration is never edited; changes are new ones."""

from __future__ import annotations

from typing import Final

APPLICATION_ID: Final = 0x52_59_56_31
"""`RYV1` in the file's header, so that another program's database is not taken for a ledger."""

_FIRST = """
CREATE TABLE jobs (
    job_id            TEXT    NOT NULL CHECK (length(job_id) BETWEEN 1 AND 64),
    side              TEXT    NOT NULL CHECK (side IN ('bought', 'sold')),
    executor_key      BLOB    NOT NULL CHECK (length(executor_key) = 32),
    requester_key     BLOB    NOT NULL CHECK (length(requester_key) = 32),
    model             TEXT    NOT NULL,
    digest            BLOB    NOT NULL CHECK (length(digest) = 32),
    jurisdiction      TEXT    NOT NULL,
    state             TEXT    NOT NULL
                      CHECK (state IN ('running', 'delivered', 'accepted', 'disputed', 'failed', 'interrupted')),
    prompt_units      INTEGER NOT NULL DEFAULT 0 CHECK (prompt_units >= 0),
    completion_units  INTEGER NOT NULL DEFAULT 0 CHECK (completion_units >= 0),
    cost_microcredits INTEGER NOT NULL DEFAULT 0 CHECK (cost_microcredits >= 0),
    created_ms        INTEGER NOT NULL,
    finished_ms       INTEGER,
    failure_code      TEXT    NOT NULL DEFAULT '',
    failure_message   TEXT    NOT NULL DEFAULT '',
    receipt_cid       TEXT    NOT NULL DEFAULT '',
    envelope_hash     BLOB    CHECK (length(envelope_hash) = 32),
    envelope_seq      INTEGER,
    completion_id     TEXT    NOT NULL,
    key_id            TEXT    NOT NULL,
    PRIMARY KEY (job_id, side),
    CHECK (side = 'sold' OR state <> 'disputed' OR cost_microcredits = 0),
    CHECK (state NOT IN ('failed', 'interrupted') OR cost_microcredits = 0)
) STRICT, WITHOUT ROWID;
CREATE INDEX jobs_running    ON jobs (side, created_ms) WHERE state = 'running';
CREATE INDEX jobs_finished   ON jobs (finished_ms) WHERE finished_ms IS NOT NULL;
CREATE INDEX jobs_receipt    ON jobs (receipt_cid) WHERE receipt_cid <> '';
CREATE INDEX jobs_completion ON jobs (completion_id) WHERE completion_id <> '';
CREATE INDEX jobs_chain      ON jobs (executor_key, requester_key, side, envelope_seq) WHERE envelope_seq IS NOT NULL;

CREATE TABLE evidence (
    seq     INTEGER PRIMARY KEY,
    job_id  TEXT    NOT NULL,
    side    TEXT    NOT NULL,
    kind    TEXT    NOT NULL
            CHECK (kind IN ('quote', 'job_offer', 'finished', 'receipt', 'envelope', 'acceptance', 'error')),
    packet  BLOB    NOT NULL CHECK (length(packet) BETWEEN 1 AND 65536),
    at_ms   INTEGER NOT NULL,
    UNIQUE (job_id, side, kind),
    FOREIGN KEY (job_id, side) REFERENCES jobs (job_id, side)
) STRICT;
CREATE INDEX evidence_receipts ON evidence (seq) WHERE kind = 'receipt';

CREATE TABLE checks (
    job_id   TEXT    NOT NULL,
    side     TEXT    NOT NULL,
    position INTEGER NOT NULL,
    name     TEXT    NOT NULL,
    outcome  TEXT    NOT NULL CHECK (outcome IN ('passed', 'failed', 'bounded')),
    detail   TEXT    NOT NULL,
    PRIMARY KEY (job_id, side, position),
    FOREIGN KEY (job_id, side) REFERENCES jobs (job_id, side)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER evidence_kept    BEFORE DELETE ON evidence BEGIN SELECT RAISE(ABORT, 'evidence is never deleted'); END;
CREATE TRIGGER evidence_fixed   BEFORE UPDATE ON evidence BEGIN SELECT RAISE(ABORT, 'evidence is never changed'); END;
CREATE TRIGGER checks_kept      BEFORE DELETE ON checks   BEGIN SELECT RAISE(ABORT, 'checks are never deleted'); END;
CREATE TRIGGER checks_fixed     BEFORE UPDATE ON checks   BEGIN SELECT RAISE(ABORT, 'checks are never changed'); END;
CREATE TRIGGER jobs_kept        BEFORE DELETE ON jobs     BEGIN SELECT RAISE(ABORT, 'jobs are never deleted'); END;
CREATE TRIGGER jobs_final       BEFORE UPDATE ON jobs
    WHEN OLD.state IN ('accepted', 'disputed', 'failed', 'interrupted')
    BEGIN SELECT RAISE(ABORT, 'a finished job is never changed'); END;
CREATE TRIGGER jobs_identity    BEFORE UPDATE OF
    job_id, side, executor_key, requester_key, model, digest, jurisdiction, created_ms, completion_id, key_id ON jobs
    BEGIN SELECT RAISE(ABORT, 'what a job is never changes'); END;
"""

_SPENDING = """
ALTER TABLE jobs ADD COLUMN max_price INTEGER NOT NULL DEFAULT 0 CHECK (max_price >= 0);
CREATE INDEX jobs_spent ON jobs (key_id, finished_ms, cost_microcredits, state)
    WHERE side = 'bought' AND state = 'accepted' AND key_id <> '';

CREATE TABLE spending (
    key_id       TEXT    NOT NULL CHECK (key_id <> ''),
    day          INTEGER NOT NULL,
    microcredits INTEGER NOT NULL CHECK (microcredits >= 0),
    PRIMARY KEY (key_id, day)
) STRICT, WITHOUT ROWID;
INSERT INTO spending (key_id, day, microcredits)
    SELECT key_id, finished_ms / 86400000, sum(cost_microcredits) FROM jobs
    WHERE side = 'bought' AND state = 'accepted' AND key_id <> '' GROUP BY key_id, finished_ms / 86400000;

DROP TRIGGER jobs_identity;
CREATE TRIGGER jobs_identity    BEFORE UPDATE OF
    job_id, side, executor_key, requester_key, model, digest, jurisdiction, created_ms, completion_id, key_id,
    max_price ON jobs
    BEGIN SELECT RAISE(ABORT, 'what a job is never changes'); END;
CREATE TRIGGER spending_kept    BEFORE DELETE ON spending
    BEGIN SELECT RAISE(ABORT, 'what was spent is never forgotten'); END;
CREATE TRIGGER spending_grows   BEFORE UPDATE ON spending
    WHEN NEW.key_id <> OLD.key_id OR NEW.day <> OLD.day OR NEW.microcredits < OLD.microcredits
    BEGIN SELECT RAISE(ABORT, 'what was spent never shrinks'); END;
"""
"""What each API key spent on each day of UTC, so that a limit is checked without adding up every job it ever bought."""

MIGRATIONS: Final[tuple[str, ...]] = (_FIRST, _SPENDING)
"""Migration number n (from 1) brings a file of version n - 1 to n; the number stands in the file's user_version."""
