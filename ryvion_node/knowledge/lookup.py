"""The two rankings and what they lead to, each function within one reading transaction."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import apsw

from ryvion_node.knowledge.constants import (
    MAX_POSTINGS,
    MAX_QUERY_CHARS,
    MAX_QUERY_WORDS,
    SHARD_CANDIDATES,
    SHARDS,
)
from ryvion_node.knowledge.database import one
from ryvion_node.knowledge.index import TOKENIZER
from ryvion_node.knowledge.interface import Chunk, Passage
from ryvion_node.knowledge.ranking import Tuning, affordable_words
from ryvion_node.knowledge.records import BaseIndex
from ryvion_node.knowledge.vectors import quantised

Frequency = Callable[[str, Callable[[], int]], int]
"""(word, how to count it) -> in how many passages it is; may remember."""
_OF_DOCUMENTS: Final = """
    AND rowid IN (SELECT number FROM chunks WHERE document IN (SELECT value FROM json_each(?)))
"""


@dataclass(frozen=True, slots=True)
class FoundChunk:
    """A passage with the document it is of."""

    number: int
    document: int
    document_id: str
    filename: str
    chunk_id: str
    sha256: str
    chunk: Chunk

    @property
    def start(self) -> int:
        return self.chunk.start

    @property
    def end(self) -> int:
        return self.chunk.end

    @property
    def text(self) -> str:
        return self.chunk.text


def by_words(
    db: apsw.Connection,
    base: BaseIndex,
    query: str,
    documents: Sequence[int] | None,
    tuning: Tuning,
    frequency: Frequency,
) -> list[tuple[int, float]]:
    """The passages that BM25 ranks first: (number, score, higher is better). Any query will do."""
    frequencies = {word: frequency(stem, partial(_count, db, base, stem)) for word, stem in query_words(db, query)}
    words = affordable_words(frequencies, MAX_POSTINGS)
    if not words:
        return []
    # Sorting by bm25() and not by FTS5's own `rank` column takes two thirds of the time.
    return [
        (number, -score)
        for number, score in db.execute(
            f"""
            SELECT rowid, bm25(words_{base.number}, 1.0, ?) AS score FROM words_{base.number}
            WHERE words_{base.number} MATCH ? {"" if documents is None else _OF_DOCUMENTS}
            ORDER BY score, rowid LIMIT ?
            """,
            (
                tuning.headings_weight,
                " OR ".join(f'"{word}"' for word in words),
                *(() if documents is None else (json.dumps(documents),)),
                tuning.candidates,
            ),
        )
    ]


def query_words(db: apsw.Connection, query: str) -> list[tuple[str, str]]:
    """The distinct words of a query as the index's own tokenizer sees them, and their stems; quotes are never among them."""
    text = query[:MAX_QUERY_CHARS].encode("utf-8", "replace")
    stemmer, splitter, *options = TOKENIZER
    split, stem = db.fts5_tokenizer(splitter, list(options)), db.fts5_tokenizer(stemmer, [splitter, *options])
    words: dict[str, None] = dict.fromkeys(_tokens(split, text))
    return [(word, "".join(_tokens(stem, word.encode()))) for word in list(words)[:MAX_QUERY_WORDS]]


def by_vector(
    db: apsw.Connection, base: BaseIndex, vector: bytes, documents: Sequence[int] | None, limit: int
) -> list[tuple[int, float]]:
    """The passages whose vectors have the largest cosine with `vector`: (number, cosine).

    Candidates by approximate vectors, part by part, then exact ones in order; what points elsewhere is not found.
    """
    approximate = quantised(vector)
    candidates: list[int] = []
    for shard in range(SHARDS):
        rows = db.execute(
            f"""
            SELECT rowid FROM vectors_{base.number}
            WHERE shard = ? AND vector MATCH vec_int8(?) AND k = ? {"" if documents is None else _OF_DOCUMENTS}
            """,
            (shard, approximate, SHARD_CANDIDATES, *(() if documents is None else (json.dumps(documents),))),
        )
        candidates += [number for (number,) in rows]
    cosines = similarities(db, base, vector, candidates)
    alike = [(number, cosine) for number, cosine in cosines.items() if cosine > 0]
    return sorted(alike, key=lambda item: (-item[1], item[0]))[:limit]


