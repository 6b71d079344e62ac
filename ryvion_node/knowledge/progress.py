"""How a document gets from a file to something that searches find, each step one transaction.

    queued -> reading -> embedding -> ready
                 `-> failed

The file's bytes are kept until its passages are in. Vectors are kept as they come, under the hash of their text, so that
nothing is asked for twice. Only the last step makes it visible, and takes the older file of that name away.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Any, Final

import apsw

from ryvion_node.knowledge import bases, documents, index
from ryvion_node.knowledge.constants import (
    EMBED_BATCH_BYTES,
    EMBED_BATCH_TEXTS,
    MAX_CHUNKS,
    MAX_DOCUMENT_CHUNKS,
    MAX_MESSAGE_CHARS,
    MAX_READING_ATTEMPTS,
    READ_AHEAD_BYTES,
    READ_AHEAD_DOCUMENTS,
    RECLAIMED_PAGES,
)
from ryvion_node.knowledge.database import one, rows
from ryvion_node.knowledge.interface import Chunk, DocumentText
from ryvion_node.knowledge.records import MadeVectors, WaitingText, Work

_ATTACHED_AT_ONCE: Final = 2_048


def embedded_text(headings: Sequence[str], text: str) -> str:
    """What the vector of a passage is made of: a passage alone often does not say what it is about."""
    return f"{' > '.join(headings)}\n{text}" if headings else text


def resume(db: apsw.Connection) -> None:
    """Queue again what an earlier process was reading when it ended."""
    db.execute("UPDATE documents SET state = 'queued' WHERE state = 'reading'")


def has_queued(db: apsw.Connection) -> bool:
    """Is there a document to be read?"""
    return one(db, "SELECT 1 FROM documents WHERE state = 'queued' LIMIT 1") is not None


def reads_ahead(db: apsw.Connection) -> bool:
    """Is there a small file to be read first, whose passages go into the same request as those that wait?"""
    size = one(db, "SELECT size_bytes FROM documents WHERE state = 'queued' ORDER BY number LIMIT 1")
    documents, passages = one(
        db, "SELECT count(*), coalesce(sum(chunks - embedded), 0) FROM documents WHERE state = 'embedding'"
    )
    is_small = size is not None and size[0] <= READ_AHEAD_BYTES
    return is_small and documents < READ_AHEAD_DOCUMENTS and 0 < passages < EMBED_BATCH_TEXTS


def begin_reading(db: apsw.Connection) -> tuple[Work, bytes] | None:
    """The next queued document and its file; None when there is none."""
    while (work := _next(db, "state = 'queued'")) is not None:
        (attempts,) = one(
            db, "UPDATE documents SET attempts = attempts + 1 WHERE number = ? RETURNING attempts", work.number
        )
        if attempts > MAX_READING_ATTEMPTS:
            fail(db, work.number, f"the node ended {MAX_READING_ATTEMPTS} times while reading it; leave this file out")
            continue
        db.execute("UPDATE documents SET state = 'reading' WHERE number = ?", (work.number,))
        (data,) = one(db, "SELECT data FROM uploads WHERE document = ?", work.number)
        return work, data
    return None


def begin_ahead(db: apsw.Connection) -> tuple[Work, bytes] | None:
    """The same if it is to be read before vectors are asked for: in the transaction that ends the one before."""
    return begin_reading(db) if reads_ahead(db) else None


def fail(db: apsw.Connection, number: int, error: str) -> None:
    """The file cannot be used; its bytes are not kept."""
    db.execute("DELETE FROM uploads WHERE document = ?", (number,))
    db.execute(
        "UPDATE documents SET state = 'failed', error = ? WHERE number = ? AND state IN ('queued', 'reading')",
        (error[:MAX_MESSAGE_CHARS], number),
    )


def finish_reading(db: apsw.Connection, work: Work, document: DocumentText, chunks: Sequence[Chunk]) -> None:
    """Keep the passages instead of the file; nothing happens when the document is gone meanwhile."""
    row = one(db, "SELECT id FROM documents WHERE number = ? AND state = 'reading'", work.number)
    if row is None:
        return
    problem = _too_many(db, work, chunks) if chunks else "no text was found in it"
    if problem:
        fail(db, work.number, problem)
        return
    db.executemany(
        """
        INSERT INTO chunks (document, position, id, sha256, embedding_key, start, "end", page, headings, text)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
        """,
        [
            (
                work.number,
                chunk.number,
                sha256(f"{row[0]}/{chunk.number}".encode()).digest()[:12],
                sha256(chunk.text.encode()).digest(),
                sha256(embedded_text(chunk.headings, chunk.text).encode()).digest(),
                chunk.start,
                chunk.end,
                chunk.page,
                json.dumps(chunk.headings, ensure_ascii=False),
                chunk.text,
            )
            for chunk in chunks
        ],
    )
    db.execute("DELETE FROM uploads WHERE document = ?", (work.number,))
    db.execute(
        "UPDATE documents SET state = 'embedding', pages = ?, chunks = ?, warnings = ? WHERE number = ?",
        (document.pages, len(chunks), json.dumps(document.warnings, ensure_ascii=False), work.number),
    )


def next_embedding(db: apsw.Connection) -> Work | None:
    """A document whose passages are in, and which is not ready."""
    return _next(db, "state = 'embedding'")


def next_backlog(db: apsw.Connection, resting: Iterable[int]) -> Work | None:
    """A ready document with passages that have no vector yet, in none of the knowledge bases `resting`."""
    return _next(
        db,
        "state = 'ready' AND embedded < chunks AND base NOT IN (SELECT value FROM json_each(?))",
        json.dumps(list(resting)),
    )


def attach_kept(db: apsw.Connection, work: Work) -> bool:
    """Give passages the vectors that are kept of their texts; False when that was all of them."""
    if not _is_there(db, work):
        return False
    base = bases.index_of(db, work.base.number)
    found = rows(
        db,
        """
        SELECT chunks.number, embeddings.vector FROM chunks
            JOIN embeddings ON embeddings.key = chunks.embedding_key AND embeddings.model = ?
                AND length(embeddings.vector) = ?
        WHERE chunks.document = ? AND chunks.embedded = 0 LIMIT ?
        """,
        base.model,
        base.vector_bytes,
        work.number,
        _ATTACHED_AT_ONCE,
    )
    if not found:
        return False
    db.executemany("UPDATE chunks SET embedded = 1 WHERE number = ?", [(number,) for number, _ in found])
    (state,) = one(
        db,
        """
        UPDATE documents SET embedded = embedded + ?1, note = iif(embedded + ?1 = chunks, '', note) WHERE number = ?2
            RETURNING state
        """,
        len(found),
        work.number,
    )
    if state == "ready":
        index.add_vectors(db, base.number, found)
    return len(found) == _ATTACHED_AT_ONCE


def waiting_texts(db: apsw.Connection, work: Work) -> tuple[WaitingText, ...]:
    """Its next passages without a vector, and those of other documents of the base that wait for theirs; each text once,
    within the limits of one request. Of a base without a model those of one document: once its model is known, vectors
    that are kept of the other texts need not be asked for.
    """
    found = _waiting(db, "document = ?", work.number, EMBED_BATCH_TEXTS)
    if found and work.base.model is not None and len(found) < EMBED_BATCH_TEXTS:
        others = "document IN (SELECT number FROM documents WHERE base = ? AND state = 'embedding' AND number <> ?)"
        found += _waiting(db, others, work.base.number, work.number, EMBED_BATCH_TEXTS - len(found))
    texts: dict[bytes, str] = {}
    room = EMBED_BATCH_BYTES
    for key, headings, text in found:
        whole = embedded_text(json.loads(headings), text)
        room -= len(whole.encode())
        if texts and room < 0:
            break
        texts[key] = whole
    return tuple(WaitingText(key, text) for key, text in texts.items())


def _waiting(db: apsw.Connection, where: str, *parameters: int) -> list[Any]:
    return rows(
        db,
        f"""
        SELECT embedding_key, headings, text FROM chunks
        WHERE {where} AND embedded = 0 ORDER BY document, position LIMIT ?
        """,
        *parameters,
    )


def keep_vectors(db: apsw.Connection, work: Work, made: MadeVectors) -> None:
    """Keep vectors of passages that are still there. Those of another model or length give way."""
    if one(db, "SELECT 1 FROM bases WHERE number = ?", work.base.number) is None:
        return
    base = bases.index_of(db, work.base.number)
    if (base.model, base.dimensions) != (made.model, made.dimensions):
        bases.set_model(db, base, made.model, made.dimensions)
    db.executemany(
        """
        INSERT INTO embeddings (key, model, vector) SELECT ?1, ?2, ?3
            WHERE EXISTS (SELECT 1 FROM chunks WHERE embedding_key = ?1) ON CONFLICT (key, model, length(vector)) DO NOTHING
        """,
        [(key, made.model, vector) for key, vector in made.vectors],
    )


def publish(db: apsw.Connection, work: Work, note: str) -> None:
    """Let searches find the document, in the place of an older one of its name."""
    row = one(db, "SELECT base, filename FROM documents WHERE number = ? AND state = 'embedding'", work.number)
    if row is None:
        return
    base, filename = row
    old = one(db, "SELECT number FROM documents WHERE base = ? AND filename = ? AND state = 'ready'", base, filename)
    if old is not None:
        documents.remove(db, old[0])
    db.execute("UPDATE documents SET state = 'ready', note = ? WHERE number = ?", (note, work.number))
    index.add_document(db, bases.index_of(db, base), work.number)


def publish_whole(db: apsw.Connection) -> bool:
    """Publish those next documents whose vectors are all kept; False when the first lacks one.

    Those of one request in one transaction: each waits for the disk.
    """
    passages = 0
    while passages < _ATTACHED_AT_ONCE and (work := next_embedding(db)) is not None:
        attach_kept(db, work)
        chunks, embedded = one(db, "SELECT chunks, embedded FROM documents WHERE number = ?", work.number)
        if embedded < chunks:
            break
        publish(db, work, "")
        passages += chunks
    return passages > 0


def untidy(db: apsw.Connection) -> bool:
    """Are there words of deleted documents in the file, or is a quarter of it unused?"""
    return one(db, "SELECT 1 FROM bases WHERE cleaning <> 'done' LIMIT 1") is not None or _too_large(db)


def tidy(db: apsw.Connection) -> None:
    """Do some of what `untidy` asks for; others write in between."""
    row = one(db, "SELECT number, cleaning FROM bases WHERE cleaning <> 'done' ORDER BY number LIMIT 1")
    if row is not None:
        more = index.clean_words(db, row[0], begin=row[1] == "due")
        db.execute("UPDATE bases SET cleaning = ? WHERE number = ?", ("begun" if more else "done", row[0]))
    elif _too_large(db):
        rows(db, f"PRAGMA incremental_vacuum({RECLAIMED_PAGES})")


def _too_large(db: apsw.Connection) -> bool:
    pages, free = one(db, "SELECT page_count, freelist_count FROM pragma_page_count, pragma_freelist_count")
    return bool(free >= RECLAIMED_PAGES and free * 4 >= pages)


def _is_there(db: apsw.Connection, work: Work) -> bool:
    """Or was it deleted meanwhile?"""
    return one(db, "SELECT 1 FROM documents WHERE number = ?", work.number) is not None


def _too_many(db: apsw.Connection, work: Work, chunks: Sequence[Chunk]) -> str:
    """Why so many passages are not kept; empty when they are."""
    if len(chunks) > MAX_DOCUMENT_CHUNKS:
        return f"it falls into {len(chunks)} passages, the most is {MAX_DOCUMENT_CHUNKS}; split it"
    (there,) = one(db, "SELECT coalesce(sum(chunks), 0) FROM documents WHERE base = ?", work.base.number)
    if there + len(chunks) > MAX_CHUNKS:
        return f"the knowledge base would have more than {MAX_CHUNKS} passages; make another one for it"
    return ""


def _next(db: apsw.Connection, where: str, *parameters: str) -> Work | None:
    row = one(db, f"SELECT number, filename, base FROM documents WHERE {where} ORDER BY number LIMIT 1", *parameters)
    return None if row is None else Work(row[0], row[1], bases.index_of(db, row[2]))
