"""Finding passages by words and by meaning at once."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import apsw
import trio

from ryvion_node.jurisdictions import common
from ryvion_node.knowledge import bases, lookup
from ryvion_node.knowledge.constants import (
    KEPT_FREQUENCIES,
    KEPT_QUERY_VECTORS,
    MAX_EMBEDDED_QUERY_CHARS,
    MAX_FILTER_DOCUMENTS,
    MAX_RESULTS,
    QUERY_VECTOR_S,
)
from ryvion_node.knowledge.documents import numbers_of
from ryvion_node.knowledge.errors import BadVectors, KnowledgeLimit
from ryvion_node.knowledge.interface import (
    OWNER,
    Embedder,
    EmbeddingRefused,
    EmbeddingUnavailable,
    Found,
    Origin,
    Passage,
    Searcher,
)
from ryvion_node.knowledge.ranking import DEFAULT_TUNING, Tuning, diverse, fuse
from ryvion_node.knowledge.records import BaseIndex
from ryvion_node.knowledge.store import KnowledgeStore
from ryvion_node.knowledge.together import Recent, together
from ryvion_node.knowledge.vectors import unpack

_REMEMBERED_FROM: Final = 1_000
"""Frequencies from which on they are remembered: below, counting takes no time, and one document changes them."""

_LOOKED_AT: Final = 4
"""Times as many passages as are wanted: so many of them say the same at most."""


@dataclass(frozen=True, slots=True)
class _Ranked:
    """What both rankings say, (passage, score or cosine), best first."""

    text: list[tuple[int, float]]
    vector: list[tuple[int, float]]
    note: str
    """Why there is no ranking by vectors."""
    query_vector: bytes | None

    @property
    def method(self) -> Literal["hybrid", "bm25"]:
        return "bm25" if self.note else "hybrid"


class Search:
    """Searches knowledge bases; remembers vectors of queries and frequencies of words."""

    def __init__(self, store: KnowledgeStore, embedder: Embedder, tuning: Tuning = DEFAULT_TUNING) -> None:
        self._connections = store.connections
        self._embedder = embedder
        self._tuning = tuning
        self._query_vectors: Recent[tuple[bytes, int, bytes], bytes] = Recent(KEPT_QUERY_VECTORS)
        self._frequencies: Recent[tuple[int, int, str], int] = Recent(KEPT_FREQUENCIES)

    async def search(
        self,
        knowledge_base: str,
        query: str,
        limit: int = 5,
        documents: Sequence[str] | None = None,
        searcher: Searcher = OWNER,
    ) -> Found:
        """The passages that answer `query` best, of these documents only when they are given.

        Raises KnowledgeBaseUnknown, DocumentUnknown, KnowledgeLimit, KnowledgeUnavailable.
        """
        if not 0 < limit <= MAX_RESULTS:
            raise KnowledgeLimit(f"a search gives 1 to {MAX_RESULTS} results, not {limit}")
        if documents is not None and len(documents) > MAX_FILTER_DOCUMENTS:
            raise KnowledgeLimit(f"a search can be limited to at most {MAX_FILTER_DOCUMENTS} documents")

        def begin(db: apsw.Connection) -> tuple[BaseIndex, tuple[int, ...] | None]:
            base = bases.get_index(db, knowledge_base)
            if documents is None:
                return base, None
            return base, numbers_of(db, knowledge_base, tuple(documents))

        base, only = await self._connections.read(begin)
        ranked = await self._rank(base, query, only, searcher)
        return Found(await self._passages(base, ranked, limit), ranked.method, ranked.note)

    async def _rank(self, base: BaseIndex, query: str, only: tuple[int, ...] | None, searcher: Searcher) -> _Ranked:
        """Both rankings side by side: words while the query's vector is made."""
        frequency = self._frequency(base)

        def ask(db: apsw.Connection) -> list[tuple[int, float]]:
            now = bases.get_index(db, base.id)  # it may be gone by now, and its index with it
            return lookup.by_words(db, now, query, only, self._tuning, frequency)

        async def by_words() -> list[tuple[int, float]]:
            return await self._connections.read(ask)

        async def by_vector() -> tuple[bytes | None, list[tuple[int, float]] | None, str]:
            vector, note = await self._query_vector(base, query, searcher)
            return vector, None if vector is None else await self._nearest(base, vector, only), note

        text, (vector, nearest, note) = await together(by_words, by_vector)
        if vector is not None and nearest is None:
            return _Ranked(text, [], "the vectors of this knowledge base are being made anew by another model", None)
        return _Ranked(text, nearest or [], note, vector)

    async def _nearest(
        self, base: BaseIndex, vector: bytes, only: tuple[int, ...] | None
    ) -> list[tuple[int, float]] | None:
        """None when the model changed meanwhile."""

        def ask(db: apsw.Connection) -> list[tuple[int, float]] | None:
            now = bases.get_index(db, base.id)
            if now.model != base.model:
                return None
            return lookup.by_vector(db, now, vector, only, self._tuning.candidates)

        return await self._connections.read(ask)

    async def _query_vector(self, base: BaseIndex, query: str, searcher: Searcher) -> tuple[bytes | None, str]:
        """The vector of a query by the model of the base's vectors, or None and why there is none."""
        text = query.encode("utf-8", "replace").decode()[:MAX_EMBEDDED_QUERY_CHARS].strip()
        if base.model is None:
            return None, "no passage of this knowledge base has a vector yet"
        if not text:
            return None, "the query has no text"
        key = (base.model, base.dimensions, hashlib.sha256(text.encode()).digest())
        known = self._query_vectors.get(key)
        if known is not None:
            return known, ""
        places = common(base.jurisdictions, searcher.jurisdictions)
        if places is None:
            return None, "no country is allowed by both the knowledge base and whoever searches"
        origin = Origin(base.id, searcher.key_id, places, preferences=searcher.preferences)
        with trio.move_on_after(QUERY_VECTOR_S):
            try:
                made = await self._embedder.embed([text], origin, base.model)
                (vector,) = unpack(made, 1, base.model, base.dimensions)
            except (EmbeddingUnavailable, EmbeddingRefused, BadVectors) as exc:
                return None, f"no vector could be made of the query: {exc}"
            self._query_vectors.put(key, vector)
            return vector, ""
        return None, f"no vector of the query came within {QUERY_VECTOR_S:.0f} s"

    async def _passages(self, base: BaseIndex, ranked: _Ranked, limit: int) -> tuple[Passage, ...]:
        text = {number: rank for rank, (number, _) in enumerate(ranked.text, start=1)}
        vector = {number: rank for rank, (number, _) in enumerate(ranked.vector, start=1)}
        scores = dict(fuse(ranked.text, list(vector), self._tuning))

        def load(db: apsw.Connection) -> list[Passage]:
            first = list(scores)[: limit * _LOOKED_AT]
            found = lookup.chunks(db, base, first)
            chosen = diverse([found[number] for number in first if number in found], limit, self._tuning)
            alike = self._similarities(db, base, ranked, [chunk.number for chunk in chosen])
            return [
                replace(
                    lookup.passage(chunk, base.id, scores[chunk.number], alike[chunk.number]),
                    rank_text=text.get(chunk.number),
                    rank_vector=vector.get(chunk.number),
                )
                for chunk in chosen
            ]

        return tuple(await self._connections.read(load)) if scores else ()

    @staticmethod
    def _similarities(
        db: apsw.Connection, base: BaseIndex, ranked: _Ranked, numbers: Sequence[int]
    ) -> dict[int, float]:
        """0 .. 1 for each passage: its cosine, else its BM25 score as a share of the best."""
        best = ranked.text[0][1] if ranked.text else 0.0
        shares = {number: score / best if best > 0 else 0.0 for number, score in ranked.text}
        cosines = {}
        if ranked.query_vector is not None:
            cosines = lookup.similarities(db, base, ranked.query_vector, numbers)
        values = {number: cosines.get(number, shares.get(number, 0.0)) for number in numbers}
        return {number: min(1.0, max(0.0, value)) for number, value in values.items()}

    def _frequency(self, base: BaseIndex) -> lookup.Frequency:
        """Remembers how frequent words are as long as the base has about as many passages."""
        size = int(math.log(max(base.chunks, 1), 1.1))

        def look(word: str, count: Callable[[], int]) -> int:
            key = (base.number, size, word)
            known = self._frequencies.get(key)
            if known is None:
                known = count()
                if known >= _REMEMBERED_FROM:
                    self._frequencies.put(key, known)
            return known

        return look
