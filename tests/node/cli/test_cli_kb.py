"""`kb`: what is asked of the node, and what is made of its answers."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from ryvion_node.cli.kb import adding
from ryvion_node.cli.kb.files import FoundFile
from ryvion_node.cli.kb.progress import watching
from tests.node.cli.conftest import Run
from tests.node.cli.control_fake import TOKEN, Answer, ControlFake, serve_control

ROOT = "/api/v1/knowledge-bases"
KB = f"kb_{'1' * 24}"
OTHER = f"kb_{'2' * 24}"
BASE: dict[str, Any] = {
    "object": "knowledge_base",
    "id": KB,
    "name": "Timetables",
    "jurisdiction": "DE,FR",
    "key_id": "control",
    "created": 1_700_000_000,
    "documents": 2,
    "chunks": 5,
}
DOCUMENT: dict[str, Any] = {
    "object": "knowledge_base.document",
    "id": f"doc_{'a' * 24}",
    "knowledge_base": KB,
    "filename": "docs/ferries.pdf",
    "sha256": "ab" * 32,
    "size_bytes": 1_234,
    "state": "ready",
    "pages": 2,
    "chunks": 3,
    "embedded": 3,
    "error": None,
    "warnings": [],
    "created": 1_700_000_000,
}
QUEUED = DOCUMENT | {"state": "queued", "pages": None, "chunks": 0, "embedded": 0}
BROKEN = DOCUMENT | {
    "id": f"doc_{'b' * 24}",
    "filename": "docs/broken.pdf",
    "state": "failed",
    "error": "it is damaged",
}
RESULT: dict[str, Any] = {
    "chunk_id": f"chk_{'c' * 24}",
    "content": "The ferry\x1b[2J leaves at 08:15.",
    "similarity": 0.834,
    "score": 0.03,
    "metadata": {
        "document_id": DOCUMENT["id"],
        "filename": "docs/ferries.pdf",
        "page": 2,
        "start": 0,
        "end": 25,
        "headings": ["Summer", "Lund"],
        "sha256": "cd" * 32,
    },
}


def listed(*items: dict[str, Any], has_more: bool = False) -> Answer:
    return 200, {"object": "list", "data": list(items), "has_more": has_more}


def refusal(status: int, code: str, message: str) -> Answer:
    return status, {"error": {"message": message, "type": "x", "param": None, "code": code}}


def sent(control: ControlFake) -> list[bytes]:
    """The multipart bodies."""
    return [asked.body for asked in control.asked if isinstance(asked.body, bytes)]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adding, "POLL_S", 0)


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "ferries.pdf").write_bytes(b"%PDF-1.7 \0\xff\r\n--boundary\r\n")
    return folder


def test_create_prints_the_id_alone(run: Run, home: Path) -> None:
    with serve_control(home, {ROOT: (201, BASE)}) as control:
        made = run("kb", "create", "Timetables", "--jurisdiction", "EU")
        run("kb", "create", "Timetables")
    assert made.stdout == f"{KB}\n"
    assert [asked.body for asked in control.asked] == [
        {"name": "Timetables", "jurisdiction": "EU"},
        {"name": "Timetables"},
    ]
    assert control.asked[0].token == f"Bearer {TOKEN}"


def test_list_and_show(run: Run, home: Path) -> None:
    many = BASE | {"id": OTHER, "name": "Contracts", "jurisdiction": "AT,BE,BG,CY,CZ,DE"}
    pages = {
        f"{ROOT}/{KB}/documents?limit=500": listed(DOCUMENT | {"warnings": ["no vectors"]}, has_more=True),
        f"{ROOT}/{KB}/documents?limit=500&after={DOCUMENT['id']}": listed(BROKEN | {"warnings": ["no vectors"]}),
    }
    with serve_control(home, {ROOT: listed(BASE, many), **pages}):
        listing, shown = run("kb", "list"), run("kb", "show", "Timetables")
        as_json = json.loads(run("kb", "show", KB, "--json").stdout)
        bases = json.loads(run("kb", "list", "--json").stdout)["knowledge_bases"]
    assert all(text in listing.stdout for text in (KB, "Contracts", "DE, FR", "AT, BE, BG, CY", "2 more"))
    for text in ("Timetables", "docs/ferries.pdf", "ready", "1.2 kB", "docs/broken.pdf: it is damaged", "DE, FR"):
        assert text in shown.stdout
    assert "2 documents: no vectors" in shown.stdout
    assert [document["state"] for document in as_json["documents"]] == ["ready", "failed"]
    assert [base["id"] for base in bases] == [KB, OTHER]


def test_no_knowledge_bases_is_a_hint(run: Run, home: Path) -> None:
    with serve_control(home, {ROOT: listed()}):
        shown = run("kb", "list")
    assert (shown.exit_code, shown.stdout) == (0, "")
    assert "kb create" in shown.stderr


@pytest.mark.parametrize(
    "command", [("show", "X"), ("search", "X", "query"), ("delete", "X", "--yes"), ("add", "X", ".")]
)
def test_a_knowledge_base_that_is_not_there_or_not_the_only_one(run: Run, home: Path, command: tuple[str, ...]) -> None:
    with serve_control(home, {ROOT: [listed(BASE), listed(BASE | {"name": "X"}, BASE | {"id": OTHER, "name": "X"})]}):
        unknown, ambiguous = run("kb", *command), run("kb", *command)
    assert (unknown.exit_code, ambiguous.exit_code) == (66, 64)
    assert "kb list" in str(unknown.error)
    assert KB in str(ambiguous.error) and OTHER in str(ambiguous.error)


def test_without_a_node_everything_says_how_to_start_one(run: Run) -> None:
    refused = run("kb", "list")
    assert refused.exit_code == 69
    assert "ryvion-node up --proxy" in str(refused.error)


def test_add_sends_files_and_waits_until_they_are_read(run: Run, home: Path, docs: Path) -> None:
    path = f"{ROOT}/{KB}/documents"
    steps = [QUEUED | {"state": "reading"}, DOCUMENT | {"state": "embedding", "embedded": 1}, DOCUMENT]
    answers: dict[str, Answer | list[Answer]] = {
        ROOT: listed(BASE),
        path: (202, QUEUED | {"outcome": "added"}),
        f"{path}/{DOCUMENT['id']}": [(200, step) for step in steps],
    }
    (docs / ".hidden").write_text("x")
    with serve_control(home, answers) as control:
        added = run("kb", "add", "Timetables", str(docs))
    assert added.exit_code == 0
    assert added.stdout.splitlines() == [
        "added      docs/ferries.pdf: 2 pages, 3 passages",
        "left out of folders: 1 hidden",
        "1 file: 1 added",
    ]
    for line in ("sending 1 of 1: docs/ferries.pdf", "reading: docs/ferries.pdf", "ready: docs/ferries.pdf"):
        assert line in added.stderr
    (body,) = sent(control)
    assert b'name="file"; filename="docs/ferries.pdf"' in body
    assert (docs / "ferries.pdf").read_bytes() in body


def test_add_without_waiting(run: Run, home: Path, docs: Path) -> None:
    answers = {ROOT: listed(BASE), f"{ROOT}/{KB}/documents": (202, QUEUED | {"outcome": "replacing"})}
    with serve_control(home, answers):
        added = run("kb", "add", KB, str(docs / "ferries.pdf"), "--no-wait", "--json")
    assert (added.exit_code, added.stderr) == (0, "")
    (file,) = json.loads(added.stdout)["files"]
    assert (file["filename"], file["outcome"], file["document"]["state"]) == ("ferries.pdf", "replacing", "queued")


def test_what_is_wrong_with_one_file_does_not_stop_the_next(run: Run, home: Path, docs: Path) -> None:
    for name in ("a.md", "b.md", "c.md", "d.md"):
        (docs / name).write_text(name)
    path = f"{ROOT}/{KB}/documents"
    answers: dict[str, Answer | list[Answer]] = {
        ROOT: listed(BASE),
        path: [
            (202, DOCUMENT | {"filename": "docs/a.md", "outcome": "unchanged"}),
            refusal(400, "knowledge_limit", "There are 100000 documents."),
            (202, DOCUMENT | {"filename": "docs/a.md", "outcome": "duplicate"}),
            (202, QUEUED | {"id": BROKEN["id"], "outcome": "replacing"}),
            (202, QUEUED | {"outcome": "added"}),
        ],
        f"{path}/{BROKEN['id']}": [(200, BROKEN | {"state": "reading", "error": None}), (200, BROKEN)],
        f"{path}/{DOCUMENT['id']}": refusal(404, "document_not_found", "It is gone."),
    }
    with serve_control(home, answers) as control:
        added = run("kb", "add", KB, str(docs))
    assert added.exit_code == 1
    assert added.stdout.splitlines() == [
        "unchanged  docs/a.md",
        "FAILED     docs/b.md: There are 100000 documents.",
        "duplicate  docs/c.md: it is there as docs/a.md",
        "FAILED     docs/d.md: it is damaged",
        "FAILED     docs/ferries.pdf: it was deleted or replaced meanwhile",
        "5 files: 1 unchanged, 3 FAILED, 1 duplicate",
    ]
    assert len(sent(control)) == 5


def test_waiting_may_be_stopped(run: Run, home: Path, docs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(adding.time, "sleep", stop)
    path = f"{ROOT}/{KB}/documents"
    answers = {ROOT: listed(BASE), path: (202, QUEUED | {"outcome": "added"}), f"{path}/{QUEUED['id']}": (200, QUEUED)}
    with serve_control(home, answers):
        added = run("kb", "add", KB, str(docs))
    assert (added.exit_code, added.stdout) == (1, "")
    assert "is read all the same" in added.stderr


def test_what_is_wrong_with_the_node_stops_adding(run: Run, home: Path, docs: Path) -> None:
    answers = {ROOT: listed(BASE), f"{ROOT}/{KB}/documents": refusal(503, "knowledge_unavailable", "The disk is full.")}
    with serve_control(home, answers):
        added = run("kb", "add", KB, str(docs))
    assert added.exit_code == 69
    assert "The disk is full." in str(added.error)


def test_a_folder_larger_than_the_node_keeps_unread_is_sent_as_it_is_read(
    run: Run, home: Path, docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adding, "MAX_AHEAD_BYTES", 2)
    (docs / "ferries.pdf").unlink()
    for name in "abcd":
        (docs / f"{name}.md").write_text("x")
    path = f"{ROOT}/{KB}/documents"
    queued = [QUEUED | {"id": f"doc_{name * 24}", "filename": f"docs/{name}.md", "outcome": "added"} for name in "abcd"]
    answers: dict[str, Answer | list[Answer]] = {ROOT: listed(BASE), path: [(202, one) for one in queued]}
    answers |= {f"{path}/{one['id']}": (200, one | {"state": "ready"}) for one in queued}
    with serve_control(home, answers) as control:
        added = run("kb", "add", KB, str(docs))
    assert added.exit_code == 0
    asked = [(one.method, one.path.removeprefix(path)[:6]) for one in control.asked[1:]]
    send = ("POST", "")
    assert asked[:5] == [send, send, send, ("GET", "/doc_a"), send]
    assert sorted(asked[5:]) == [("GET", f"/doc_{name}") for name in "bcd"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_there_are_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    files = [FoundFile(Path("a"), "docs/[red]a.md", 1_000), FoundFile(Path("b"), "docs/b.md", 3_000)]
    half = DOCUMENT | {"filename": "docs/[red]a.md", "state": "embedding", "chunks": 4, "embedded": 2}
    with watching(files, quiet=False) as watcher:
        for number, file in enumerate(files, start=1):
            watcher.sending(number, file)
            watcher.sent(file.size_bytes)
        watcher.reading(2)
        watcher.seen(half | {"state": "ready", "id": "doc_1"})
        watcher.seen(half)
    shown = terminal.getvalue()
    assert "2 of 2, 4.0 kB" in shown
    assert "1 of 2, docs/[red]a.md, 50%" in shown


def test_an_odd_name_arrives_as_one_name(run: Run, home: Path, tmp_path: Path) -> None:
    odd = tmp_path / 'ü "a"; name="x\\y\r\nz.txt'
    odd.write_text("text")
    answers = {ROOT: listed(BASE), f"{ROOT}/{KB}/documents": (202, DOCUMENT | {"outcome": "added"})}
    with serve_control(home, answers) as control:
        run("kb", "add", KB, str(odd))
    (body,) = sent(control)
    head = body.partition(b"\r\n\r\n")[0].decode()
    assert head.splitlines()[1:] == [
        'Content-Disposition: form-data; name="file"; filename="ü \\"a\\"; name=\\"x\\\\y  z.txt"'
    ]


def test_search_shows_passages_and_where_they_stand(run: Run, home: Path) -> None:
    found = {"object": "list", "results": [RESULT, RESULT], "method": "bm25", "note": "nobody makes vectors"}
    answers = {
        ROOT: listed(BASE),
        f"{ROOT}/{KB}/documents?limit=500": listed(DOCUMENT, BROKEN),
        f"{ROOT}/{KB}/search": (200, found),
    }
    with serve_control(home, answers) as control:
        shown = run("kb", "search", "Timetables", "ferry to Lund", "--limit", "2", "--document", "docs/ferries.pdf")
        as_json = run("kb", "search", KB, "ferry", "--json")
        unknown = run("kb", "search", KB, "ferry", "--document", "none.pdf")
    assert shown.stdout.splitlines()[:3] == [
        "1. docs/ferries.pdf, page 2 > Summer > Lund",
        f"   similarity 0.83, {RESULT['chunk_id']}",
        "   The ferry [2J leaves at 08:15.",
    ]
    assert "nobody makes vectors" in shown.stderr
    bodies = [asked.body for asked in control.asked if asked.path.endswith("/search")]
    assert bodies == [
        {"query": "ferry to Lund", "limit": 2, "documents": [DOCUMENT["id"]]},
        {"query": "ferry", "limit": 5},
    ]
    assert json.loads(as_json.stdout) == found
    assert unknown.exit_code == 66 and "kb show" in str(unknown.error)


def test_nothing_found_is_said(run: Run, home: Path) -> None:
    nothing = {"object": "list", "results": [], "method": "hybrid", "note": ""}
    with serve_control(home, {ROOT: listed(BASE), f"{ROOT}/{KB}/search": (200, nothing)}):
        shown = run("kb", "search", KB, "ferry")
    assert (shown.exit_code, shown.stdout) == (0, "")
    assert "Nothing" in shown.stderr


def test_delete_asks_first(run: Run, home: Path) -> None:
    gone = {"id": KB, "object": "knowledge_base.deleted", "deleted": True}
    with serve_control(home, {ROOT: listed(BASE), f"DELETE {ROOT}/{KB}": (200, gone)}) as control:
        refused = run("kb", "delete", "Timetables", stdin=b"n\n")
        assert [asked.method for asked in control.asked] == ["GET"]
        deleted = run("kb", "delete", "Timetables", stdin=b"y\n")
        as_json = run("kb", "delete", "Timetables", "--yes", "--json")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "with 2 documents" in refused.stderr
    assert deleted.stdout.startswith("deleted the knowledge base Timetables")
    assert json.loads(as_json.stdout) == {"deleted": [gone]}


def test_vectors_are_made_anew(run: Run, home: Path) -> None:
    gone = {"id": KB, "object": "knowledge_base.vectors.deleted", "deleted": True}
    with serve_control(home, {ROOT: listed(BASE), f"DELETE {ROOT}/{KB}/vectors": (200, gone)}):
        told = run("kb", "forget-vectors", "Timetables")
        as_json = run("kb", "forget-vectors", KB, "--json")
    assert told.stdout.startswith("the vectors of Timetables") and told.stdout.endswith("are being made anew\n")
    assert json.loads(as_json.stdout) == gone


def test_delete_a_document_by_its_name_with_the_one_that_is_to_replace_it(run: Run, home: Path) -> None:
    coming = QUEUED | {"id": f"doc_{'d' * 24}"}
    path = f"{ROOT}/{KB}/documents"
    answers = {
        ROOT: listed(BASE),
        f"{path}?limit=500": listed(DOCUMENT, BROKEN, coming),
        **{f"DELETE {path}/{one['id']}": (200, {"deleted": True}) for one in (DOCUMENT, coming)},
    }
    with serve_control(home, answers) as control:
        deleted = run("kb", "delete", KB, "docs/ferries.pdf", "--yes")
    assert deleted.stdout == "deleted docs/ferries.pdf from Timetables\n"
    assert [asked.path for asked in control.asked if asked.method == "DELETE"] == [
        f"{path}/{DOCUMENT['id']}",
        f"{path}/{coming['id']}",
    ]
