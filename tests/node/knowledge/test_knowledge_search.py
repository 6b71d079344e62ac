"""Searches find by words, by vectors and by both, take any query, and say when they are less than they could be."""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ryvion_node.knowledge import lookup
from ryvion_node.knowledge import search as search_module
from ryvion_node.knowledge.bases import get_index
from ryvion_node.knowledge.errors import DocumentUnknown, KnowledgeBaseUnknown, KnowledgeLimit
from ryvion_node.knowledge.fake import WordEmbedder
from ryvion_node.knowledge.ingest import Ingest
from ryvion_node.knowledge.interface import Chunk, DocumentText, Found, Origin, Vectors
from ryvion_node.knowledge.search import Search
from ryvion_node.knowledge.store import KnowledgeStore
from ryvion_node.knowledge.vectors import packed
from tests.node.knowledge.store_support import ingest_all, ingest_more, opened, read_here

TEXTS = {
    "tin.md": "# Metals\n\n## Tin\n\nIt costs nine euros in Zwickau, and it is mined in Altenberg.",
    "lead.md": "# Metals\n\n## Lead\n\nIt costs four euros in Freiberg. Running costs are not in it.",
    "cafe.md": "# Cafés\n\nThe café at the harbour opens at seven. parse_http_header is a function.",
    "the.md": "the the the of and",
}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[KnowledgeStore]:
    async with opened(tmp_path / "home" / "knowledge.db") as store:
        yield store


async def filled(store: KnowledgeStore) -> str:
    base = (await store.create_knowledge_base("b")).id
    for name, text in TEXTS.items():
        await store.add_document(base, text.encode(), name)
    await ingest_all(store, WordEmbedder())
    return base


async def names(store: KnowledgeStore, base: str, query: str, **options: object) -> list[str]:
    embedder = WordEmbedder()
    embedder.unavailable = "off"
    found = await Search(store, embedder).search(base, query, **options)  # type: ignore[arg-type]
    assert found.method == "bm25" and found.note == "no vector could be made of the query: off"
    return [passage.filename for passage in found.passages]


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("altenberg", "tin.md"),
        ("What does lead cost?", "lead.md"),
        ("CAFE", "cafe.md"),
        ("the Harbours", "cafe.md"),
        ("parse_http_header", "cafe.md"),
        ("function()", "cafe.md"),
        ("Lead", "lead.md"),
        ("the", "the.md"),
    ],
)
async def test_words_are_found_in_any_form(store: KnowledgeStore, query: str, first: str) -> None:
    base = await filled(store)
    assert (await names(store, base, query))[0] == first


async def test_any_query_gives_a_result_or_none(store: KnowledgeStore) -> None:
    base = await filled(store)
    search = Search(store, WordEmbedder())
    loop = trio.lowlevel.current_trio_token()

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.one_of(st.text(), st.lists(st.sampled_from(ODD), max_size=6).map(" ".join)))
    @example("")
    @example("x" * 100_000)
    @example("tin " * 20_000)
    @example(" ".join(map(str, range(500))))
    @example("\ud800\0'")
    def check(query: str) -> None:
        found: Found = trio.from_thread.run(search.search, base, query, trio_token=loop)
        assert len(found.passages) <= 5
        for passage in found.passages:
            assert 0.0 <= passage.similarity <= 1.0 and passage.score > 0.0
            assert passage.rank_text or passage.rank_vector
        scores = [passage.score for passage in found.passages]
        assert scores == sorted(scores, reverse=True)

    await trio.to_thread.run_sync(check)


ODD = ['"', "'", "*", "AND", "OR", "NOT", "NEAR(", ")", "(", "^", "-", "+", ":", "text:", "{", "}", "\\", "%", ";", "tin",
       "the", "\0", "\n", "é", "e\u0301", "価格", "🜨", "--", "/*", "NEAR(tin lead, 2)", "tin*", "rowid:1", "\ufeff"]  # fmt: skip


async def test_queries_that_look_like_sql_or_fts_are_words(store: KnowledgeStore) -> None:
    base = await filled(store)
    assert await names(store, base, 'tin" OR "lead') == await names(store, base, "tin or lead")
    assert await names(store, base, "text : tin*") != []
    assert await names(store, base, "nothingofthekind") == []
    assert await names(store, base, "?!") == []


async def test_a_hybrid_search_says_where_each_passage_came_from(store: KnowledgeStore) -> None:
    base = await filled(store)
    found = await Search(store, WordEmbedder()).search(base, "tin in zwickau", limit=2)
    assert (found.method, found.note) == ("hybrid", "")
    best = found.passages[0]
    assert (best.filename, best.rank_text, best.rank_vector) == ("tin.md", 1, 1)
    assert best.knowledge_base == base and best.chunk.headings == ("Metals", "Tin")
    assert math.isclose(best.score, 2.0) and 0.3 < best.similarity < 1.0


async def test_a_search_can_be_limited_to_documents(store: KnowledgeStore) -> None:
    base = await filled(store)
    of = {document.filename: document.id for document in await store.documents(base)}
    assert set(await names(store, base, "euros", documents=[of["lead.md"], of["the.md"]])) == {"lead.md"}
    found = await Search(store, WordEmbedder()).search(base, "euros", documents=[of["cafe.md"]])
    assert {passage.filename for passage in found.passages} <= {"cafe.md"}
    assert await names(store, base, "euros", documents=[]) == []
    with pytest.raises(DocumentUnknown):
        await names(store, base, "euros", documents=["doc_none"])


