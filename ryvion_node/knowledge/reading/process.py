"""Reads a document in a process of its own, which has no network, no files and a limit on everything."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass
from typing import Final

import trio

from ryvion_node.knowledge import constants as limits
from ryvion_node.knowledge.interface import DocumentText
from ryvion_node.knowledge.reading.answer import BadAnswer, unpack
from ryvion_node.knowledge.reading.document import check_size
from ryvion_node.knowledge.reading.errors import UnreadableDocument
from ryvion_node.knowledge.reading.filenames import extension
from ryvion_node.walls.spawning import bury, child_environment, spawn

_TOO_MUCH: Final = "it takes too long to read, or holds too much: split it into several files"


@dataclass(frozen=True, slots=True)
class ReaderLimits:
    """What one document may cost."""

    memory_bytes: int = limits.READER_MEMORY_BYTES
    cpu_s: int = limits.READER_CPU_S
    wall_s: float = limits.READER_WALL_S


async def read_in_process(data: bytes, filename: str, allowed: ReaderLimits | None = None) -> DocumentText:
    """`read_document` behind walls. Raises UnreadableDocument, also when the process dies or takes too long."""
    check_size(data)
    allowed = allowed or ReaderLimits()
    answer, ended = await _ask(data, reader_command(filename, allowed), allowed.wall_s)
    if not answer:
        raise UnreadableDocument(_cause(ended))
    try:
        # A long document has many blocks; the loop goes on meanwhile.
        return await trio.to_thread.run_sync(unpack, answer)
    except BadAnswer as exc:
        raise UnreadableDocument(f"it could not be read ({exc}): save it in another format and add that") from exc


def reader_command(filename: str, allowed: ReaderLimits) -> list[str]:
    """How to run a reader with this interpreter. Others may see arguments, so the name is not among them."""
    figures = (os.getpid(), allowed.memory_bytes, allowed.cpu_s)
    return [
        sys.executable,
        "-m",
        "ryvion_node.knowledge.reading",
        *map(str, figures),
        f"document.{extension(filename)}",
    ]


async def _ask(data: bytes, command: list[str], wall_s: float) -> tuple[bytes, int | None]:
    """The answer, empty if there is none, and how the process ended: None when it was us."""
    try:
        process, stdin, stdout, stderr = spawn(command, child_environment())
    except OSError as exc:
        raise UnreadableDocument(
            f"no process could be started to read it ({exc.strerror}): add it again later"
        ) from exc
    answer: bytes | None = None
    try:
        with trio.move_on_after(wall_s):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_write, stdin, data)
                nursery.start_soon(_drain, stderr)
                answer = await _read(stdout)
                nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            await bury(process, stdin, stdout, stderr, at_once=answer is None, grace_s=limits.READER_GRACE_S)
    return (b"", None) if answer is None else (answer, process.returncode)


async def _write(stdin: trio.lowlevel.FdStream, data: bytes) -> None:
    try:
        await stdin.send_all(data)
        await stdin.aclose()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        # It died; whoever reads its answer says why.
        return


async def _drain(stderr: trio.lowlevel.FdStream) -> None:
    """Libraries complain there, and quote the document: nobody is to see it."""
    while await stderr.receive_some(limits.PIPE_READ_BYTES):
        pass


async def _read(stdout: trio.lowlevel.FdStream) -> bytes | None:
    """Everything until it closes; None when that is too much."""
    parts: list[bytes] = []
    size = 0
    while part := await stdout.receive_some(limits.PIPE_READ_BYTES):
        size += len(part)
        if size > limits.MAX_ANSWER_BYTES:
            return None
        parts.append(bytes(part))
    return b"".join(parts)


def _cause(ended: int | None) -> str:
    if ended is None or ended == -signal.SIGXCPU:
        return _TOO_MUCH
    if ended == -signal.SIGKILL:
        return "the process that read it was killed (out of memory?): add it again, or split it into several files"
    how = signal.Signals(-ended).name if ended < 0 else f"exit status {ended}"
    return f"the process that read it failed ({how}): save it in another format and add that"
