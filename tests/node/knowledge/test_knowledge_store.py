"""What is kept of knowledge bases and documents, and what is not once they are deleted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path

import pytest

from ryvion_node.knowledge import documents
from ryvion_node.knowledge.documents import document_name
from ryvion_node.knowledge.errors import DocumentUnknown, KnowledgeBaseUnknown, KnowledgeLimit
from ryvion_node.knowledge.fake import WordEmbedder
from ryvion_node.knowledge.records import DisclosedChunk, Disclosure
from ryvion_node.knowledge.search import Search
from ryvion_node.knowledge.store import KnowledgeStore
from tests.node.knowledge.store_support import ingest_all, opened, table_sizes

TIN = b"# Prices\n\nTin costs nine euros in Zwickau."
LEAD = b"# Prices\n\nLead costs four euros in Zwickau."


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[KnowledgeStore]:
    async with opened(tmp_path / "home" / "knowledge.db") as store:
        yield store


async def names(store: KnowledgeStore, base: str) -> list[tuple[str, str]]:
    return [(one.filename, one.state) for one in await store.documents(base)]


async def found(store: KnowledgeStore, base: str, query: str) -> list[str]:
    result = await Search(store, WordEmbedder()).search(base, query)
    return [passage.chunk.text for passage in result.passages]


async def test_a_new_knowledge_base_is_listed_with_what_it_was_given(store: KnowledgeStore) -> None:
    made = await store.create_knowledge_base("  Metals \n of 2026 ", ("CA", "DE"))
    assert (made.name, made.jurisdictions, made.documents, made.chunks) == ("Metals of 2026", ("CA", "DE"), 0, 0)
    assert len(made.id) == 27 and made.id.startswith("kb_")
    same = await store.create_knowledge_base("Metals of 2026")
    assert await store.knowledge_bases() == (made, same)
    assert await store.knowledge_base(made.id) == made


@pytest.mark.parametrize("name", ["", "   ", "x" * 201, "a\x1b[2Jb"])
async def test_names_that_cannot_be_shown_are_refused(store: KnowledgeStore, name: str) -> None:
    with pytest.raises(KnowledgeLimit, match="1 to 200 printable"):
        await store.create_knowledge_base(name)


async def test_the_same_file_again_is_unchanged_and_under_another_name_a_duplicate(store: KnowledgeStore) -> None:
    base = (await store.create_knowledge_base("b")).id
    first = await store.add_document(base, TIN, "tin.md")
    assert first.outcome == "added" and first.document.state == "queued"
    for _ in range(2):
        again = await store.add_document(base, TIN, "tin.md")
        twin = await store.add_document(base, TIN, "copy.md")
        assert (again.outcome, twin.outcome) == ("unchanged", "duplicate")
        assert again.document.id == twin.document.id == first.document.id
        await ingest_all(store, WordEmbedder())
    assert await names(store, base) == [("tin.md", "ready")]
    other = (await store.create_knowledge_base("c")).id
    assert (await store.add_document(other, TIN, "copy.md")).outcome == "added"


async def test_a_changed_file_replaces_the_old_one_only_when_it_is_ready(store: KnowledgeStore) -> None:
    base = (await store.create_knowledge_base("b")).id
    await store.add_document(base, TIN, "m.md")
    await ingest_all(store, WordEmbedder())
    assert (await store.add_document(base, LEAD, "m.md")).outcome == "replacing"
    assert await names(store, base) == [("m.md", "ready"), ("m.md", "queued")]
    assert "Tin" in (await found(store, base, "Zwickau"))[0]
    await ingest_all(store, WordEmbedder())
    assert await names(store, base) == [("m.md", "ready")]
    assert ["Lead" in text for text in await found(store, base, "Zwickau")] == [True]
    assert await store.find_damage() is None


async def test_a_file_that_is_changed_back_needs_no_reading(store: KnowledgeStore) -> None:
    base = (await store.create_knowledge_base("b")).id
    first = await store.add_document(base, TIN, "m.md")
    await ingest_all(store, WordEmbedder())
    await store.add_document(base, LEAD, "m.md")
    back = await store.add_document(base, TIN, "m.md")
    assert (back.outcome, back.document.id) == ("unchanged", first.document.id)
    assert await names(store, base) == [("m.md", "ready")]


async def test_a_broken_new_version_leaves_the_old_one(store: KnowledgeStore) -> None:
    base = (await store.create_knowledge_base("b")).id
    await store.add_document(base, TIN, "m.md")
    await ingest_all(store, WordEmbedder())
    await store.add_document(base, b"\0\1\2\3", "m.md")
    await ingest_all(store, WordEmbedder())
    assert await names(store, base) == [("m.md", "ready"), ("m.md", "failed")]
    assert await found(store, base, "tin") != []
    again = await store.add_document(base, b"\0\1\2\3", "m.md")
    assert (again.outcome, again.document.state, again.document.error) == ("replacing", "queued", None)


async def test_a_file_that_becomes_like_another_one_does_not_keep_its_old_text(store: KnowledgeStore) -> None:
    base = (await store.create_knowledge_base("b")).id
    await store.add_document(base, TIN, "tin.md")
    await store.add_document(base, LEAD, "lead.md")
    await ingest_all(store, WordEmbedder())
    assert (await store.add_document(base, TIN, "lead.md")).outcome == "replacing"
    await ingest_all(store, WordEmbedder())
    assert await found(store, base, "lead") == []


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("notes.md", "notes.md"),
        ("docs/a/index.md", "docs/a/index.md"),
        ("../../etc/passwd", "etc/passwd"),
        ("/C:\\x\\..\\y.txt", "C:/x/y.txt"),
        ("a\x1b[2J/\u202eb.txt", "a [2J/b.txt"),
        ("", "document"),
        ("../..", "document"),
        ("\ud800.md", ".md"),
    ],
)
def test_names_of_files_lead_nowhere(given: str, kept: str) -> None:
    assert document_name(given) == kept


def test_of_a_long_path_the_last_folders_are_kept() -> None:
    name = document_name("/".join(["folder" * 20] * 10) + "/end.md")
    assert len(name) <= 400 and name.endswith("/end.md")


async def test_limits_of_sizes_and_numbers(store: KnowledgeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MAX_FILE_BYTES", 50)
    monkeypatch.setattr(documents, "MAX_DOCUMENTS", 2)
    monkeypatch.setattr(documents, "MAX_WAITING_BYTES", 59)
    base = (await store.create_knowledge_base("b")).id
    with pytest.raises(KnowledgeLimit, match="51 bytes; the most is 50"):
        await store.add_document(base, b"x" * 51, "long.txt")
    await store.add_document(base, b"some words", "1.txt")
    with pytest.raises(KnowledgeLimit, match="10 bytes wait to be read"):
        await store.add_document(base, b"y" * 50, "2.txt")
    await ingest_all(store, WordEmbedder())
    await store.add_document(base, b"y" * 50, "2.txt")
    with pytest.raises(KnowledgeLimit, match="2 documents, the most possible"):
        await store.add_document(base, b"other words", "3.txt")


async def test_what_is_not_there_is_named(store: KnowledgeStore) -> None:
    base = (await store.create_knowledge_base("b")).id
    for ask in (store.knowledge_base, store.documents, store.delete_knowledge_base, store.forget_vectors):
        with pytest.raises(KnowledgeBaseUnknown, match="kb_none"):
            await ask("kb_none")
    with pytest.raises(KnowledgeBaseUnknown):
        await store.add_document("kb_none", TIN, "tin.md")
    with pytest.raises(KnowledgeBaseUnknown):
        await store.document("kb_none", "doc_none")
    with pytest.raises(DocumentUnknown, match="doc_none"):
        await store.delete_document(base, "doc_none")
    assert await store.chunks(base, ["chk_none", "", "chk_" + "0" * 24]) == ()


async def test_documents_are_listed_page_by_page(store: KnowledgeStore) -> None:
    base = (await store.create_knowledge_base("b")).id
    for number in range(5):
        await store.add_document(base, b"%d" % number, f"{number}.txt")
    first = await store.documents(base, limit=2)
    rest = await store.documents(base, limit=10, after=first[-1].id)
    assert [one.filename for one in (*first, *rest)] == [f"{number}.txt" for number in range(5)]


async def test_passages_are_given_by_id(store: KnowledgeStore) -> None:
    base = (await store.create_knowledge_base("b")).id
    await store.add_document(base, TIN, "tin.md")
    await ingest_all(store, WordEmbedder())
    (hit,) = (await Search(store, WordEmbedder()).search(base, "tin")).passages
    (loaded,) = await store.chunks(base, [hit.chunk_id])
    assert (loaded.chunk, loaded.sha256, loaded.filename) == (hit.chunk, hit.sha256, "tin.md")


async def test_a_deleted_knowledge_base_leaves_nothing_but_the_record_of_disclosures(store: KnowledgeStore) -> None:
    base = (await store.create_knowledge_base("b")).id
    await store.add_document(base, TIN, "tin.md")
    await ingest_all(store, WordEmbedder())
    await store.add_document(base, LEAD, "waiting.md")
    (hit,) = (await Search(store, WordEmbedder()).search(base, "tin")).passages
    carried = Disclosure(
        "job-1", "chatcmpl-1", base, b"k" * 32, "DE", "prompt", 7, (DisclosedChunk(hit.chunk_id, hit.sha256),)
    )
    await store.record_disclosure(carried)
    await store.record_disclosure(carried)
    await store.delete_knowledge_base(base)
    rows = {name: rows for name, rows in (await table_sizes(store)).items() if rows and name != "sqlite_sequence"}
    assert rows == {"disclosures": 1, "disclosed_chunks": 1}
    for asked in ({"job_id": "job-1"}, {"completion_id": "chatcmpl-1"}, {"knowledge_base": base}, {}):
        assert await store.disclosures(**asked) == (carried,)
    assert await store.disclosures(job_id="job-2") == ()


async def test_deleted_texts_are_not_in_the_file_any_more(tmp_path: Path) -> None:
    path = tmp_path / "home" / "knowledge.db"
    async with opened(path) as store:
        base = (await store.create_knowledge_base("b")).id
        for number in range(20):
            await store.add_document(base, TIN + b" No. %d." % number, f"{number}.md")
        await ingest_all(store, WordEmbedder())
        kept = await store.add_document(base, b"copper", "copper.txt")
        await ingest_all(store, WordEmbedder())
        for document in await store.documents(base):
            if document.id != kept.document.id:
                await store.delete_document(base, document.id)
        ingest = await ingest_all(store, WordEmbedder())
        while await ingest._tidy():
            pass
        written = b"".join(file.read_bytes().lower() for file in path.parent.iterdir())
        assert b"copper" in written
        assert b"zwickau" not in written
        assert await store.find_damage() is None
        assert len(await found(store, base, "copper zwickau")) == 1


async def test_a_text_of_two_documents_keeps_its_vector_until_both_are_gone(store: KnowledgeStore) -> None:
    base = (await store.create_knowledge_base("b")).id
    one = await store.add_document(base, b"the same words here", "1.txt")
    two = await store.add_document(base, b"the same words here\n", "2.txt")
    embedder = WordEmbedder()
    await ingest_all(store, embedder)
    assert [len(texts) for texts, _, _ in embedder.asked] == [1]
    await store.delete_document(base, one.document.id)
    assert (await table_sizes(store))["embeddings"] == 1
    assert (await Search(store, embedder).search(base, "words")).passages[0].similarity > 0.3
    await store.delete_document(base, two.document.id)
    assert (await table_sizes(store))["embeddings"] == 0


async def test_embedded_texts_lead_back_to_passages(store: KnowledgeStore) -> None:
    base = (await store.create_knowledge_base("b")).id
    await store.add_document(base, TIN, "tin.md")
    embedder = WordEmbedder()
    await ingest_all(store, embedder)
    (texts, _, _), *_ = embedder.asked
    (hit,) = (await Search(store, embedder).search(base, "tin")).passages
    asked = [sha256(text.encode()).digest() for text in texts]
    assert await store.embedded_chunks(base, [*asked, b"?" * 32]) == (DisclosedChunk(hit.chunk_id, hit.sha256),)
