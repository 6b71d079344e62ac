"""What the store does to knowledge bases, each function within one transaction."""

from __future__ import annotations

import secrets
from typing import Any, Final

import apsw

from ryvion_node.knowledge import index
from ryvion_node.knowledge.constants import MAX_KNOWLEDGE_BASES, MAX_NAME_CHARS
from ryvion_node.knowledge.database import one
from ryvion_node.knowledge.errors import KnowledgeBaseUnknown, KnowledgeLimit
from ryvion_node.knowledge.interface import KnowledgeBase
from ryvion_node.knowledge.records import BaseIndex

_SELECT: Final = "SELECT id, name, jurisdictions, key_id, created_ms, documents, chunks FROM bases"


def create(db: apsw.Connection, name: str, jurisdictions: tuple[str, ...], key_id: str, now_ms: int) -> KnowledgeBase:
    """A new one without documents; raises KnowledgeLimit."""
    shown = " ".join(name.split())
    if not 0 < len(shown) <= MAX_NAME_CHARS or not shown.isprintable():
        raise KnowledgeLimit(f"a knowledge base needs a name of 1 to {MAX_NAME_CHARS} printable characters")
    if one(db, "SELECT count(*) FROM bases")[0] >= MAX_KNOWLEDGE_BASES:
        raise KnowledgeLimit(f"there are {MAX_KNOWLEDGE_BASES} knowledge bases, the most possible; delete one first")
    base_id = f"kb_{secrets.token_hex(12)}"
    row = one(
        db,
        "INSERT INTO bases (id, name, jurisdictions, key_id, created_ms) VALUES (?, ?, ?, ?, ?) RETURNING number",
        base_id,
        shown,
        ",".join(jurisdictions),
        key_id,
        now_ms,
    )
    index.create_words(db, row[0])
    return KnowledgeBase(base_id, shown, jurisdictions, key_id, now_ms, 0, 0)


def every(db: apsw.Connection) -> tuple[KnowledgeBase, ...]:
    """All, oldest first."""
    return tuple(map(_base, db.execute(f"{_SELECT} ORDER BY number")))


def get(db: apsw.Connection, base_id: str) -> KnowledgeBase:
    """Raises KnowledgeBaseUnknown."""
    row = one(db, f"{_SELECT} WHERE id = ?", base_id)
    if row is None:
        raise unknown(base_id)
    return _base(row)


def get_index(db: apsw.Connection, base_id: str) -> BaseIndex:
    """Raises KnowledgeBaseUnknown."""
    found = _index(db, "id = ?", base_id)
    if found is None:
        raise unknown(base_id)
    return found


def index_of(db: apsw.Connection, number: int) -> BaseIndex:
    """Of a knowledge base that is there."""
    found = _index(db, "number = ?", number)
    assert found is not None, "documents go before their knowledge base"
    return found


def delete(db: apsw.Connection, base_id: str) -> None:
    """With its documents, passages and vectors; what was disclosed stays on record. Raises KnowledgeBaseUnknown."""
    base = get_index(db, base_id)
    index.drop(db, base.number)
    documents = "SELECT number FROM documents WHERE base = ?"
    db.execute(f"DELETE FROM chunks WHERE document IN ({documents})", (base.number,))
    db.execute("DELETE FROM documents WHERE base = ?", (base.number,))
    db.execute("DELETE FROM bases WHERE number = ?", (base.number,))
    db.execute("DELETE FROM embeddings WHERE NOT EXISTS (SELECT 1 FROM chunks WHERE embedding_key = embeddings.key)")


def set_model(db: apsw.Connection, base: BaseIndex, model: bytes | None, dimensions: int = 0) -> BaseIndex:
    """Say whose vectors it has from now on. Those of another model are dropped, and all its passages wait for new ones."""
    index.drop_vectors(db, base.number)
    db.execute("UPDATE bases SET model = ?, dimensions = ? WHERE number = ?", (model, dimensions or None, base.number))
    if base.model is not None:
        documents = "SELECT number FROM documents WHERE base = ?"
        db.execute(
            f"UPDATE chunks SET embedded = 0 WHERE embedded = 1 AND document IN ({documents})",
            (base.number,),
        )
        db.execute("UPDATE documents SET embedded = 0 WHERE base = ?", (base.number,))
        _forget_unused_vectors(db, base.model)
    if model is not None:
        index.create_vectors(db, base.number, dimensions)
    return index_of(db, base.number)


def unknown(base_id: str) -> KnowledgeBaseUnknown:
    """To be raised; long ids are cut."""
    return KnowledgeBaseUnknown(f"there is no knowledge base {base_id[:40]!r}")


def _forget_unused_vectors(db: apsw.Connection, model: bytes) -> None:
    db.execute(
        """
        DELETE FROM embeddings WHERE model = ?1 AND NOT EXISTS (
            SELECT 1 FROM chunks JOIN documents ON documents.number = chunks.document
                JOIN bases ON bases.number = documents.base
            WHERE chunks.embedding_key = embeddings.key AND bases.model = ?1
        )
        """,
        (model,),
    )


def _index(db: apsw.Connection, where: str, value: str | int) -> BaseIndex | None:
    row = one(
        db,
        f"SELECT number, id, key_id, jurisdictions, model, coalesce(dimensions, 0), chunks FROM bases WHERE {where}",
        value,
    )
    if row is None:
        return None
    number, base_id, key_id, jurisdictions, model, dimensions, chunks = row
    return BaseIndex(number, base_id, key_id, _codes(jurisdictions), model, dimensions, chunks)


def _base(row: Any) -> KnowledgeBase:
    base_id, name, jurisdictions, key_id, created_ms, documents, chunks = row
    return KnowledgeBase(base_id, name, _codes(jurisdictions), key_id, created_ms, documents, chunks)


def _codes(text: str) -> tuple[str, ...]:
    return tuple(text.split(",")) if text else ()
