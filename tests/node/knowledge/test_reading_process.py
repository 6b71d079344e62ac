"""The process that reads a document: what it answers, what it cannot do, and how it may end."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from test_reading_pdf import HELLO, one_page

from ryvion_node.knowledge.interface import DocumentText
from ryvion_node.knowledge.reading import process
from ryvion_node.knowledge.reading.document import read_document
from ryvion_node.knowledge.reading.errors import UnreadableDocument
from ryvion_node.knowledge.reading.process import ReaderLimits, read_in_process, reader_command
from ryvion_node.walls.landlock import version

linux = pytest.mark.skipif(sys.platform != "linux", reason="the walls are Linux's")
walls = pytest.mark.skipif(version() == 0, reason="this kernel has no Landlock")

FILES = {
    "a.txt": "Größe\n\n- one".encode(),
    "a.md": b"---\nx: y\n---\n# Top\n\nText <b>b</b>.\n\n## Next\n\n<p>html</p>\n",
    "a.html": b"<h1>Top</h1><p>Text<table><tr><td>a<td>b</table>",
    "a.csv": b"a,b\n1,2\n",
    "a.json": b'{"a": [1, 2]}',
    "a.py": b"def f():\n    pass\n",
    "a.latin": "Die Größe der Brücke beträgt übrigens 40 Meter.".encode("cp1252") * 5,
}


@pytest.mark.parametrize("name", FILES)
async def test_it_reads_the_same_as_without_a_process(name: str) -> None:
    assert await read_in_process(FILES[name], f"../{name}") == read_document(FILES[name], name)


async def test_every_library_works_behind_the_walls() -> None:
    from fpdf.enums import EncryptionMethod
    from reading_support import docx_file
    from test_reading_docx import report
    from test_reading_pdf import PAGES, pdf

    for data in (pdf(*PAGES, lock=EncryptionMethod.AES_256), docx_file(report)):
        assert await read_in_process(data, "a") == read_document(data, "a")


async def refused(data: bytes, name: str = "a.txt", allowed: ReaderLimits | None = None) -> str:
    with pytest.raises(UnreadableDocument) as caught:
        await read_in_process(data, name, allowed)
    return str(caught.value)


async def test_its_refusal_comes_back() -> None:
    assert await refused(b"") == "it is empty: add one that holds text"
    assert "no text" in await refused(bytes(1000))
    assert "probably scanned" in await refused(one_page(b"q Q"))


@linux
async def test_too_much_memory_is_an_error_of_the_document() -> None:
    text = "\U0001f309".encode() * 4_000_000
    assert "too much memory" in await refused(text, "a.txt", ReaderLimits(memory_bytes=100 << 20))


@linux
async def test_too_much_time_is_an_error_of_the_document() -> None:
    slow = one_page(b"q " * 3_000_000 + HELLO)
    assert "takes too long" in await refused(slow, "a.pdf", ReaderLimits(cpu_s=1))


async def test_a_deadline_holds_whatever_the_process_does(monkeypatch: pytest.MonkeyPatch) -> None:
    program(monkeypatch, "import time; time.sleep(1000)")
    assert "takes too long" in await refused(b"x", allowed=ReaderLimits(wall_s=0.3))


def program(monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    """Another program in place of the reader."""
    monkeypatch.setattr(process, "reader_command", lambda _name, _allowed: [sys.executable, "-c", source])


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import os; os.kill(os.getpid(), 9)", "was killed (out of memory?)"),
        ("import os; os.abort()", "failed (SIGABRT)"),
        ("raise SystemExit(3)", "failed (exit status 3)"),
        ("print('nonsense')", "could not be read"),
        ("import sys; sys.stdout.write('none' + chr(27) + '[31mred' + 'x' * 10000)", "red"),
        ("import sys; sys.stdin.close(); sys.stderr.write('x' * 1000000); print('x')", "could not be read"),
        ("import sys\nwhile True: sys.stdout.write('x' * 100000)", "holds too much"),
    ],
)
async def test_a_process_that_fails_is_an_error_of_the_document(
    monkeypatch: pytest.MonkeyPatch, source: str, said: str
) -> None:
    program(monkeypatch, source)
    monkeypatch.setattr(process.limits, "MAX_ANSWER_BYTES", 3_000_000)
    message = await refused(b"x" * 3_000_000)
    assert said in message
    assert message.isprintable()
    assert len(message) < 400


async def test_without_a_process_there_is_no_document(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "reader_command", lambda _name, _allowed: ["/nonexistent"])
    assert "no process could be started" in await refused(b"x")


@asynccontextmanager
async def waiting_reader(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> AsyncIterator[tuple[trio.CancelScope, int]]:
    """A reader that never ends, its scope and its pid."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    report = f"pathlib.Path({str(pipe)!r}).write_text(str(os.getpid()))"
    program(monkeypatch, f"import os, pathlib, time; {report}; time.sleep(1000)")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(suppressing, b"x")
        yield nursery.cancel_scope, int(await trio.Path(pipe).read_text())


async def suppressing(data: bytes) -> None:
    with pytest.raises(UnreadableDocument, match="was killed"):
        await read_in_process(data, "a.txt")


@linux
async def test_killed_while_it_reads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async with waiting_reader(monkeypatch, tmp_path) as (_scope, pid):
        os.kill(pid, signal.SIGKILL)


@linux
async def test_cancelling_ends_the_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async with waiting_reader(monkeypatch, tmp_path) as (scope, pid):
        scope.cancel()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


SPY = """
import io, os, resource, socket, sys
from ryvion_node.knowledge.reading import __main__ as reader, document
from ryvion_node.knowledge.reading.errors import UnreadableDocument
def attempt(what):
    try:
        return str(eval(what))[:40]
    except BaseException as exc:
        return type(exc).__name__
def spy(data, filename):
    raise UnreadableDocument(filename + ": " + ", ".join(attempt(what) for what in data.decode().splitlines()))
reader.read_document = spy
sys.argv = sys.argv[:1] + {arguments!r}
reader.main()
"""


@linux
@walls
async def test_whoever_takes_it_over_is_locked_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    key = tmp_path / "identity.key"
    key.write_text("secret")
    monkeypatch.setenv("SOME_TOKEN", "secret")
    arguments = reader_command("../name of the owner.txt", ReaderLimits())[3:]
    assert "name of the owner" not in " ".join(arguments)
    program(monkeypatch, SPY.format(arguments=arguments))
    attempts = [
        f"open({str(key)!r}).read()",
        "socket.socket()",
        "os.fork()",
        "os.execv('/bin/true', ['true'])",
        "os.environ.get('SOME_TOKEN')",
        "open(f'/proc/{os.getppid()}/environ').read()",
        f"open({str(tmp_path / 'new')!r}, 'w')",
        "os.kill(os.getppid(), 0)",
        "resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE)",
    ]
    said = await refused("\n".join(attempts).encode(), "a.txt")
    denied = "PermissionError"
    assert said == f"document.txt: {denied}, {denied}, {denied}, {denied}, None, {denied}, {denied}, {denied}, {denied}"


async def test_several_at_once() -> None:
    found: dict[int, DocumentText] = {}

    async def one(number: int) -> None:
        found[number] = await read_in_process(f"number {number}".encode(), "a.txt")

    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(one, number)
    assert {number: document.text for number, document in found.items()} == {n: f"number {n}" for n in range(4)}
