"""Reads a document in a process of its own, which has no network, no files and a limit on everything."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import trio

from ryvion_node.knowledge import constants as limits
from ryvion_node.knowledge.interface import DocumentText
from ryvion_node.knowledge.reading.answer import BadAnswer, unpack
from ryvion_node.knowledge.reading.document import check_size
from ryvion_node.knowledge.reading.errors import UnreadableDocument
from ryvion_node.knowledge.reading.filenames import extension
from ryvion_node.knowledge.reading.starter import Starter, StarterGone

_TOO_MUCH: Final = "it takes too long to read, or holds too much: split it into several files"
_NOT_STARTED: Final = "no process could be started to read it ({}): add it again later"


@dataclass(frozen=True, slots=True)
class ReaderLimits:
    """What one document may cost."""

    memory_bytes: int = limits.READER_MEMORY_BYTES
    cpu_s: int = limits.READER_CPU_S
    wall_s: float = limits.READER_WALL_S


@contextlib.asynccontextmanager
async def open_readers() -> AsyncIterator[Readers]:
    """Processes that read documents, as many as are asked for at once; leaving ends them all."""
    readers = Readers()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(readers.run)
            yield readers
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            await readers.end()


class Readers:
    """Starts a process for each document, quickly while there is one document after the other."""

    def __init__(self) -> None:
        self._idle: list[Starter] = []
        self._begun = 0

    async def run(self) -> None:
        """End those that wait for work when none has come for a while."""
        while True:
            begun = self._begun
            await trio.sleep(limits.READER_IDLE_S)
            if begun == self._begun:
                with trio.CancelScope(shield=True):
                    await self.end()

    async def __call__(self, data: bytes, filename: str, allowed: ReaderLimits | None = None) -> DocumentText:
        """`read_document` behind walls. Raises UnreadableDocument, also when the process dies or takes too long."""
        check_size(data)
        answer, ended = await self._ask(data, filename, allowed or ReaderLimits())
        if not answer:
            raise UnreadableDocument(_cause(ended))
        try:
            # A long document has many blocks; the loop goes on meanwhile.
            return await trio.to_thread.run_sync(unpack, answer)
        except BadAnswer as exc:
            raise UnreadableDocument(f"it could not be read ({exc}): save it in another format and add that") from exc

    @property
    def waiting(self) -> tuple[int, ...]:
        """The processes that wait for work."""
        return tuple(starter.pid for starter in self._idle)

    async def end(self) -> None:
        """End those that wait for work. Call it shielded."""
        while self._idle:
            await self._idle.pop().end(at_once=False)

    async def _ask(self, data: bytes, filename: str, allowed: ReaderLimits) -> tuple[bytes, int | None]:
        """The answer, empty if there is none, and how the process ended: None when it was us."""
        starter, stdin, stdout = await self._start(filename, allowed)
        answer: bytes | None = None
        ended: int | None = None
        is_whole = False
        try:
            with trio.move_on_after(allowed.wall_s):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_write, stdin, data)
                    answer = await _read(stdout)
                    nursery.cancel_scope.cancel()
            if answer is not None:
                with trio.move_on_after(limits.READER_GRACE_S):
                    ended = await starter.ended()
                    is_whole = True
        except StarterGone:
            ended = -signal.SIGKILL
        finally:
            with trio.CancelScope(shield=True):
                await stdin.aclose()
                await stdout.aclose()
                if is_whole and len(self._idle) < limits.IDLE_READERS:
                    self._idle.append(starter)
                else:
                    await starter.end(at_once=False)
        return answer or b"", ended

    async def _start(
        self, filename: str, allowed: ReaderLimits
    ) -> tuple[Starter, trio.lowlevel.FdStream, trio.lowlevel.FdStream]:
        """A process for one document. One that waited for work may have ended meanwhile; then another is taken."""
        # The name is the owner's; what it ends in is all that a reader needs.
        self._begun += 1
        label = f"document.{extension(filename)}"
        while True:
            is_new = not self._idle
            try:
                starter = self._idle.pop() if self._idle else Starter()
            except OSError as exc:
                raise UnreadableDocument(_NOT_STARTED.format(exc.strerror)) from exc
            is_started = False
            try:
                pipes = await starter.start(label, allowed.memory_bytes, allowed.cpu_s)
                is_started = True
                return starter, *pipes
            except StarterGone as exc:
                if is_new:
                    raise UnreadableDocument(_NOT_STARTED.format("it ended at once, or did not answer")) from exc
            finally:
                if not is_started:
                    with trio.CancelScope(shield=True):
                        await starter.end(at_once=True)


async def _write(stdin: trio.lowlevel.FdStream, data: bytes) -> None:
    try:
        await stdin.send_all(data)
        await stdin.aclose()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        # It died; whoever reads its answer says why.
        return


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
