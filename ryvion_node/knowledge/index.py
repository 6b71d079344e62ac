"""The index tables of one knowledge base: its words (FTS5) and its approximate vectors (sqlite-vec).

`words_N` reads the texts it needs from the view `indexed_N`, so they are not kept twice. `vectors_N` has one signed
byte per number and the L1 distance, the only pair that the published sqlite-vec computes with vector instructions; it
finds candidates, and the exact vectors in `embeddings` rank them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import apsw

from ryvion_node.knowledge.constants import CLEANED_PAGES, SHARDS, VECTORS_PER_BLOCK
from ryvion_node.knowledge.database import one
from ryvion_node.knowledge.records import BaseIndex
from ryvion_node.knowledge.vectors import quantised

TOKENIZER: Final = ("porter", "unicode61", "remove_diacritics", "2")


def create_words(db: apsw.Connection, base: int) -> None:
    """For a new knowledge base."""
    db.execute(
        f"""
        CREATE VIEW indexed_{base} AS
            SELECT chunks.number AS number, chunks.text AS text, chunks.headings AS headings
            FROM documents JOIN chunks ON chunks.document = documents.number
            WHERE documents.base = {base} AND documents.state = 'ready';
        CREATE VIRTUAL TABLE words_{base} USING fts5 (
            text, headings, content = 'indexed_{base}', content_rowid = 'number', tokenize = '{" ".join(TOKENIZER)}'
        );
        CREATE VIRTUAL TABLE frequencies_{base} USING fts5vocab (words_{base}, row);
        """
    )


def create_vectors(db: apsw.Connection, base: int, dimensions: int) -> None:
    """When the model of its vectors is known."""
    db.execute(
        f"""
        CREATE VIRTUAL TABLE vectors_{base} USING vec0 (
            shard integer partition key, vector int8[{dimensions}] distance_metric=L1, chunk_size={VECTORS_PER_BLOCK}
        )
        """
    )


def drop_vectors(db: apsw.Connection, base: int) -> None:
    """When all are to be made anew, or the knowledge base goes."""
    db.execute(f"DROP TABLE IF EXISTS vectors_{base}")


def drop(db: apsw.Connection, base: int) -> None:
    """All of them."""
    drop_vectors(db, base)
    db.execute(f"DROP TABLE frequencies_{base}; DROP TABLE words_{base}; DROP VIEW indexed_{base}")


def add_document(db: apsw.Connection, base: BaseIndex, document: int) -> None:
    """Let searches find a document that just became ready, by words and by the vectors it has."""
    db.execute(
        f"""
        INSERT INTO words_{base.number} (rowid, text, headings)
            SELECT number, text, headings FROM chunks WHERE document = ? ORDER BY position
        """,
        (document,),
    )
    if base.model is not None:
        made = db.execute(
            """
            SELECT chunks.number, embeddings.vector
            FROM chunks JOIN embeddings ON embeddings.key = chunks.embedding_key AND embeddings.model = ?
                AND length(embeddings.vector) = ?
            WHERE chunks.document = ? AND chunks.embedded = 1
            """,
            (base.model, base.vector_bytes, document),
        )
        add_vectors(db, base.number, made)


def add_vectors(db: apsw.Connection, base: int, rows: Iterable[tuple[int, bytes]]) -> None:
    """Of passages that searches find: (number of the chunk, exact vector)."""
    db.executemany(
        f"INSERT INTO vectors_{base} (rowid, shard, vector) VALUES (?, ?, vec_int8(?))",
        [(number, number % SHARDS, quantised(vector)) for number, vector in rows],
    )


def remove_document(db: apsw.Connection, base: int, document: int, *, vectors: bool) -> None:
    """Let no search find a document; call while it is still `ready`, since its words are read once more.

    FTS5 only notes that they are gone, until `clean_words` takes them out of the file. (Its own `secure-delete` does it
    at once and takes 80 times as long: three seconds for a book among 100,000 passages.)
    """
    numbers = [(number,) for (number,) in db.execute("SELECT number FROM chunks WHERE document = ?", (document,))]
    db.executemany(f"DELETE FROM words_{base} WHERE rowid = ?", numbers)
    if vectors:
        db.executemany(f"DELETE FROM vectors_{base} WHERE rowid = ?", numbers)


def clean_words(db: apsw.Connection, base: int, *, begin: bool) -> bool:
    """Write a part of the index of words anew, without what was deleted; False when all of it is done."""
    before = db.total_changes()
    pages = -CLEANED_PAGES if begin else CLEANED_PAGES
    db.execute(f"INSERT INTO words_{base} (words_{base}, rank) VALUES ('merge', ?)", (pages,))
    return db.total_changes() - before >= 2  # one change is the command itself: so the manual of FTS5


def find_damage(db: apsw.Connection, base: int) -> str | None:
    """Do the words agree with the texts, and are the vectors those of the passages?"""
    try:
        db.execute(f"INSERT INTO words_{base} (words_{base}, rank) VALUES ('integrity-check', 1)")
    except apsw.CorruptError as exc:
        return f"the index of words: {exc}"
    if one(db, "SELECT 1 FROM sqlite_schema WHERE name = ?", f"vectors_{base}") is None:
        return None
    made = f"SELECT number FROM indexed_{base} WHERE number IN (SELECT number FROM chunks WHERE embedded = 1)"
    kept = f"SELECT rowid FROM vectors_{base}"
    lost = one(
        db,
        f"SELECT count(*) FROM (SELECT * FROM ({made} EXCEPT {kept}) UNION ALL SELECT * FROM ({kept} EXCEPT {made}))",
    )
    return f"the index of vectors lacks or has {lost[0]} too many" if lost[0] else None
