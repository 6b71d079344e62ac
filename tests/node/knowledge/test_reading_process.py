"""The process that reads a document: what it answers, what it cannot do, and how it may end."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from test_reading_pdf import HELLO, one_page

from ryvion_node.knowledge import constants
from ryvion_node.knowledge.interface import DocumentText
from ryvion_node.knowledge.reading import starter
from ryvion_node.knowledge.reading.document import read_document
from ryvion_node.knowledge.reading.errors import UnreadableDocument
from ryvion_node.knowledge.reading.process import ReaderLimits, Readers, open_readers
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


@pytest.fixture
async def read() -> AsyncIterator[Readers]:
    async with open_readers() as readers:
        yield readers


async def test_it_reads_the_same_as_without_a_process(read: Readers) -> None:
    for name, data in FILES.items():
        assert await read(data, f"../{name}") == read_document(data, name)


async def test_every_library_works_behind_the_walls(read: Readers) -> None:
    from fpdf.enums import EncryptionMethod
    from reading_support import docx_file
    from test_reading_docx import report
    from test_reading_pdf import PAGES, pdf

    for data, ending in ((pdf(*PAGES, lock=EncryptionMethod.AES_256), "pdf"), (docx_file(report), "docx")):
        assert await read(data, "a") == await read(data, f"a.{ending}") == read_document(data, "a")


async def refused(read: Readers, data: bytes, name: str = "a.txt", allowed: ReaderLimits | None = None) -> str:
    with pytest.raises(UnreadableDocument) as caught:
        await read(data, name, allowed)
    return str(caught.value)


async def test_its_refusal_comes_back(read: Readers) -> None:
    assert await refused(read, b"") == "it is empty: add one that holds text"
    assert "no text" in await refused(read, bytes(1000))
    assert "probably scanned" in await refused(read, one_page(b"q Q"))


@linux
async def test_too_much_memory_is_an_error_of_the_document(read: Readers) -> None:
    text = "\U0001f309".encode() * 4_000_000
    assert "too much memory" in await refused(read, text, "a.txt", ReaderLimits(memory_bytes=100 << 20))
    assert (await read(b"the next one", "a.txt")).text == "the next one"


@linux
async def test_too_much_time_is_an_error_of_the_document(read: Readers) -> None:
    slow = one_page(b"q " * 3_000_000 + HELLO)
    assert "takes too long" in await refused(read, slow, "a.pdf", ReaderLimits(cpu_s=1))


PROGRAM = """
from ryvion_node.knowledge.reading import __main__ as reader
def taken_over(data, filename):
    import os, resource, signal, sys, threading, time
    {source}
    return b""
reader._answer = taken_over
reader.main()
"""


def program(monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    """What a file does that has taken over the process which reads it."""
    command = [sys.executable, "-c", PROGRAM.format(source=source), str(os.getpid())]
    monkeypatch.setattr(starter, "starter_command", lambda: command)


async def test_a_deadline_holds_whatever_the_process_does(read: Readers, monkeypatch: pytest.MonkeyPatch) -> None:
    program(monkeypatch, "time.sleep(1000)")
    assert "takes too long" in await refused(read, b"x", allowed=ReaderLimits(wall_s=0.3))


@linux
async def test_a_process_that_stops_itself_is_ended_all_the_same(
    read: Readers, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(monkeypatch, "os.kill(0, signal.SIGSTOP)")
    assert "takes too long" in await refused(read, b"x", allowed=ReaderLimits(wall_s=0.3))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("os.kill(os.getpid(), 9)", "was killed (out of memory?)"),
        ("os.abort()", "failed (SIGABRT)"),
        ("os._exit(3)", "failed (exit status 3)"),
        ("raise SystemExit(3)", "failed (exit status 70)"),
        ("return b'nonsense'", "could not be read"),
        ("return b'none' + bytes([27]) + b'[31mred' + b'x' * 10000", "red"),
        ("sys.stderr.write('x' * 1000000); return b'x'", "could not be read"),
        ("while True: os.write(3, b'x' * 100000)", "holds too much"),
    ],
)
async def test_a_process_that_fails_is_an_error_of_the_document(
    read: Readers, monkeypatch: pytest.MonkeyPatch, source: str, said: str
) -> None:
    program(monkeypatch, source)
    monkeypatch.setattr(constants, "MAX_ANSWER_BYTES", 3_000_000)
    message = await refused(read, b"x" * 3_000_000)
    assert said in message
    assert message.isprintable()
    assert len(message) < 400


async def test_without_a_process_there_is_no_document(read: Readers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starter, "starter_command", lambda: ["/nonexistent"])
    assert "no process could be started" in await refused(read, b"x")
    monkeypatch.setattr(starter, "starter_command", lambda: [sys.executable, "-c", "pass"])
    assert "no process could be started" in await refused(read, b"x")


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def below(pid: int) -> int:
    """The first process it starts."""
    while not children(pid):  # noqa: ASYNC110 - the kernel tells nobody
        await trio.sleep(0.01)
    return children(pid)[0]


def is_there(pid: int) -> bool:
    """One that has ended may still be listed for its parent to see."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@linux