async def test_limits_of_a_search(store: KnowledgeStore) -> None:
    base = await filled(store)
    search = Search(store, WordEmbedder())
    for limit in (0, -1, 51):
        with pytest.raises(KnowledgeLimit, match="1 to 50 results"):
            await search.search(base, "tin", limit)
    with pytest.raises(KnowledgeLimit, match="at most 1000 documents"):
        await search.search(base, "tin", documents=["doc_none"] * 1_001)
    with pytest.raises(KnowledgeBaseUnknown):
        await search.search("kb_none", "tin")


async def test_another_knowledge_base_is_not_searched(store: KnowledgeStore) -> None:
    await filled(store)
    other = (await store.create_knowledge_base("other")).id
    await store.add_document(other, b"zinc costs two euros", "zinc.txt")
    await ingest_all(store, WordEmbedder())
    found = await Search(store, WordEmbedder()).search(other, "euros tin lead", limit=10)
    assert [passage.filename for passage in found.passages] == ["zinc.txt"]


async def test_what_is_added_later_is_found_by_words_that_were_not_there(store: KnowledgeStore) -> None:
    base = await filled(store)
    embedder = WordEmbedder()
    embedder.unavailable = "off"
    search = Search(store, embedder)
    assert (await search.search(base, "bismuth")).passages == ()
    await store.add_document(base, b"bismuth costs ten", "bismuth.txt")
    await ingest_all(store, embedder)
    assert len((await search.search(base, "bismuth")).passages) == 1


async def test_of_many_frequent_words_the_rarest_are_searched(
    store: KnowledgeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = (await store.create_knowledge_base("b")).id
    for number in range(12):
        await store.add_document(base, f"tin {'lead' if number % 2 else ''} no{number}".encode(), f"{number}.txt")
    await ingest_all(store, WordEmbedder())
    monkeypatch.setattr(lookup, "MAX_POSTINGS", 7)
    monkeypatch.setattr(search_module, "_REMEMBERED_FROM", 5)
    for _ in range(2):
        assert await names(store, base, "tin lead no4", limit=20) == [
            "4.txt",
            *(f"{number}.txt" for number in range(1, 12, 2)),
        ]
        assert len(await names(store, base, "tin", limit=20)) == 12


async def test_a_knowledge_base_that_is_deleted_meanwhile_is_unknown(store: KnowledgeStore) -> None:
    base = await filled(store)

    class Deleting(WordEmbedder):
        async def embed(self, texts: Sequence[str], origin: Origin, model: bytes | None) -> Vectors:
            await store.delete_knowledge_base(base)
            return await super().embed(texts, origin, model)

    with pytest.raises(KnowledgeBaseUnknown):
        await Search(store, Deleting()).search(base, "tin")


async def test_a_slow_embedder_is_not_waited_for(store: KnowledgeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(WordEmbedder):
        async def embed(self, texts: Sequence[str], origin: Origin, model: bytes | None) -> Vectors:
            await trio.sleep_forever()
            raise AssertionError

    monkeypatch.setattr(search_module, "QUERY_VECTOR_S", 0.0)
    base = await filled(store)
    found = await Search(store, Slow()).search(base, "tin")
    assert found.method == "bm25" and found.note == "no vector of the query came within 0 s" and found.passages


async def test_the_same_question_is_embedded_once_and_where_the_base_allows(store: KnowledgeStore) -> None:
    base = (await store.create_knowledge_base("b", ("CA",))).id
    await store.add_document(base, b"tin costs nine", "tin.txt")
    embedder = WordEmbedder()
    await ingest_all(store, embedder)
    search = Search(store, embedder)
    first = await search.search(base, "tin ")
    assert await search.search(base, "tin ") == first
    assert embedder.asked[1:] == [(("tin",), ("CA",), embedder.model)]


async def test_the_nearest_vectors_are_the_truly_nearest(store: KnowledgeStore) -> None:
    source = random.Random(7)
    rows = [[source.gauss(0, 1) for _ in range(64)] for _ in range(600)]

    class Scattered(WordEmbedder):
        async def embed(self, texts: Sequence[str], origin: Origin, model: bytes | None) -> Vectors:
            chosen = [unit(rows[int(text.split()[-1])]) for text in texts]
            return Vectors(self.model, 64, packed(chosen))

    def cut(document: DocumentText) -> tuple[Chunk, ...]:
        return tuple(Chunk(number, f"passage {number}", 0, 1, (), None) for number in range(len(rows)))

    base = (await store.create_knowledge_base("b")).id
    await store.add_document(base, b"anything", "a.txt")
    await ingest_more(Ingest(store, Scattered(), read=read_here, cut=cut))
    index = await store.connections.read(lambda db: lookup_index(db, base))
    for _ in range(10):
        query = unit([source.gauss(0, 1) for _ in range(64)])
        truth = sorted(range(len(rows)), key=lambda number: -dot(query, unit(rows[number])))[:10]
        vector = packed([query])

        def nearest(db: object, vector: bytes = vector) -> list[tuple[int, float]]:
            return lookup.by_vector(db, index, vector, None, 10)  # type: ignore[arg-type]

        found = await store.connections.read(nearest)
        assert [number - 1 for number, _ in found] == truth
        assert found[0][1] == pytest.approx(dot(query, unit(rows[truth[0]])), abs=1e-5)


def lookup_index(db: object, base: str) -> lookup.BaseIndex:
    return get_index(db, base)  # type: ignore[arg-type]


def unit(row: Sequence[float]) -> list[float]:
    length = math.sqrt(dot(row, row))
    return [number / length for number in row]


def dot(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))