def similarities(db: apsw.Connection, base: BaseIndex, vector: bytes, numbers: Sequence[int]) -> dict[int, float]:
    """The exact cosine of passages with `vector`; those without a vector are missing."""
    rows = db.execute(
        """
        SELECT chunks.number, vec_distance_cosine(embeddings.vector, ?) FROM json_each(?) AS wanted
            CROSS JOIN chunks ON chunks.number = wanted.value
            CROSS JOIN embeddings ON embeddings.key = chunks.embedding_key AND embeddings.model = ?
                AND length(embeddings.vector) = ?
        WHERE chunks.embedded = 1
        """,
        (vector, json.dumps(numbers), base.model, base.vector_bytes),
    )
    return {number: 1.0 - distance for number, distance in rows}


def chunks(db: apsw.Connection, base: BaseIndex, numbers: Sequence[int]) -> dict[int, FoundChunk]:
    """Passages by number, as far as they are still there."""
    return {
        row.number: row
        for row in _found(
            db,
            "json_each(?) AS wanted CROSS JOIN chunks ON chunks.number = wanted.value",
            "documents.base = ? AND documents.state = 'ready'",
            json.dumps(numbers),
            base.number,
        )
    }


def chunk_by_id(db: apsw.Connection, base: BaseIndex, chunk_id: str) -> FoundChunk | None:
    """The passage `chk_...`."""
    try:
        key = bytes.fromhex(chunk_id.removeprefix("chk_"))
    except ValueError:
        return None
    return next(iter(_found(db, "chunks", "chunks.id = ? AND documents.base = ?", key, base.number)), None)


def chunks_by_hash(db: apsw.Connection, base: BaseIndex, hashes: Sequence[bytes]) -> list[FoundChunk]:
    """The passages whose text has one of these SHA-256, in the order of the documents. Reads through all: for a person
    who waits, not for a search.
    """
    wanted = json.dumps([digest.hex() for digest in hashes])
    where = "documents.base = ? AND lower(hex(chunks.sha256)) IN (SELECT value FROM json_each(?))"
    return sorted(_found(db, "chunks", where, base.number, wanted), key=lambda chunk: chunk.number)


def passage(found: FoundChunk, knowledge_base: str, score: float = 0.0, similarity: float = 0.0) -> Passage:
    """As the interface shows it, without ranks."""
    return Passage(
        chunk_id=found.chunk_id,
        knowledge_base=knowledge_base,
        document_id=found.document_id,
        filename=found.filename,
        chunk=found.chunk,
        sha256=found.sha256,
        score=score,
        similarity=similarity,
        rank_text=None,
        rank_vector=None,
    )


def _found(db: apsw.Connection, source: str, where: str, *parameters: str | bytes | int) -> list[FoundChunk]:
    """Rows of `source` with their documents. CROSS JOIN: in this order, whatever SQLite thinks of the sizes."""
    rows = db.execute(
        f"""
        SELECT chunks.number, documents.number, documents.id, documents.filename, chunks.id, chunks.sha256,
            chunks.position, chunks.text, chunks.start, chunks."end", chunks.headings, chunks.page
        FROM {source} CROSS JOIN documents ON documents.number = chunks.document WHERE {where}
        """,
        parameters,
    )
    return [
        FoundChunk(
            number,
            document,
            document_id,
            filename,
            f"chk_{chunk.hex()}",
            digest.hex(),
            Chunk(position, text, start, end, tuple(json.loads(headings)), page),
        )
        for number, document, document_id, filename, chunk, digest, position, text, start, end, headings, page in rows
    ]


def _count(db: apsw.Connection, base: BaseIndex, stem: str) -> int:
    """In how many passages is it?"""
    row = one(db, f"SELECT doc FROM frequencies_{base.number} WHERE term = ?", stem)
    return 0 if row is None else int(row[0])


def _tokens(tokenizer: apsw.FTS5Tokenizer, text: bytes) -> list[str]:
    found = tokenizer(text, apsw.FTS5_TOKENIZE_QUERY, None, include_offsets=False, include_colocated=False)
    return [str(token) for token in found]