async def test_a_waiting_process_that_ended_or_hangs_is_replaced(
    read: Readers, monkeypatch: pytest.MonkeyPatch
) -> None:
    await read(b"one", "a.txt")
    (waiting,) = read.waiting
    os.kill(waiting, signal.SIGKILL)
    assert (await read(b"two", "a.txt")).text == "two"
    (second,) = read.waiting
    os.kill(second, signal.SIGSTOP)
    with monkeypatch.context() as patched:
        patched.setattr(constants, "READER_START_S", 0.2)
        patched.setattr(constants, "READER_GRACE_S", 0.2)
        patched.setattr(starter, "starter_command", lambda: ["/nonexistent"])
        assert "no process could be started" in await refused(read, b"three")
    assert (await read(b"three", "a.txt")).text == "three"
    assert not is_there(waiting) and not is_there(second)
    assert len(read.waiting) == 1


@linux
async def test_what_waits_for_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "READER_IDLE_S", 0.1)
    async with open_readers() as read:
        await read(b"one", "a.txt")
        seen = read.waiting
        with trio.fail_after(5):
            while read.waiting or any(map(is_there, seen)):  # noqa: ASYNC110 - the kernel tells nobody
                await trio.sleep(0.01)
        assert (await read(b"two", "a.txt")).text == "two"
        seen += read.waiting
    assert not any(map(is_there, seen))


@linux
async def test_nothing_is_left_when_it_is_killed_or_cancelled_or_over(
    read: Readers, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(monkeypatch, "time.sleep(1000)")
    seen: set[int] = set()

    async def reading(said: str) -> None:
        assert said in await refused(read, b"x")

    for how in ("the process", "what started it", "cancelled"):
        before = set(children(os.getpid()))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reading, "was killed")
            while not (new := set(children(os.getpid())) - before):  # noqa: ASYNC110 - the kernel tells nobody
                await trio.sleep(0.01)
            (above,) = new
            child = await below(above)
            seen |= {above, child}
            match how:
                case "the process":
                    os.kill(child, signal.SIGKILL)
                case "what started it":
                    os.kill(above, signal.SIGKILL)
                case _:
                    nursery.cancel_scope.cancel()
        if how == "the process":
            assert read.waiting == (above,)
            await read.end()
    with trio.fail_after(5):
        while any(is_there(pid) for pid in seen):  # noqa: ASYNC110 - the kernel tells nobody
            await trio.sleep(0.01)


SPY = """
from ryvion_node.knowledge.reading import __main__ as reader
from ryvion_node.knowledge.reading.errors import UnreadableDocument
import io, os, resource, socket
parent = os.getpid()
earlier = []
def attempt(what):
    try:
        return str(eval(what))[:40]
    except BaseException as exc:
        return type(exc).__name__
def spy(data, filename):
    earlier.append(data)
    raise UnreadableDocument(filename + ": " + ", ".join(attempt(what) for what in data.decode().splitlines()))
reader.read_document = spy
reader.main()
"""


@linux
@walls
async def test_whoever_takes_it_over_is_locked_in(
    read: Readers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    key = tmp_path / "identity.key"
    key.write_text("secret")
    monkeypatch.setenv("SOME_TOKEN", "secret")
    monkeypatch.setattr(starter, "starter_command", lambda: [sys.executable, "-c", SPY, str(os.getpid())])
    attempts = [
        f"open({str(key)!r}).read()",
        "socket.socket()",
        "os.fork()",
        "os.execv('/bin/true', ['true'])",
        f"open('/proc/{os.getpid()}/environ').read()",
        "open(f'/proc/{parent}/environ').read()",
        "open(f'/proc/{parent}/mem', 'rb').read(1)",
        "os.readlink(f'/proc/{parent}/fd/0')",
        "open(f'/proc/{parent}/fd/0')",
        f"open({str(tmp_path / 'new')!r}, 'w')",
        "os.kill(os.getppid(), 0)",
        f"os.kill({os.getpid()}, 0)",
        "resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE)",
    ]
    said = await refused(read, "\n".join(attempts).encode(), "../name of the owner.txt")
    assert said == "document.txt: " + ", ".join(["PermissionError"] * len(attempts))
    # What there was of the document before this one, who gets its signals, and what is open: pipes and /dev/null.
    attempts = [
        "earlier[:-1]",
        "os.environ.get('SOME_TOKEN')",
        "os.getpgid(0) == os.getpid() == os.getsid(0)",
        "[os.readlink(f'/proc/self/fd/{n}')[:5] for n in range(4)]",
        "[n for n in range(4, 64) if os.path.exists(f'/proc/self/fd/{n}')]",
    ]
    said = await refused(read, "\n".join(attempts).encode(), "a")
    assert said == "document.: [b'text', b'text'], None, True, ['pipe:', '/dev/', '/dev/', 'pipe:'], []"


async def test_several_at_once(read: Readers) -> None:
    found: dict[int, DocumentText] = {}

    async def one(number: int) -> None:
        found[number] = await read(f"number {number}".encode(), "a.txt")

    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(one, number)
    assert {number: document.text for number, document in found.items()} == {n: f"number {n}" for n in range(4)}
    assert len(read.waiting) == 2
