"""The knowledge bases of a running node: the store, who fills it, and who searches it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import trio

from ryvion_node.engine.interface import Engine
from ryvion_node.executor.vectors import LocalEmbedder
from ryvion_node.keys import ApiKey
from ryvion_node.knowledge.ingest import Ingest
from ryvion_node.knowledge.interface import Embedder
from ryvion_node.knowledge.search import Search
from ryvion_node.knowledge.store import KnowledgeStore, open_store
from ryvion_node.market.interface import Market
from ryvion_node.market.vectors import FirstAvailable, MarketEmbedder


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
        model: str | None,
        clock_ms: Callable[[], int],
    ) -> None:
        """`own_engine` runs models on this machine; `model` is the only one to use for new knowledge bases."""
        self._path = path
        self._market = market
        self._find_key = find_key
        self._own_engine = own_engine
        self._model = model
        self._clock_ms = clock_ms

    async def run(self, *, task_status: trio.TaskStatus[Knowledge] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled; raises the operator errors of `open_store`."""
        async with open_store(self._path, clock_ms=self._clock_ms) as store:
            embedder = self._embedder(store)
            ingest = Ingest(store, embedder)
            task_status.started(Knowledge(store, Search(store, embedder), self._clock_ms))
            await ingest.run()

    def _embedder(self, store: KnowledgeStore) -> Embedder:
        """This machine's own model first: what it reads goes nowhere."""
        bought = MarketEmbedder(self._market, self._find_key, store, self._clock_ms, self._model)
        if self._own_engine is None:
            return bought
        return FirstAvailable(LocalEmbedder(self._own_engine, self._model), bought)
