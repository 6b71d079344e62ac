"""The knowledge bases of a node's owner, in one SQLite file."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path

import apsw
import trio

from ryvion_node.knowledge import bases, disclosures, documents, index, lookup
from ryvion_node.knowledge.connections import Connections, open_connections
from ryvion_node.knowledge.database import find_damage
from ryvion_node.knowledge.errors import KnowledgeDamaged
from ryvion_node.knowledge.interface import KnowledgeBase, Passage, StoredDocument
from ryvion_node.knowledge.records import Added, DisclosedChunk, Disclosure
from ryvion_node.preferences import OWNER_KEY_ID


@contextlib.asynccontextmanager
async def open_store(
    path: Path, *, clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
) -> AsyncIterator[KnowledgeStore]:
    """Open the file at `path`, which other processes may have open as well.

    Raises KnowledgeCorrupt, KnowledgeTooNew, KnowledgeInUse, KnowledgeNotOpened or TooOpen.
    """
    async with open_connections(path) as connections:
        yield KnowledgeStore(connections, clock_ms)


class KnowledgeStore:
    """What was written is on disk when a method returns. All of them raise KnowledgeUnavailable when the file cannot be
    used, those that name a knowledge base or document KnowledgeBaseUnknown or DocumentUnknown.
    """

    def __init__(self, connections: Connections, clock_ms: Callable[[], int]) -> None:
        self.connections = connections
        self._clock_ms = clock_ms
        self.added = trio.Event()
        """Set when there is something to ingest; whoever waits for it puts a new one in its place."""
        self.deleted_s = -math.inf
        """When something was deleted last, on trio's clock: whoever tidies up waits until no more is."""

    async def create_knowledge_base(
        self, name: str, jurisdictions: tuple[str, ...] = (), key_id: str = OWNER_KEY_ID
    ) -> KnowledgeBase:
        """Names may repeat, ids do not; its passages stay within `jurisdictions` for good. Raises KnowledgeLimit."""
        return await self.connections.write(lambda db: bases.create(db, name, jurisdictions, key_id, self._clock_ms()))

    async def knowledge_bases(self) -> tuple[KnowledgeBase, ...]:
        """All, oldest first."""
        return await self.connections.read(bases.every)

    async def knowledge_base(self, knowledge_base: str) -> KnowledgeBase:
        return await self.connections.read(lambda db: bases.get(db, knowledge_base))

    async def delete_knowledge_base(self, knowledge_base: str) -> None:
        """With everything in it; only the record of what left the machine stays."""
        await self.connections.write(lambda db: bases.delete(db, knowledge_base))
        self.deleted_s = trio.current_time()

    async def add_document(self, knowledge_base: str, data: bytes, filename: str) -> Added:
        """Queue a file for reading; `filename` may have folders in front. Raises KnowledgeLimit."""
        added = await self.connections.write(
            lambda db: documents.add(db, knowledge_base, data, filename, self._clock_ms())
        )
        self.added.set()
        return added

    async def documents(
        self, knowledge_base: str, limit: int = 100, after: str | None = None
    ) -> tuple[StoredDocument, ...]:
        """Oldest first, at most MAX_LISTED, those behind the document `after`."""
        return await self.connections.read(lambda db: documents.page(db, knowledge_base, limit, after))

    async def document(self, knowledge_base: str, document: str) -> StoredDocument:
        return await self.connections.read(lambda db: documents.get(db, knowledge_base, document))

    async def delete_document(self, knowledge_base: str, document: str) -> None:
        """With its passages and vectors, however far it is."""
        await self.connections.write(lambda db: documents.delete(db, knowledge_base, document))
        self.deleted_s = trio.current_time()

    async def chunks(self, knowledge_base: str, chunk_ids: Sequence[str]) -> tuple[Passage, ...]:
        """Passages by id, in this order, with score 0; those that are not there are left out."""

        def load(db: apsw.Connection) -> tuple[Passage, ...]:
            base = bases.get_index(db, knowledge_base)
            found = [lookup.chunk_by_id(db, base, chunk_id) for chunk_id in chunk_ids]
            return tuple(lookup.passage(chunk, knowledge_base) for chunk in found if chunk is not None)

        return await self.connections.read(load)

    async def forget_vectors(self, knowledge_base: str) -> None:
        """Have all vectors made anew, by whichever model the embedder prefers then."""

        def forget(db: apsw.Connection) -> None:
            bases.set_model(db, bases.get_index(db, knowledge_base), None)

        await self.connections.write(forget)
        self.added.set()

    async def record_disclosure(self, disclosure: Disclosure) -> None:
        """Note what a job carries away, before it does; a second time changes nothing. Raises KnowledgeLimit."""
        await self.connections.write(lambda db: disclosures.record(db, disclosure))

    async def disclosures(
        self,
        *,
        job_id: str | None = None,
        completion_id: str | None = None,
        knowledge_base: str | None = None,
        limit: int = 100,
    ) -> tuple[Disclosure, ...]:
        """What left the machine, newest first, at most MAX_LISTED; also of knowledge bases that were deleted."""
        return await self.connections.read(
            partial(
                disclosures.find,
                job_id=job_id,
                completion_id=completion_id,
                knowledge_base=knowledge_base,
                limit=limit,
            )
        )

    async def embedded_chunks(self, knowledge_base: str, texts_sha256: Sequence[bytes]) -> tuple[DisclosedChunk, ...]:
        """The passages of an `Origin`, by their `embedding_key`: for `record_disclosure`."""
        return await self.connections.read(
            lambda db: disclosures.embedded_chunks(db, knowledge_base, tuple(texts_sha256))
        )

    async def find_damage(self) -> str | None:
        """What is wrong with the file or its indexes; reads all of it, and looks closer than `doctor` can without writing."""

        def look(db: apsw.Connection) -> str | None:
            numbers = [number for (number,) in db.execute("SELECT number FROM bases")]
            checks = (index.find_damage(db, number) for number in numbers)
            return find_damage(db) or next((found for found in checks if found), None)

        try:
            return await self.connections.write(look)
        except KnowledgeDamaged as exc:
            return str(exc)
