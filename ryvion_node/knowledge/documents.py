"""What the store does to documents on an owner's behalf, each function within one transaction.

Of one name there is at most one document that searches find (`ready`) and one that is on its way or failed.
"""

from __future__ import annotations

import json
import re
import secrets
from hashlib import sha256
from typing import Any, Final

import apsw

from ryvion_node.knowledge import bases, index
from ryvion_node.knowledge.constants import (
    MAX_DOCUMENTS,
    MAX_FILE_BYTES,
    MAX_LISTED,
    MAX_PATH_CHARS,
    MAX_WAITING_BYTES,
)
from ryvion_node.knowledge.database import one
from ryvion_node.knowledge.errors import DocumentUnknown, KnowledgeLimit
from ryvion_node.knowledge.interface import StoredDocument
from ryvion_node.knowledge.reading.filenames import safe_filename
from ryvion_node.knowledge.records import Added

_SELECT: Final = """
    SELECT documents.id, bases.id, filename, lower(hex(sha256)), size_bytes, state, pages, documents.chunks, embedded,
        error, warnings, note, documents.created_ms, documents.number
    FROM documents JOIN bases ON bases.number = documents.base
"""


def document_name(name: str) -> str:
    """A file's name with the folders in front of it, as a label: it leads nowhere, whatever a client wrote."""
    parts = [part for part in re.split(r"[/\\]", name) if part.strip() not in ("", ".", "..")]
    safe = [safe_filename(part) for part in parts] or [safe_filename("")]
    while len(safe) > 1 and len("/".join(safe)) > MAX_PATH_CHARS:
        del safe[0]
    return "/".join(safe)


def add(db: apsw.Connection, base_id: str, data: bytes, filename: str, now_ms: int) -> Added:
    """Queue a file, unless it is there already; raises KnowledgeBaseUnknown, KnowledgeLimit."""
    base = bases.get_index(db, base_id)
    name, digest = document_name(filename), sha256(data).digest()
    ready = _find(db, "base = ? AND filename = ? AND state = 'ready'", base.number, name)
    coming = _find(db, "base = ? AND filename = ? AND state <> 'ready'", base.number, name)
    newest = coming or ready
    if newest is None:
        twin = _twin(db, base.number, digest)
        if twin is not None:
            return Added("duplicate", twin)
    elif newest.sha256 == digest.hex() and newest.state != "failed":
        return Added("unchanged", newest)
    if coming is not None:
        remove(db, _number(db, coming.id))
        if ready is not None and ready.sha256 == digest.hex():
            return Added("unchanged", ready)
    _check_room(db, base.number, len(data))
    document = f"doc_{secrets.token_hex(12)}"
    row = one(
        db,
        """
        INSERT INTO documents (id, base, filename, sha256, size_bytes, state, created_ms)
            VALUES (?, ?, ?, ?, ?, 'queued', ?) RETURNING number
        """,
        document,
        base.number,
        name,
        digest,
        len(data),
        now_ms,
    )
    db.execute("INSERT INTO uploads (document, data) VALUES (?, ?)", (row[0], data))
    return Added("added" if ready is None else "replacing", get(db, base_id, document))


def get(db: apsw.Connection, base_id: str, document: str) -> StoredDocument:
    """Raises DocumentUnknown, KnowledgeBaseUnknown."""
    found = _find(db, "documents.id = ? AND bases.id = ?", document, base_id)
    if found is None:
        bases.get_index(db, base_id)
        raise DocumentUnknown(f"there is no document {document[:40]!r} in this knowledge base")
    return found


def page(db: apsw.Connection, base_id: str, limit: int, after: str | None) -> tuple[StoredDocument, ...]:
    """In the order they were added, those after the document `after`; raises KnowledgeBaseUnknown, DocumentUnknown."""
    base = bases.get_index(db, base_id)
    first = 0 if after is None else _number(db, get(db, base_id, after).id)
    rows = db.execute(
        f"{_SELECT} WHERE base = ? AND documents.number > ? ORDER BY documents.number LIMIT ?",
        (base.number, first, min(limit, MAX_LISTED)),
    )
    return tuple(map(_document, rows))


