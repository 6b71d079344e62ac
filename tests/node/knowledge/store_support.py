"""Stores on files of their own, documents as plain text, and ingest that runs until nothing is left to do."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import apsw

from ryvion_node.knowledge.chunking import cut
from ryvion_node.knowledge.fake import WordEmbedder
from ryvion_node.knowledge.ingest import Ingest
from ryvion_node.knowledge.interface import DocumentText
from ryvion_node.knowledge.reading.document import read_document
from ryvion_node.knowledge.store import KnowledgeStore, open_store


async def read_here(data: bytes, filename: str) -> DocumentText:
    """As the reader process does it, without the process."""
    return read_document(data, filename)


def ticking() -> Callable[[], int]:
    """A clock that moves on by a millisecond whenever it is asked."""
    now = iter(range(1_000, 10**9))
    return lambda: next(now)


@contextlib.asynccontextmanager
async def opened(path: Path) -> AsyncIterator[KnowledgeStore]:
    """The store at `path`."""
    async with open_store(path, clock_ms=ticking()) as store:
        yield store


async def ingest_all(store: KnowledgeStore, embedder: WordEmbedder) -> Ingest:
    """Take everything as far as it goes."""
    ingest = Ingest(store, embedder, read=read_here, cut=cut)
    await ingest_more(ingest)
    return ingest


async def ingest_more(ingest: Ingest) -> None:
    """The same with an ingest that knows what it rests from."""
    while await ingest._step():
        pass


async def table_sizes(store: KnowledgeStore) -> dict[str, int]:
    """Every table and view of the file with the number of its rows."""

    def count(db: apsw.Connection) -> dict[str, int]:
        names = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type IN ('table', 'view')")]
        return {name: next(iter(db.execute(f'SELECT count(*) FROM "{name}"')))[0] for name in names}

    return await store.connections.read(count)
