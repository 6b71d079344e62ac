"""Any sequence of adding, replacing, deleting, ingesting and restarting leaves what a plain model says."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import trio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ryvion_node.knowledge.fake import WordEmbedder
from ryvion_node.knowledge.records import Outcome
from ryvion_node.knowledge.search import Search
from ryvion_node.knowledge.store import KnowledgeStore
from tests.node.knowledge.store_support import ingest_all, opened, table_sizes

T = TypeVar("T")
WORDS = ["tin", "lead", "zinc", "copper"]
NAMES = st.sampled_from(["a.txt", "b.txt", "c/a.txt"])
TEXTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(" ".join)


class KnowledgeMachine(RuleBasedStateMachine):
    """Each step opens the file anew, as a process would that was ended after the one before."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.embedder = WordEmbedder()
        self.ready: dict[str, str] = {}
        self.coming: dict[str, str] = {}

    def call(self, work: Callable[[KnowledgeStore], Awaitable[T]]) -> T:
        async def run() -> T:
            async with opened(self.folder / "home" / "knowledge.db") as store:
                return await work(store)

        return trio.run(run)

    @initialize()
    def create(self) -> None:
        self.base = self.call(lambda store: store.create_knowledge_base("b")).id

    @rule(name=NAMES, text=TEXTS)
    def add(self, name: str, text: str) -> None:
        outcome = self.call(lambda store: store.add_document(self.base, text.encode(), name)).outcome
        assert outcome == self.expected(name, text)
        if outcome in ("added", "replacing"):
            self.coming[name] = text
        elif outcome == "unchanged" and self.coming.get(name) != text:
            self.coming.pop(name, None)

    def expected(self, name: str, text: str) -> Outcome:
        newest = self.ready | self.coming
        if name in newest:
            if text in (newest[name], self.ready.get(name)):
                return "unchanged"
            return "replacing" if name in self.ready else "added"
        return "duplicate" if text in newest.values() else "added"

    @rule(reachable=st.booleans())
    def ingest(self, reachable: bool) -> None:
        self.embedder.unavailable = "" if reachable else "nobody"
        self.call(lambda store: ingest_all(store, self.embedder))
        self.ready |= self.coming
        self.coming.clear()

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        async def delete(store: KnowledgeStore) -> None:
            for document in await store.documents(self.base):
                if document.filename == name:
                    await store.delete_document(self.base, document.id)

        self.call(delete)
        self.ready.pop(name, None)
        self.coming.pop(name, None)

    @rule()
    def begin_anew(self) -> None:
        async def begin(store: KnowledgeStore) -> str:
            await store.delete_knowledge_base(self.base)
            assert {name for name, rows in (await table_sizes(store)).items() if rows} <= {"sqlite_sequence"}
            return (await store.create_knowledge_base("b")).id

        self.base = self.call(begin)
        self.ready.clear()
        self.coming.clear()

    @rule(word=st.sampled_from(WORDS))
    def search(self, word: str) -> None:
        found = self.call(lambda store: Search(store, self.embedder).search(self.base, word))
        by_words = {passage.filename for passage in found.passages if passage.rank_text}
        assert by_words == {name for name, text in self.ready.items() if word in text.split()}
        assert {passage.filename for passage in found.passages} <= set(self.ready)

    @invariant()
    def nothing_is_lost_or_left_over(self) -> None:
        async def look(store: KnowledgeStore) -> None:
            documents = await store.documents(self.base)
            assert sorted(one.filename for one in documents if one.state == "ready") == sorted(self.ready)
            assert sorted(one.filename for one in documents if one.state == "queued") == sorted(self.coming)
            sizes = await table_sizes(store)
            assert sizes["uploads"] == len(self.coming)
            assert sizes["chunks"] == sum(one.chunks for one in documents)
            assert sizes["embeddings"] <= sizes["chunks"]
            base = await store.knowledge_base(self.base)
            assert base.documents == len(documents)
            assert base.chunks == sum(one.chunks for one in documents if one.state == "ready")
            assert await store.find_damage() is None

        if hasattr(self, "base"):
            self.call(look)

    def teardown(self) -> None:
        shutil.rmtree(self.folder)


TestKnowledge = KnowledgeMachine.TestCase
TestKnowledge.settings = settings(
    max_examples=12, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
)
