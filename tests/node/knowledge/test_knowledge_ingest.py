"""Documents go from queued to ready whatever happens on the way, and vectors come when somebody makes them."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from ryvion_node.knowledge import ingest as ingest_module
from ryvion_node.knowledge import progress
from ryvion_node.knowledge.connections import Operation
from ryvion_node.knowledge.errors import BadVectors
from ryvion_node.knowledge.fake import WordEmbedder
from ryvion_node.knowledge.ingest import Ingest
from ryvion_node.knowledge.interface import Chunk, DocumentText, Origin, StoredDocument, Vectors
from ryvion_node.knowledge.reading.process import open_readers
from ryvion_node.knowledge.search import Search
from ryvion_node.knowledge.store import KnowledgeStore
from ryvion_node.knowledge.vectors import packed, unpack
from tests.node.knowledge.store_support import ingest_all, ingest_more, opened, read_here, table_sizes


@pytest.fixture
def clock() -> MockClock:
    return MockClock()


@pytest.fixture
def anyio_backend(clock: MockClock) -> tuple[str, dict[str, object]]:
    """Trio with a clock that only moves when a test says so; threads work as ever."""
    return "trio", {"clock": clock}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[KnowledgeStore]:
    async with opened(tmp_path / "home" / "knowledge.db") as store:
        yield store


async def base_with(store: KnowledgeStore, *texts: str, jurisdictions: tuple[str, ...] = ()) -> str:
    base = (await store.create_knowledge_base("b", jurisdictions)).id
    for number, text in enumerate(texts):
        await store.add_document(base, text.encode(), f"{number}.txt")
    return base


async def only(store: KnowledgeStore, base: str) -> StoredDocument:
    (document,) = await store.documents(base)
    return document


async def test_a_broken_file_fails_and_the_rest_goes_on(store: KnowledgeStore) -> None:
    base = await base_with(store, "tin costs nine", "\0\1\2", "", "lead costs four")
    await ingest_all(store, WordEmbedder())
    states = [(one.state, one.chunks, one.embedded) for one in await store.documents(base)]
    assert states == [("ready", 1, 1), ("failed", 0, 0), ("failed", 0, 0), ("ready", 1, 1)]
    broken, empty = (await store.documents(base))[1:3]
    assert broken.error and "export it" in broken.error
    assert empty.error and "empty" in empty.error
    assert (await table_sizes(store))["uploads"] == 0


async def test_a_document_without_passages_is_no_document(store: KnowledgeStore) -> None:
    base = await base_with(store, "some text")
    await ingest_more(Ingest(store, WordEmbedder(), read=read_here, cut=lambda document: ()))
    assert (await only(store, base)).error == "no text was found in it"


async def test_too_many_passages_are_refused(store: KnowledgeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "MAX_DOCUMENT_CHUNKS", 2)
    monkeypatch.setattr(progress, "MAX_CHUNKS", 3)

    def words(document: DocumentText) -> tuple[Chunk, ...]:
        return tuple(Chunk(number, word, 0, 1, (), None) for number, word in enumerate(document.text.split()))

    base = await base_with(store, "one two three", "four five", "six seven")
    await ingest_more(Ingest(store, WordEmbedder(), read=read_here, cut=words))
    errors = [document.error for document in await store.documents(base)]
    assert errors[1] is None
    assert errors[0] == "it falls into 3 passages, the most is 2; split it"
    assert errors[2] == "the knowledge base would have more than 3 passages; make another one for it"


async def test_without_an_embedder_documents_are_ready_and_embedded_later(
    store: KnowledgeStore, clock: MockClock
) -> None:
    base = await base_with(store, "tin costs nine", "lead costs four")
    embedder = WordEmbedder()
    embedder.unavailable = "no node sells vectors"
    ingest = await ingest_all(store, embedder)
    for document in await store.documents(base):
        assert (document.state, document.chunks, document.embedded) == ("ready", 1, 0)
        assert document.warnings == ("found by words alone until a model makes its vectors: no node sells vectors",)
    found = await Search(store, embedder).search(base, "tin")
    assert (found.method, len(found.passages)) == ("bm25", 1)
    assert found.note == "no passage of this knowledge base has a vector yet"
    embedder.unavailable = ""
    await ingest_more(ingest)
    assert embedder.asked == []
    clock.jump(5.1)
    await ingest_more(ingest)
    assert [(one.embedded, one.warnings) for one in await store.documents(base)] == [(1, ()), (1, ())]
    assert (await Search(store, embedder).search(base, "tin")).method == "hybrid"
    assert await store.find_damage() is None


async def test_tries_are_further_and_further_apart(store: KnowledgeStore, clock: MockClock) -> None:
    await base_with(store, "tin costs nine")
    tries: list[float] = []

    class Counting(WordEmbedder):
        async def embed(self, texts: Sequence[str], origin: Origin, model: bytes | None) -> Vectors:
            tries.append(trio.current_time())
            return await super().embed(texts, origin, model)

    embedder = Counting()
    embedder.unavailable = "nobody"
    ingest = await ingest_all(store, embedder)
    for _ in range(800):
        clock.jump(5.0)
        await ingest_more(ingest)
    waits = [round(after - before) for before, after in itertools.pairwise(tries)]
    assert waits[:8] == [5, 10, 20, 40, 80, 160, 320, 600] and set(waits[8:]) == {600}


async def test_one_base_that_nobody_serves_does_not_hold_up_another(store: KnowledgeStore) -> None:
    class OnlyGermany(WordEmbedder):
        async def embed(self, texts: Sequence[str], origin: Origin, model: bytes | None) -> Vectors:
            self.unavailable = "" if "DE" in origin.jurisdictions else "nobody there"
            return await super().embed(texts, origin, model)

    closed = await base_with(store, "tin costs nine", "lead costs four", jurisdictions=("CA",))
    open_ = await base_with(store, "tin costs nine", jurisdictions=("DE",))
    embedder = OnlyGermany()
    await ingest_all(store, embedder)
    assert [one.embedded for one in await store.documents(closed)] == [0, 0]
    assert (await only(store, open_)).embedded == 1
    assert [jurisdictions for _, jurisdictions, _ in embedder.asked] == [("DE",)]


async def test_texts_are_embedded_once_whatever_document_they_are_in(store: KnowledgeStore) -> None:
    base = await base_with(store, "tin costs nine")
    embedder = WordEmbedder()
    await ingest_all(store, embedder)
    other = await base_with(store, "tin costs nine", "lead costs four")
    await ingest_all(store, embedder)
    # A new base learns which model its vectors are of by asking for the first; only then does it use what is kept.
    assert [texts for texts, _, _ in embedder.asked[1:]] == [("tin costs nine",), ("lead costs four",)]
    await store.add_document(base, b"lead costs four\n", "more.txt")
    await ingest_all(store, embedder)
    assert len(embedder.asked) == 3
    for one in (base, other):
        assert {document.embedded for document in await store.documents(one)} == {1}


async def test_batches_are_bounded(store: KnowledgeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EMBED_BATCH_TEXTS", 3)
    monkeypatch.setattr(progress, "EMBED_BATCH_BYTES", 1_000)
    base = await base_with(store, "\n\n".join(f"# {number}\n\n{'word ' * 60}{number}." for number in range(9)))
    embedder = WordEmbedder()
    await ingest_all(store, embedder)
    sizes = [(len(texts), sum(map(len, texts))) for texts, _, _ in embedder.asked]
    assert all(count <= 3 and size <= 1_000 for count, size in sizes)
    document = await only(store, base)
    assert document.embedded == document.chunks == sum(count for count, _ in sizes) > 3


async def test_a_text_that_is_too_long_for_the_model_is_embedded_in_part(store: KnowledgeStore) -> None:
    base = await base_with(store, "tin costs nine", "lead " * 100, "zinc costs two")
    embedder = WordEmbedder()
    embedder.longest_chars = 200
    await ingest_all(store, embedder)
    assert [one.embedded for one in await store.documents(base)] == [1, 1, 1]
    assert (await Search(store, embedder).search(base, "lead")).passages[0].similarity > 0.9
    embedder.longest_chars = 3
    other = await base_with(store, "copper costs eight")
    await ingest_all(store, embedder)
    assert "takes no text at all" in (await only(store, other)).warnings[0]


async def test_vectors_of_another_model_are_never_mixed_in(
    store: KnowledgeStore, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest_module, "SWITCH_MODEL_AFTER_S", 100.0)
    base = await base_with(store, "tin costs nine")
    old, new = WordEmbedder(), WordEmbedder(model=b"\2" * 32, dimensions=32)
    await ingest_all(store, old)
    await store.add_document(base, b"lead costs four", "lead.txt")
    ingest = await ingest_all(store, new)
    assert [one.embedded for one in await store.documents(base)] == [1, 0]
    found = await Search(store, new).search(base, "lead")
    assert (found.method, found.note) == ("bm25", "no vector could be made of the query: nobody offers that model")
    clock.jump(101)
    await ingest_more(ingest)
    assert [one.embedded for one in await store.documents(base)] == [1, 1]
    assert (await Search(store, new).search(base, "lead")).method == "hybrid"
    assert (await Search(store, old).search(base, "lead")).method == "bm25"
    assert await store.find_damage() is None

    def models(db: object) -> set[bytes]:
        return {model for (model,) in db.execute("SELECT DISTINCT model FROM embeddings")}  # type: ignore[attr-defined]

    assert await store.connections.read(models) == {new.model}


async def test_what_a_seller_says_of_passages_is_not_logged(
    store: KnowledgeStore, caplog: pytest.LogCaptureFixture
) -> None:
    base = await base_with(store, "tin costs nine")
    embedder = WordEmbedder()
    embedder.unavailable = "the executor says: tin costs nine"
    await ingest_all(store, embedder)
    assert "tin costs nine" in (await only(store, base)).warnings[0]
    assert "embedding_unavailable" in caplog.text
    assert "tin" not in caplog.text


async def test_a_first_seller_that_lied_about_its_model_is_not_believed_for_ever(
    store: KnowledgeStore, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest_module, "SWITCH_MODEL_AFTER_S", 100.0)
    base = await base_with(store, "tin costs nine")
    await ingest_all(store, WordEmbedder(dimensions=1))
    await store.add_document(base, b"lead costs four", "lead.txt")
    honest = WordEmbedder()
    ingest = await ingest_all(store, honest)
    assert [one.embedded for one in await store.documents(base)] == [1, 0]
    clock.jump(101)
    await ingest_more(ingest)
    assert [one.embedded for one in await store.documents(base)] == [1, 1]
    found = await Search(store, honest).search(base, "tin")
    assert (found.passages[0].chunk.text, found.method) == ("tin costs nine", "hybrid")
    assert await store.find_damage() is None


async def test_passages_of_small_documents_go_together(store: KnowledgeStore) -> None:
    base = await base_with(store, "tin costs nine")
    embedder = WordEmbedder()
    await ingest_all(store, embedder)
    texts = [f"metal {number} costs {number}" for number in range(40)]
    for number, text in enumerate(texts):
        await store.add_document(base, text.encode(), f"{number}.txt")
    await ingest_all(store, embedder)
    assert [len(asked) for asked, _, _ in embedder.asked] == [1, 32, 8]
    assert {document.embedded for document in await store.documents(base)} == {1}
    assert (await Search(store, embedder).search(base, "metal 7")).passages[0].chunk.text == texts[7]
    assert await store.find_damage() is None


async def test_a_large_document_is_not_waited_for(store: KnowledgeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "READ_AHEAD_BYTES", 100)
    await base_with(store, "tin costs nine", "lead costs four", "zinc costs two " * 20)
    embedder = WordEmbedder()
    await ingest_all(store, embedder)
    assert [asked[0].split()[0] for asked, _, _ in embedder.asked] == ["tin", "lead", "zinc"]


async def test_a_document_deleted_while_its_vectors_are_made_leaves_none_behind(store: KnowledgeStore) -> None:
    base = await base_with(store, "tin costs nine")
    await ingest_all(store, WordEmbedder())
    gone = await store.add_document(base, b"lead costs four", "lead.txt")
    await store.add_document(base, b"zinc costs two", "zinc.txt")

    class Deleting(WordEmbedder):
        async def embed(self, texts: Sequence[str], origin: Origin, model: bytes | None) -> Vectors:
            made = await super().embed(texts, origin, model)
            if len(texts) == 2:
                await store.delete_document(base, gone.document.id)
            return made

    embedder = Deleting()
    await ingest_all(store, embedder)
    assert [texts for texts, _, _ in embedder.asked] == [("lead costs four", "zinc costs two")]
    assert (await table_sizes(store))["embeddings"] == 2
    assert [document.embedded for document in await store.documents(base)] == [1, 1]


async def test_a_key_that_cannot_pay_is_no_reason_to_take_another_model(
    store: KnowledgeStore, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest_module, "SWITCH_MODEL_AFTER_S", 100.0)

    class Choosing(WordEmbedder):
        async def embed(self, texts: Sequence[str], origin: Origin, model: bytes | None) -> Vectors:
            if model is None:
                self.model = b"\2" * 32
            return await super().embed(texts, origin, model)

    base = await base_with(store, "tin costs nine")
    embedder = WordEmbedder()
    await ingest_all(store, embedder)
    await store.add_document(base, b"lead costs four", "lead.txt")
    choosing = Choosing()
    choosing.unavailable = "the budget is spent"
    ingest = await ingest_all(store, choosing)
    clock.jump(1_000)
    await ingest_more(ingest)
    choosing.unavailable = ""
    clock.jump(1_000)
    await ingest_more(ingest)
    assert [one.embedded for one in await store.documents(base)] == [1, 1]
    assert choosing.model == embedder.model


async def test_vectors_can_be_made_anew_on_demand(store: KnowledgeStore) -> None:
    base = await base_with(store, "tin costs nine")
    await ingest_all(store, WordEmbedder())
    await store.forget_vectors(base)
    assert (await only(store, base)).embedded == 0
    new = WordEmbedder(model=b"\2" * 32, dimensions=32)
    await ingest_all(store, new)
    assert (await only(store, base)).embedded == 1
    assert (await Search(store, new).search(base, "tin")).method == "hybrid"


ROW = packed([[1.0] + [0.0] * 7])


@pytest.mark.parametrize(
    ("vectors", "problem"),
    [
        (Vectors(b"\1" * 32, 8, ROW), None),
        (Vectors(b"\2" * 32, 8, ROW), "another model"),
        (Vectors(b"", 8, ROW), "another model"),
        (Vectors(b"\1" * 32, 16, ROW), "32 bytes came for 1 vectors"),
        (Vectors(b"\1" * 32, 8, ROW * 2), "64 bytes came"),
        (Vectors(b"\1" * 32, 0, b""), "vectors of 0 numbers"),
        (Vectors(b"\1" * 32, 80_000, ROW * 10_000), "80000 numbers"),
        (Vectors(b"\1" * 32, 8, packed([[2.0] * 8])), "not of length 1"),
        (Vectors(b"\1" * 32, 8, packed([[0.0] * 8])), "not of length 1"),
        (Vectors(b"\1" * 32, 8, packed([[float("nan")] * 8])), "not of length 1"),
        (Vectors(b"\1" * 32, 8, packed([[float("inf")] * 8])), "not of length 1"),
    ],
)
def test_vectors_are_checked(vectors: Vectors, problem: str | None) -> None:
    if problem is None:
        assert unpack(vectors, 1, b"\1" * 32) == (ROW,)
        return
    with pytest.raises(BadVectors, match=problem):
        unpack(vectors, 1, b"\1" * 32)


async def test_bad_vectors_are_as_good_as_none(store: KnowledgeStore) -> None:
    class Broken(WordEmbedder):
        async def embed(self, texts: Sequence[str], origin: Origin, model: bytes | None) -> Vectors:
            return Vectors(self.model, 64, b"\0" * 256 * len(texts))

    base = await base_with(store, "tin costs nine")
    await ingest_all(store, Broken())
    document = await only(store, base)
    assert (document.state, document.embedded) == ("ready", 0) and "not of length 1" in document.warnings[0]


async def test_an_embedder_that_never_answers_is_given_up(store: KnowledgeStore, clock: MockClock) -> None:
    class Silent(WordEmbedder):
        async def embed(self, texts: Sequence[str], origin: Origin, model: bytes | None) -> Vectors:
            clock.jump(601)
            await trio.sleep_forever()
            raise AssertionError

    base = await base_with(store, "tin costs nine")
    await ingest_all(store, Silent())
    document = await only(store, base)
    assert (document.state, document.embedded) == ("ready", 0) and "no answer within 600 s" in document.warnings[0]


async def test_a_document_deleted_half_way_is_gone(store: KnowledgeStore) -> None:
    base = await base_with(store, "tin costs nine", "lead costs four")
    first, second = await store.documents(base)

    async def read_and_delete(data: bytes, filename: str) -> DocumentText:
        if filename == first.filename:
            await store.delete_document(base, first.id)
        return await read_here(data, filename)

    class Deleting(WordEmbedder):
        async def embed(self, texts: Sequence[str], origin: Origin, model: bytes | None) -> Vectors:
            await store.delete_document(base, second.id)
            return await super().embed(texts, origin, model)

    await ingest_more(Ingest(store, Deleting(), read=read_and_delete))
    rows = {name: rows for name, rows in (await table_sizes(store)).items() if rows and "_" not in name}
    assert rows == {"bases": 1}


async def test_a_file_that_ends_the_node_again_and_again_is_given_up(store: KnowledgeStore) -> None:
    base = await base_with(store, "tin costs nine")
    for _ in range(3):
        assert await store.connections.write(progress.begin_reading) is not None
        await store.connections.write(progress.resume)
    assert await store.connections.write(progress.begin_reading) is None
    document = await only(store, base)
    assert document.state == "failed" and document.error and "ended 3 times" in document.error


async def test_a_folder_of_notes_waits_for_the_disk_once_a_note(
    store: KnowledgeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = await base_with(store, *(f"note number {number}" for number in range(20)))
    write, writes = store.connections.write, 0

    async def counted(operation: Operation[Any]) -> Any:
        nonlocal writes
        writes += 1
        return await write(operation)

    monkeypatch.setattr(store.connections, "write", counted)
    await ingest_all(store, WordEmbedder())
    assert {(one.state, one.embedded) for one in await store.documents(base)} == {("ready", 1)}
    assert writes <= 30


async def test_the_service_takes_what_comes_and_only_one_of_two_does(store: KnowledgeStore, clock: MockClock) -> None:
    clock.rate = 100
    embedder, idle = WordEmbedder(), WordEmbedder()
    base = await base_with(store, "tin costs nine")
    async with open_readers() as read, trio.open_nursery() as first, trio.open_nursery() as second:
        await first.start(Ingest(store, embedder, read=read).run)
        await until_ready(store, base)
        await second.start(Ingest(store, idle, read=read_here).run)
        await store.add_document(base, b"lead costs four", "lead.txt")
        await until_ready(store, base)
        assert idle.asked == []
        first.cancel_scope.cancel()
        await store.add_document(base, b"zinc costs two", "zinc.txt")
        await until_ready(store, base)
        assert [texts for texts, _, _ in idle.asked] == [("zinc costs two",)]
        second.cancel_scope.cancel()


async def test_what_was_deleted_is_tidied_away_when_there_is_nothing_else_to_do(
    store: KnowledgeStore, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "RECLAIMED_PAGES", 20)
    clock.rate = 100
    base = await base_with(store, "tin costs nine", *("word " * 10_000 + str(number) for number in range(6)))
    async with trio.open_nursery() as nursery:
        await nursery.start(Ingest(store, WordEmbedder(), read=read_here).run)
        await until_ready(store, base)
        for document in (await store.documents(base))[1:]:
            await store.delete_document(base, document.id)
        began_s = trio.current_time()
        assert await store.connections.read(progress.untidy)
        with trio.fail_after(4_000):
            while await store.connections.read(progress.untidy):  # noqa: ASYNC110 - there is nothing to wait for
                await trio.sleep(1)
        assert trio.current_time() - began_s >= 8
        nursery.cancel_scope.cancel()
    pages, free = await store.connections.read(lambda db: (db.pragma("page_count"), db.pragma("freelist_count")))
    assert free < max(20, pages / 4)
    assert await store.find_damage() is None


async def test_vectors_of_another_length_under_the_same_digest_stay_with_whoever_took_them(
    store: KnowledgeStore,
) -> None:
    """A seller that lies about its file spoils one knowledge base, and ends no node."""
    seller = WordEmbedder(dimensions=1)
    spoilt = await base_with(store, "tin costs nine")
    await ingest_all(store, seller)
    search = Search(store, seller)
    assert (await search.search(spoilt, "tin")).method == "hybrid"
    seller.dimensions = 64
    base = await base_with(store, "lead costs four")
    await ingest_all(store, seller)
    await store.add_document(base, b"tin costs nine", "tin.txt")
    await ingest_all(store, seller)
    assert [document.embedded for document in await store.documents(base)] == [1, 1]
    for asked, query, method in ((base, "tin", "hybrid"), (spoilt, "tin", "hybrid"), (spoilt, "nine", "bm25")):
        found = await search.search(asked, query)
        assert (found.passages[0].chunk.text, found.method) == ("tin costs nine", method)
    assert await store.find_damage() is None


async def until_ready(store: KnowledgeStore, base: str) -> None:
    with trio.fail_after(4_000):
        while any(one.state != "ready" for one in await store.documents(base)):  # noqa: ASYNC110 - polled as clients do
            await trio.sleep(1)
