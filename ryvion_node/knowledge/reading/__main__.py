"""`python -m ryvion_node.knowledge.reading PARENT`: starts a process for each document, with all it needs loaded.

Only `starter.py` runs it. Its stdin is a socket, on which a line comes for each document (`MEMORY_BYTES CPU_S NAME`)
with two descriptors: where the new process finds the file, and where it writes the text. `started` goes back, and later
how it ended. Anything that comes before that, the socket's end too, ends the new process. This one never sees a
document or its text, so no trace of one can be in what the next process inherits.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import select
import signal
import socket
import sys
from importlib import import_module
from typing import NoReturn

from ryvion_node.knowledge import constants as limits
from ryvion_node.knowledge.reading.answer import pack_document, pack_unreadable
from ryvion_node.knowledge.reading.document import module_for, read_document
from ryvion_node.knowledge.reading.errors import UnreadableDocument
from ryvion_node.walls.isolation import (
    die,
    isolate,
    libraries_only,
    limit_memory,
    limit_processor,
    take_stdout,
)
from ryvion_node.walls.landlock import restrict


def main() -> None:
    """Start processes until the socket ends."""
    isolate(int(sys.argv[1]), walls=False, open_files=limits.READER_OPEN_FILES)
    ruleset = libraries_only()
    control = socket.socket(fileno=0)
    signals, wakeup = socket.socketpair()
    wakeup.setblocking(False)
    signal.set_wakeup_fd(wakeup.fileno())
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    while True:
        line, descriptors, _flags, _address = socket.recv_fds(control, limits.MAX_READER_LINE_BYTES, 2)
        if not line:
            return
        memory_bytes, cpu_s, filename = line.decode().split()
        _load(filename)
        parent = os.getpid()
        child = os.fork()
        if child == 0:
            _read(parent, descriptors, ruleset, int(memory_bytes), int(cpu_s), filename)
        for descriptor in descriptors:
            os.close(descriptor)
        control.sendall(b"started\n")
        ended = os.waitstatus_to_exitcode(_wait(child, control, signals))
        control.sendall(f"{ended}\n".encode())


def _wait(child: int, control: socket.socket, signals: socket.socket) -> int:
    """Its status. A signal is no proof that it ended: it may have stopped itself."""
    while True:
        if control in select.select((control, signals), (), ())[0]:
            os.kill(child, signal.SIGKILL)
            return os.waitpid(child, 0)[1]
        signals.recv(limits.MAX_READER_LINE_BYTES)
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status


@functools.cache
def _load(filename: str) -> None:
    """What reads such files, and what that makes when it is first used."""
    import_module(module_for(filename))
    with contextlib.suppress(UnreadableDocument):
        read_document(b"text", filename)
    # Garbage collection leaves alone what all processes share.
    gc.freeze()


def _read(
    parent: int, descriptors: list[int], ruleset: int | None, memory_bytes: int, cpu_s: int, filename: str
) -> NoReturn:
    """The new process: build the walls first, read after."""
    try:
        # Its signals reach its process group, and it keeps nothing of its parent's open: the socket was descriptor 0.
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
        if ruleset is not None:
            restrict(ruleset)
        os.closerange(3, limits.READER_OPEN_FILES)
        isolate(parent, walls=True, open_files=limits.READER_OPEN_FILES, local_sockets=False)
        out = take_stdout()
        limit_memory(memory_bytes)
        limit_processor(cpu_s)
        answer = _answer(sys.stdin.buffer.read(limits.MAX_FILE_BYTES + 1), filename)
        with os.fdopen(out, "wb") as stdout:
            stdout.write(answer)
            stdout.flush()
            # Nothing is left to put in order, and taking large documents apart takes time.
            os._exit(0)
    except BaseException as exc:  # noqa: BLE001 - it must not go on as its parent
        die(exc)


def _answer(data: bytes, filename: str) -> bytes:
    try:
        return pack_document(read_document(data, filename))
    except UnreadableDocument as exc:
        return pack_unreadable(str(exc))
    except MemoryError:
        return pack_unreadable("it takes too much memory to read: split it into several files")
    except Exception as exc:  # noqa: BLE001 - a damaged file makes a library raise anything
        what = type(exc).__name__
        return pack_unreadable(f"it is damaged ({what}): open it in the program that made it and save it anew")


if __name__ == "__main__":
    main()
