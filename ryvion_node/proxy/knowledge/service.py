"""The knowledge bases of a running node: the store, who fills it, and who searches it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import trio

from ryvion_node.config import KnowledgeSection
from ryvion_node.engine.interface import Engine
from ryvion_node.executor.vectors import LocalEmbedder
from ryvion_node.keys import ApiKey
from ryvion_node.knowledge.ingest import Ingest
from ryvion_node.knowledge.interface import Embedder
from ryvion_node.knowledge.reading.process import open_readers
from ryvion_node.knowledge.search import Search
from ryvion_node.knowledge.store import KnowledgeStore, open_store
from ryvion_node.market.interface import Market
from ryvion_node.market.vectors import FirstAvailable, MarketEmbedder
from ryvion_node.models.catalogue import catalogue


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What the endpoint needs of them."""

    store: KnowledgeStore
    search: Search
    clock_ms: Callable[[], int]


class KnowledgeService:
    """Keeps the file open, and takes documents from queued to ready."""

    def __init__(
        self,
        path: Path,
        market: Market,
        find_key: Callable[[str], ApiKey | None],
        own_engine: Engine | None,
        wanted: KnowledgeSection,
        clock_ms: Callable[[], int],
    ) -> None:
        """`own_engine` runs models on this machine."""
        self._path = path
        self._market = market
        self._find_key = find_key
        self._own_engine = own_engine
        self._wanted = wanted
        self._clock_ms = clock_ms

    async def run(self, *, task_status: trio.TaskStatus[Knowledge] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled; raises the operator errors of `open_store`."""
        async with open_store(self._path, clock_ms=self._clock_ms) as store:
            embedder = self._embedder(store)
            task_status.started(Knowledge(store, Search(store, embedder), self._clock_ms))
            async with open_readers() as read:
                await Ingest(store, embedder, read=read).run()

    def _embedder(self, store: KnowledgeStore) -> Embedder:
        """This machine's own model first: what it reads goes nowhere."""
        model = self._wanted.embedding_model
        embedders: list[Embedder] = []
        if self._own_engine is not None:
            embedders.append(LocalEmbedder(self._own_engine, model))
        if self._wanted.buy_vectors:
            digests = catalogue().digests()
            embedders.append(
                MarketEmbedder(self._market, self._find_key, store, self._clock_ms, model, digests=digests)
            )
        return FirstAvailable(*embedders)
