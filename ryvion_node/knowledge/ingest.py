"""Takes documents from queued to ready, one after the other, and sees to vectors that are missing.

One process ingests at a time, whoever holds the lock beside the file; documents that others add are found there.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import apsw
import trio

from ryvion_node.knowledge import progress
from ryvion_node.knowledge.chunking import cut
from ryvion_node.knowledge.constants import (
    EMBED_BATCH_S,
    EMBED_RETRY_FIRST_S,
    EMBED_RETRY_MAX_S,
    INGEST_POLL_S,
    INGEST_REST_S,
    SWITCH_MODEL_AFTER_S,
    TIDY_AFTER_S,
)
from ryvion_node.knowledge.database import operator_errors
from ryvion_node.knowledge.errors import BadVectors, KnowledgeUnavailable, OtherDimensions
from ryvion_node.knowledge.interface import (
    Chunk,
    DocumentText,
    Embedder,
    EmbeddingModelAway,
    EmbeddingRefused,
    EmbeddingUnavailable,
    Origin,
)
from ryvion_node.knowledge.reading.errors import UnreadableDocument
from ryvion_node.knowledge.records import BaseIndex, MadeVectors, Work
from ryvion_node.knowledge.store import KnowledgeStore
from ryvion_node.knowledge.vectors import unpack
from ryvion_node.log import log_event
from ryvion_node.paths import FILE_MODE

log = logging.getLogger("ryvion.knowledge.ingest")

Reader = Callable[[bytes, str], Awaitable[DocumentText]]
Cutter = Callable[[DocumentText], tuple[Chunk, ...]]
_SHORTEST_CHARS: Final = 32
"""Every model takes a text of so many."""
_NO_VECTORS: Final = "found by words alone until a model makes its vectors: "


@dataclass(slots=True)
class _Rest:
    """A knowledge base for which nobody makes vectors now."""

    away_since_s: float | None
    """Since when nobody has its model; None when something else is in the way, such as what its key may spend."""
    until_s: float
    delay_s: float
    reason: str


class Ingest:
    """A service; everything it knows is in the database, so it may be ended at any point."""

    def __init__(self, store: KnowledgeStore, embedder: Embedder, *, read: Reader, cut: Cutter = cut) -> None:
        self._store = store
        self._connections = store.connections
        self._embedder = embedder
        self._read = read
        self._cut = cut
        self._resting: dict[int, _Rest] = {}

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Ingest until cancelled."""
        task_status.started()
        async with self._only_one():
            await self._resume()
            worked_s = trio.current_time()
            while True:
                self._store.added = trio.Event()
                try:
                    while await self._step():
                        worked_s = trio.current_time()
                    if (
                        trio.current_time() - max(worked_s, self._store.deleted_s) >= TIDY_AFTER_S
                        and await self._tidy()
                    ):
                        continue
                except KnowledgeUnavailable as exc:
                    log_event(log, "ingest_rests", level=logging.WARNING, reason=str(exc))
                    await trio.sleep(INGEST_REST_S)
                    await self._resume()
                with trio.move_on_after(INGEST_POLL_S):
                    await self._store.added.wait()

    async def _resume(self) -> None:
        """Begin again with what was being read when this process, or the one before it, could not go on."""
        with contextlib.suppress(KnowledgeUnavailable):
            await self._connections.write(progress.resume)

    async def _step(self) -> bool:
        """Do the next thing; False when there is nothing to do now."""
        coming = await self._connections.read(progress.next_embedding)
        if coming is not None and not await self._connections.read(progress.reads_ahead):
            if await self._connections.write(progress.publish_whole):
                return True
            note = await self._embed(coming)
            if note is not None:
                await self._connections.write(lambda db: progress.publish(db, coming, note))
            return True
        if await self._connections.read(progress.has_queued):
            queued = await self._connections.write(progress.begin_reading)
            while queued is not None:
                queued = await self._read_one(*queued)
            return True
        now_s = trio.current_time()
        resting = [base for base, rest in self._resting.items() if rest.until_s > now_s]
        behind = await self._connections.read(lambda db: progress.next_backlog(db, resting))
        if behind is None:
            return False
        await self._embed(behind)
        return True

    async def _tidy(self) -> bool:
        """Do the next thing that nobody waits for; False when there is none."""
        if not await self._connections.read(progress.untidy):
            return await self._connections.empty_log()
        await self._connections.write(progress.tidy)
        return True

    async def _read_one(self, work: Work, data: bytes) -> tuple[Work, bytes] | None:
        """Turn a file into passages, or note why it cannot be; the next one to do this with."""
        try:
            document = await self._read(data, work.filename)
        except UnreadableDocument as exc:
            problem = str(exc)

            def fail(db: apsw.Connection) -> tuple[Work, bytes] | None:
                progress.fail(db, work.number, problem)
                return progress.begin_ahead(db)

            queued = await self._connections.write(fail)
            log_event(log, "document_failed", bytes=len(data))
            return queued
        chunks = await trio.to_thread.run_sync(self._cut, document)

        def finish(db: apsw.Connection) -> tuple[Work, bytes] | None:
            progress.finish_reading(db, work, document, chunks)
            return progress.begin_ahead(db)

        queued = await self._connections.write(finish)
        log_event(log, "document_read", bytes=len(data), count=len(chunks))
        return queued

    async def _embed(self, work: Work) -> str | None:
        """Make one batch of vectors. None when there may be more to do, else why some are missing (empty: none is)."""
        while await self._connections.write(lambda db: progress.attach_kept(db, work)):
            pass
        waiting = await self._connections.read(lambda db: progress.waiting_texts(db, work))
        if not waiting:
            return ""
        base, now_s = work.base, trio.current_time()
        rest = self._resting.get(base.number)
        if rest is not None and rest.until_s > now_s:
            return _NO_VECTORS + rest.reason
        keys = [text.key for text in waiting]
        try:
            texts = [text.text for text in waiting]
            with trio.fail_after(EMBED_BATCH_S):
                made = await self._made(base, texts, keys)
        except (EmbeddingUnavailable, BadVectors, trio.TooSlowError) as exc:
            reason = str(exc) or f"no answer within {EMBED_BATCH_S:.0f} s"
            self._rest(base.number, reason, away=isinstance(exc, EmbeddingModelAway | OtherDimensions))
            # A seller's own words are in the reason, and it has read the passages: they are the owner's to see, in no log.
            log_event(log, "embedding_unavailable", level=logging.WARNING, error=type(exc).__name__)
            return _NO_VECTORS + reason
        self._resting.pop(base.number, None)
        model, dimensions, rows = made
        kept = MadeVectors(model, dimensions, tuple(zip(keys, rows, strict=True)))
        await self._connections.write(lambda db: progress.keep_vectors(db, work, kept))
        return None

    async def _made(self, base: BaseIndex, texts: list[str], keys: list[bytes]) -> tuple[bytes, int, tuple[bytes, ...]]:
        """As `_vectors`, by the base's own model; by any other when nobody has had that for long, or when all who say that
        they have it make vectors of another length.
        """
        rest = self._resting.get(base.number)
        away_since_s = None if rest is None else rest.away_since_s
        try:
            return await self._vectors(base, texts, keys, base.model, base.dimensions)
        except (EmbeddingModelAway, OtherDimensions):
            if away_since_s is None or trio.current_time() - away_since_s < SWITCH_MODEL_AFTER_S:
                raise
            return await self._vectors(base, texts, keys, None, 0)

    async def _vectors(
        self, base: BaseIndex, texts: list[str], keys: list[bytes], model: bytes | None, dimensions: int
    ) -> tuple[bytes, int, tuple[bytes, ...]]:
        """(model, dimensions, vectors). A text that is too long for the model is embedded as far as it takes it."""
        origin = Origin(base.id, base.key_id, base.jurisdictions, tuple(keys))
        try:
            vectors = await self._embedder.embed(texts, origin, model)
        except EmbeddingRefused as exc:
            if len(texts) == 1 and len(texts[0]) < _SHORTEST_CHARS:
                raise BadVectors(f"the model takes no text at all: {exc}") from exc
            if len(texts) == 1:
                return await self._vectors(base, [texts[0][: len(texts[0]) // 2]], keys, model, dimensions)
            middle = len(texts) // 2
            first = await self._vectors(base, texts[:middle], keys[:middle], model, dimensions)
            second = await self._vectors(base, texts[middle:], keys[middle:], first[0], first[1])
            return first[0], first[1], first[2] + second[2]
        return vectors.model, vectors.dimensions, unpack(vectors, len(texts), model, dimensions)

    def _rest(self, base: int, reason: str, *, away: bool) -> None:
        """Try again later, and later each time."""
        now_s = trio.current_time()
        before = self._resting.get(base)
        delay_s = EMBED_RETRY_FIRST_S if before is None else min(before.delay_s * 2, EMBED_RETRY_MAX_S)
        away_before_s = None if before is None else before.away_since_s
        away_since_s = (now_s if away_before_s is None else away_before_s) if away else None
        self._resting[base] = _Rest(away_since_s, now_s + delay_s, delay_s, reason)

    @contextlib.asynccontextmanager
    async def _only_one(self) -> AsyncIterator[None]:
        """Wait until no other process ingests into this file; a lock of the kernel's dies with its process."""
        path = self._connections.path
        with operator_errors(path):
            lock = os.open(path.with_name(path.name + ".ingest"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        try:
            while not _locked(lock):  # noqa: ASYNC110 - the kernel tells nobody when a lock is free
                await trio.sleep(INGEST_POLL_S)
            yield
        finally:
            os.close(lock)


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
