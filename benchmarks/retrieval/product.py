"""A collection in a knowledge base, as a user's documents are: read, cut, made vectors of, searched."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import trio

from benchmarks.retrieval.collection import Collection
from benchmarks.retrieval.measures import Hit
from ryvion_node.engine.interface import ModelSpec
from ryvion_node.engine.llama_engine import LlamaEngine
from ryvion_node.executor.vectors import LocalEmbedder
from ryvion_node.knowledge.ingest import Ingest
from ryvion_node.knowledge.interface import DocumentText, Embedder, EmbeddingUnavailable, Origin, Vectors
from ryvion_node.knowledge.ranking import DEFAULT_TUNING, Tuning
from ryvion_node.knowledge.reading.document import read_document
from ryvion_node.knowledge.search import Search
from ryvion_node.knowledge.store import KnowledgeStore, open_store
from ryvion_node.models.catalogue import catalogue

MODEL: Final = "ryvion-embed-tiny"
METHODS: Final = ("hybrid", "bm25", "vector")


class Remembering:
    """Makes vectors by another embedder, keeps them."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._model, self._dimensions = b"", 0
        self.vectors: dict[str, bytes] = {}

    async def embed(self, texts: Sequence[str], origin: Origin, model: bytes | None) -> Vectors:
        new = [text for text in dict.fromkeys(texts) if text not in self.vectors]
        if new:
            made = await self._embedder.embed(new, origin, model)
            self._model, self._dimensions = made.model, made.dimensions
            size = 4 * made.dimensions
            self.vectors |= {text: made.values[size * n : size * (n + 1)] for n, text in enumerate(new)}
        return Vectors(self._model, self._dimensions, b"".join(self.vectors[text] for text in texts))


class Nobody:
    """Makes no vectors."""

    async def embed(self, texts: Sequence[str], origin: Origin, model: bytes | None) -> Vectors:
        raise EmbeddingUnavailable("searches go by words alone here")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A collection that can be searched."""

    store: KnowledgeStore
    base: str
    embedder: Remembering

    def searches(self, tuning: Tuning = DEFAULT_TUNING) -> dict[str, Search]:
        """One for each of METHODS."""
        return {
            "hybrid": Search(self.store, self.embedder, tuning),
            "bm25": Search(self.store, Nobody(), tuning),
            "vector": Search(self.store, self.embedder, replace(tuning, text_weight=0.0)),
        }


async def ranked(search: Search, base: str, question: str, limit: int) -> list[Hit]:
    """What a search gives, best first."""
    found = await search.search(base, question, limit)
    return [Hit(passage.filename, passage.chunk.text) for passage in found.passages]


@asynccontextmanager
async def bundled_embedder() -> AsyncIterator[LocalEmbedder]:
    """The bundled embedding model in a worker of its own."""
    model = catalogue().find(MODEL)
    assert model is not None and model.path is not None
    engine = LlamaEngine([ModelSpec(MODEL, model.path, threads=min(4, os.cpu_count() or 1))])
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        await engine.settled()
        yield LocalEmbedder(engine, MODEL)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def loaded(collection: Collection, embedder: Embedder, folder: Path) -> AsyncIterator[Loaded]:
    """The documents in a knowledge base of their own, all of them ready."""
    remembering = Remembering(embedder)
    async with open_store(folder / f"{collection.name}.db") as store:
        base = await store.create_knowledge_base(collection.name)
        added = [await store.add_document(base.id, one.data, one.filename) for one in collection.documents]
        async with trio.open_nursery() as nursery:
            await nursery.start(Ingest(store, remembering, read=read_here).run)
            for one in added:
                while (state := (await store.document(base.id, one.document.id)).state) != "ready":
                    assert state != "failed", one.document.filename
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
        yield Loaded(store, base.id, remembering)


async def read_here(data: bytes, filename: str) -> DocumentText:
    """As the reader does it, without a process for each file."""
    return await trio.to_thread.run_sync(read_document, data, filename)