def delete(db: apsw.Connection, base_id: str, document: str) -> None:
    """With its passages and vectors; raises DocumentUnknown, KnowledgeBaseUnknown."""
    remove(db, _number(db, get(db, base_id, document).id))


def remove(db: apsw.Connection, number: int) -> None:
    """Take a document out of everything but the record of disclosures."""
    base_number, state = one(db, "SELECT base, state FROM documents WHERE number = ?", number)
    if state == "ready":
        base = bases.index_of(db, base_number)
        index.remove_document(db, base.number, number, vectors=base.model is not None)
        db.execute("UPDATE bases SET cleaning = 'due' WHERE number = ?", (base.number,))
    keys = list(db.execute("SELECT DISTINCT embedding_key FROM chunks WHERE document = ?", (number,)))
    db.execute("DELETE FROM chunks WHERE document = ?", (number,))
    db.execute("DELETE FROM documents WHERE number = ?", (number,))
    db.executemany(
        "DELETE FROM embeddings WHERE key = ?1 AND NOT EXISTS (SELECT 1 FROM chunks WHERE embedding_key = ?1)", keys
    )


def numbers_of(db: apsw.Connection, base_id: str, documents: tuple[str, ...]) -> tuple[int, ...]:
    """Of documents to which a search is limited; raises DocumentUnknown."""
    return tuple(_number(db, get(db, base_id, document).id) for document in documents)


def _twin(db: apsw.Connection, base: int, digest: bytes) -> StoredDocument | None:
    """The same bytes under another name, unless a newer file of that name is about to replace them."""
    return _find(
        db,
        """
        base = ? AND sha256 = ? AND state <> 'failed' AND NOT EXISTS (
            SELECT 1 FROM documents AS newer WHERE newer.base = documents.base
                AND newer.filename = documents.filename AND newer.number > documents.number
        )
        """,
        base,
        digest,
    )


def _check_room(db: apsw.Connection, base: int, size: int) -> None:
    """Raise KnowledgeLimit when one more document of `size` bytes is too much."""
    if size > MAX_FILE_BYTES:
        raise KnowledgeLimit(f"the file has {size} bytes; the most is {MAX_FILE_BYTES}, split it")
    if one(db, "SELECT documents FROM bases WHERE number = ?", base)[0] >= MAX_DOCUMENTS:
        raise KnowledgeLimit(f"the knowledge base has {MAX_DOCUMENTS} documents, the most possible; make another one")
    waiting = one(db, "SELECT coalesce(sum(size_bytes), 0) FROM documents WHERE state = 'queued' OR state = 'reading'")
    if waiting[0] + size > MAX_WAITING_BYTES:
        raise KnowledgeLimit(f"{waiting[0]} bytes wait to be read; add more when some of them are through")


def _number(db: apsw.Connection, document: str) -> int:
    row = one(db, "SELECT number FROM documents WHERE id = ?", document)
    return int(row[0])


def _find(db: apsw.Connection, where: str, *parameters: Any) -> StoredDocument | None:
    row = one(db, f"{_SELECT} WHERE {where}", *parameters)
    return None if row is None else _document(row)


def _document(row: Any) -> StoredDocument:
    document, base, filename, digest, size, state, pages, chunks, embedded, error, warnings, note, created_ms, _ = row
    notes = (*json.loads(warnings), note) if note else tuple(json.loads(warnings))
    return StoredDocument(
        id=document,
        knowledge_base=base,
        filename=filename,
        sha256=digest,
        size_bytes=size,
        state=state,
        pages=pages,
        chunks=chunks,
        embedded=embedded,
        error=error,
        warnings=notes,
        created_ms=created_ms,
    )
