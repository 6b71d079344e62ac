"""Knowledge bases over HTTP: made, filled, searched, deleted, and kept from whoever may not."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from knowledge_harness import BOUNDARY, ROOT, form, shelf
from proxy_harness import serving

from ryvion_node.proxy.constants import MAX_UPLOADS
from ryvion_node.proxy.errors import ApiError
from ryvion_node.proxy.exchange import Exchange
from ryvion_node.proxy.knowledge import endpoints, upload
from ryvion_node.proxy.knowledge.upload import Form, UploadedFile

MULTIPART = f"multipart/form-data; boundary={BOUNDARY}"
FERRY = "The ferry to Lund leaves at 7:45."


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    return folder


async def test_from_a_file_to_its_passages(home: Path) -> None:
    async with shelf(home) as there:
        made = await there.ask("POST", ROOT, {"name": "Ferries", "jurisdiction": ["DE", "SE"]})
        base = made.json()
        assert made.status == 201
        assert (base["name"], base["jurisdiction"], base["key_id"]) == ("Ferries", "DE,SE", "k1")
        url = f"{ROOT}/{base['id']}"
        sent = await there.upload(str(base["id"]), ("timetables/ferries.md", f"# Lund\n\n{FERRY}".encode()))
        document = sent.json()
        assert (sent.status, document["state"], document["outcome"]) == (202, "queued", "added")
        assert document["filename"] == "timetables/ferries.md"
        await there.settle()
        shown = (await there.ask("GET", f"{url}/documents/{document['id']}")).json()
        assert (shown["state"], shown["chunks"], shown["embedded"], shown["error"]) == ("ready", 1, 1, None)
        assert (await there.ask("GET", url)).json() == base | {"documents": 1, "chunks": 1}
        assert (await there.ask("GET", ROOT)).json()["data"] == [base | {"documents": 1, "chunks": 1}]
        found = (await there.ask("POST", f"{url}/search", {"query": "ferry to Lund"})).json()
        (result,) = found["results"]  # type: ignore[misc]
        assert (found["method"], found["note"]) == ("hybrid", "")
        assert result["content"].endswith(FERRY)
        assert result["metadata"]["document_id"] == document["id"]
        assert result["metadata"]["headings"] == ["Lund"]
        assert 0 < result["similarity"] <= 1
        assert there.embedder.origins[-1].key_id == "k1"
        again = await there.upload(str(base["id"]), ("timetables/ferries.md", f"# Lund\n\n{FERRY}".encode()))
        assert (again.json()["outcome"], again.json()["id"]) == ("unchanged", document["id"])
        gone = await there.ask("DELETE", f"{url}/documents/{document['id']}")
        assert gone.json() == {"id": document["id"], "object": "knowledge_base.document.deleted", "deleted": True}
        assert (await there.ask("GET", f"{url}/documents")).json()["data"] == []
        assert (await there.ask("DELETE", url)).json()["deleted"] is True
        lost = await there.ask("GET", url)
        assert (lost.status, lost.error["code"]) == (404, "knowledge_base_not_found")


async def test_several_files_at_once_and_pages_of_them(home: Path) -> None:
    async with shelf(home) as there:
        base = await there.create()
        names = [f"{number}.txt" for number in range(5)]
        sent = await there.upload(base, *((name, f"text {name}".encode()) for name in names))
        assert [document["filename"] for document in sent.json()["data"]] == names  # type: ignore[attr-defined]
        url = f"{ROOT}/{base}/documents"
        first = (await there.ask("GET", f"{url}?limit=3")).json()
        assert ([one["filename"] for one in first["data"]], first["has_more"]) == (names[:3], True)  # type: ignore[attr-defined]
        last = first["data"][-1]["id"]  # type: ignore[index]
        rest = (await there.ask("GET", f"{url}?limit=3&after={last}")).json()
        assert ([one["filename"] for one in rest["data"]], rest["has_more"]) == (names[3:], False)  # type: ignore[attr-defined]
        for wrong in ("0", "1001", "x", "-1", "", "1.5"):
            assert (await there.ask("GET", f"{url}?limit={wrong}")).status == 400
        assert (await there.ask("GET", f"{url}?after=doc_x")).error["code"] == "document_not_found"


async def test_a_search_keeps_to_the_documents_it_is_told(home: Path) -> None:
    async with shelf(home) as there:
        base = await there.create()
        ids = await there.add(base, lund=FERRY, malmo="The ferry to Malmo leaves at 9:10.")
        body = {"query": "when does the ferry leave", "limit": 2}
        both = (await there.ask("POST", f"{ROOT}/{base}/search", body)).json()
        assert len(both["results"]) == 2  # type: ignore[arg-type]
        one = (await there.ask("POST", f"{ROOT}/{base}/search", body | {"documents": [ids["malmo"]]})).json()
        assert [hit["metadata"]["filename"] for hit in one["results"]] == ["malmo.txt"]  # type: ignore[attr-defined]
        unknown = await there.ask("POST", f"{ROOT}/{base}/search", body | {"documents": ["doc_x"]})
        assert (unknown.status, unknown.error["code"]) == (404, "document_not_found")


async def test_without_vectors_a_search_says_so(home: Path) -> None:
    async with shelf(home) as there:
        base = await there.create()
        there.embedder.unavailable = "nobody sells vectors"
        ids = await there.add(base, lund=FERRY)
        document = (await there.ask("GET", f"{ROOT}/{base}/documents/{ids['lund']}")).json()
        assert (document["state"], document["embedded"]) == ("ready", 0)
        assert "nobody sells vectors" in str(document["warnings"])
        found = (await there.ask("POST", f"{ROOT}/{base}/search", {"query": "Lund"})).json()
        assert (found["method"], len(found["results"])) == ("bm25", 1)  # type: ignore[arg-type]
        assert found["note"]


async def test_a_broken_file_says_what_is_wrong_and_the_rest_goes_on(home: Path) -> None:
    async with shelf(home) as there:
        base = await there.create()
        await there.upload(base, ("broken.pdf", b"%PDF-1.7 no"), ("lund.txt", FERRY.encode()))
        await there.settle()
        listed = (await there.ask("GET", f"{ROOT}/{base}/documents")).json()["data"]
        assert [document["state"] for document in listed] == ["failed", "ready"]  # type: ignore[attr-defined]
        assert listed[0]["error"]  # type: ignore[index]


async def test_only_who_pays_for_a_knowledge_base_changes_it_and_operators(home: Path) -> None:
    async with shelf(home) as there:
        made = await there.ask("POST", ROOT, {"name": "n"}, token="sk-operator")
        base = str(made.json()["id"])
        url = f"{ROOT}/{base}"
        sent = await there.upload(base, ("a.txt", FERRY.encode()), token="sk-operator")
        await there.settle()
        for refused in (
            await there.upload(base, ("b.txt", b"b")),
            await there.ask("DELETE", f"{url}/documents/{sent.json()['id']}"),
            await there.ask("DELETE", f"{url}/vectors"),
            await there.ask("DELETE", url),
        ):
            assert (refused.status, refused.error["code"]) == (403, "insufficient_scope")
            assert "k4" in refused.error["message"]
        found = (await there.ask("POST", f"{url}/search", {"query": "ferry"})).json()["results"]
        assert len(found) == 1  # type: ignore[arg-type]


async def test_vectors_are_made_anew(home: Path) -> None:
    async with shelf(home) as there:
        base = await there.create()
        await there.upload(base, ("a.txt", FERRY.encode()))
        await there.settle()
        before = len(there.embedder.origins)
        forgotten = await there.ask("DELETE", f"{ROOT}/{base}/vectors")
        assert forgotten.json() == {"id": base, "object": "knowledge_base.vectors.deleted", "deleted": True}
        with trio.fail_after(10):
            while len(there.embedder.origins) == before:
                await there.settle()


@pytest.mark.parametrize(
    ("token", "lists", "changes"),
    [
        ("sk-operator", 200, 201),
        ("sk-reader", 200, 403),
        ("sk-writer", 403, 403),
        ("sk-odd", 403, 403),
        ("nobody's", 401, 401),
    ],
)
async def test_scopes(home: Path, token: str, lists: int, changes: int) -> None:
    async with shelf(home) as there:
        base = await there.create()
        assert (await there.ask("GET", ROOT, token=token)).status == lists
        assert (await there.ask("GET", f"{ROOT}/{base}/documents", token=token)).status == lists
        assert (await there.ask("POST", ROOT, {"name": "n"}, token=token)).status == changes
        searches = 200 if changes == 201 else changes
        assert (await there.ask("POST", f"{ROOT}/{base}/search", {"query": "q"}, token=token)).status == searches
        assert (await there.upload(base, ("a.txt", b"a"), token=token)).status == (202 if changes == 201 else changes)
        assert (await there.ask("DELETE", f"{ROOT}/{base}", token=token)).status == searches


async def test_a_key_that_is_bound_to_places_makes_bases_that_stay_there(home: Path) -> None:
    async with shelf(home) as there:
        made = await there.ask("POST", ROOT, {"name": "n"}, token="sk-canada")
        assert made.json()["jurisdiction"] == "CA,US"
        wider = await there.ask("POST", ROOT, {"name": "n", "jurisdiction": "CA,DE"}, token="sk-canada")
        assert (wider.status, wider.error["code"]) == (403, "jurisdiction_not_allowed")


async def test_a_query_stays_where_key_and_base_allow(home: Path) -> None:
    async with shelf(home) as there:
        base = await there.create("CA,DE")
        await there.add(base, lund=FERRY)
        await there.ask("POST", f"{ROOT}/{base}/search", {"query": "ferry"}, token="sk-canada")
        origin = there.embedder.origins[-1]
        assert (origin.key_id, origin.jurisdictions, origin.passages) == ("k6", ("CA",), ())
        elsewhere = await there.create("DE")
        await there.add(elsewhere, lund=FERRY)
        asked = len(there.embedder.asked)
        found = await there.ask("POST", f"{ROOT}/{elsewhere}/search", {"query": "boat to Lund"}, token="sk-canada")
        assert found.json()["method"] == "bm25"
        assert len(there.embedder.asked) == asked


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({}, "missing_required_parameter", "name"),
        ({"name": 1}, "invalid_type", "name"),
        ({"name": " "}, "knowledge_limit", "name"),
        ({"name": "n" * 201}, "knowledge_limit", "name"),
        ({"name": "n", "jurisdiction": "Atlantis"}, "invalid_value", "jurisdiction"),
        ({"name": "n", "jurisdiction": ""}, "invalid_value", "jurisdiction"),
        ({"name": "n", "jurisdiction": []}, "invalid_value", "jurisdiction"),
        ({"name": "n", "jurisdicton": "DE"}, "unsupported_parameter", "jurisdicton"),
    ],
)
async def test_what_makes_no_knowledge_base(home: Path, body: object, code: str, param: str) -> None:
    async with shelf(home) as there:
        reply = await there.ask("POST", ROOT, body)
        assert (reply.status, reply.error["code"], reply.error["param"]) == (400, code, param)
        assert (await there.ask("GET", ROOT)).json()["data"] == []


@pytest.mark.parametrize(
    "body",
    [{}, {"query": ""}, {"query": "q", "limit": 0}, {"query": "q", "limit": 51}, {"query": "q", "documents": []}],
)
async def test_what_is_no_search(home: Path, body: object) -> None:
    async with shelf(home) as there:
        base = await there.create()
        assert (await there.ask("POST", f"{ROOT}/{base}/search", body)).status == 400


async def test_what_is_no_upload(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with shelf(home) as there:
        base = await there.create()
        path = f"{ROOT}/{base}/documents"

        async def refused(body: bytes, kind: str = MULTIPART) -> tuple[int, str | None]:
            reply = await there.ask("POST", path, body, content_type=kind)
            return reply.status, reply.error["code"]

        assert await refused(form(("a.txt", b"a")), "application/json") == (415, "unsupported_media_type")
        assert await refused(form(("a.txt", b"a")), "multipart/form-data") == (415, "unsupported_media_type")
        assert await refused(form(("a.txt", b"a"))[:-10]) == (400, "invalid_value")
        assert await refused(b"what is this?") == (400, "invalid_value")
        assert await refused(form(("", b"a"))) == (400, "invalid_value")
        assert await refused(form(("a.txt", b"a"), field="files")) == (400, "missing_required_parameter")
        monkeypatch.setattr(upload, "MAX_FILE_BYTES", 10)
        assert await refused(form(("a.txt", b"a" * 10), ("b.txt", b"b" * 11))) == (413, "request_too_large")
        listed = (await there.ask("GET", path)).json()["data"]
        assert [document["filename"] for document in listed] == ["a.txt"]  # type: ignore[attr-defined]
        monkeypatch.setattr(upload, "MAX_UPLOAD_BYTES", 100)
        assert await refused(form(("c.txt", b"c"))) == (413, "request_too_large")
        missing = await there.ask("POST", f"{ROOT}/kb_x/documents", form(("a.txt", b"a")), content_type=MULTIPART)
        assert (missing.status, missing.error["code"]) == (404, "knowledge_base_not_found")


async def test_uploads_wait_for_one_another(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    under_way: list[int] = []
    full, go_on = trio.Event(), trio.Event()
    read = endpoints.uploaded_files

    async def held(exchange: Exchange) -> AsyncGenerator[UploadedFile, None]:
        under_way.append((under_way[-1] if under_way else 0) + 1)
        if under_way[-1] == MAX_UPLOADS:
            full.set()
        await go_on.wait()
        async with contextlib.aclosing(read(exchange)) as files:
            async for file in files:
                yield file
        under_way.append(under_way[-1] - 1)

    monkeypatch.setattr(endpoints, "uploaded_files", held)
    async with shelf(home) as there:
        base = await there.create()
        async with trio.open_nursery() as nursery:
            for number in range(MAX_UPLOADS + 2):
                nursery.start_soon(there.upload, base, (f"{number}.txt", f"text {number}".encode()))
            await full.wait()
            go_on.set()
        assert len(await there.knowledge.store.documents(base)) == MAX_UPLOADS + 2
    assert max(under_way) == MAX_UPLOADS
    assert under_way[-1] == 0


async def test_an_upload_is_not_waited_for_for_ever(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "UPLOAD_S", 0.0)
    async with shelf(home) as there:
        late = await there.upload(await there.create(), ("late.txt", b"late"))
        assert (late.status, late.error["code"]) == (408, "request_timeout")


async def test_switched_off_it_says_so_and_only_to_whoever_may_know() -> None:
    async with serving({}) as endpoint:
        reply = await endpoint.ask("GET", ROOT, authorization="Bearer sk-buyer")
        assert (reply.status, reply.error["code"]) == (404, "knowledge_disabled")
        assert (await endpoint.ask("GET", ROOT)).status == 401
        chat = await endpoint.chat(knowledge_base="kb_x")
        assert (chat.status, chat.error["code"]) == (404, "knowledge_disabled")


async def test_embeddings_take_no_knowledge_base() -> None:
    async with serving({}) as endpoint:
        body = {"model": "m", "input": "a", "knowledge_base": "kb_x"}
        reply = await endpoint.ask("POST", "/v1/embeddings", body, authorization="Bearer sk-buyer")
        assert (reply.status, reply.error["param"]) == (400, "knowledge_base")


FILES = st.lists(
    st.tuples(st.text("abc/. ü", min_size=1).filter(str.strip), st.binary(max_size=200)), min_size=1, max_size=4
)


@given(FILES, st.data())
def test_a_form_gives_the_same_files_however_it_is_cut(files: list[tuple[str, bytes]], data: st.DataObject) -> None:
    parser, body = Form(MULTIPART), form(*files)
    while body:
        cut = data.draw(st.integers(1, len(body)))
        parser.feed(body[:cut])
        body = body[cut:]
    parser.finish()
    assert list(parser.files) == [UploadedFile(name, content) for name, content in files]


@given(st.binary(max_size=300), st.booleans())
def test_whatever_comes_is_a_form_or_an_api_error(junk: bytes, begun: bool) -> None:
    parser = Form(MULTIPART)
    try:
        parser.feed((form(("a.txt", b"a"))[:120] if begun else b"") + junk)
        parser.finish()
    except ApiError as error:
        code = error.code
    else:
        code = "none"
    assert code in ("none", "invalid_value", "request_too_large")
