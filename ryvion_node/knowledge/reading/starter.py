"""Our side of the process that starts one for each document (see `__main__.py`)."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from array import array

import trio

from ryvion_node.knowledge import constants as limits
from ryvion_node.walls.spawning import bury, child_environment


class StarterGone(Exception):
    """It ended, or does not answer."""


class Starter:
    """Starts one process at a time."""

    def __init__(self) -> None:
        """Raises OSError. From the main thread: Linux ties its life to the thread that made it."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = subprocess.Popen(
                    starter_command(),
                    stdin=theirs.fileno(),
                    # Libraries complain there, and quote the document: nobody is to see it.
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=child_environment(),
                    cwd="/",
                    # Ctrl-C in the terminal reaches the node only, which then ends us in good order.
                    start_new_session=True,
                )
            except BaseException:  # whatever it was goes on its way; our end must not stay open
                ours.close()
                raise
        self.pid = self._process.pid
        self._control = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        self._received = b""

    async def start(
        self, filename: str, memory_bytes: int, cpu_s: int
    ) -> tuple[trio.lowlevel.FdStream, trio.lowlevel.FdStream]:
        """Our ends of a new process's stdin and stdout. Raises StarterGone: then nothing was started."""
        stdin, to_child = os.pipe()
        from_child, stdout = os.pipe()
        try:
            line = f"{memory_bytes} {cpu_s} {filename}\n".encode()
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", (stdin, stdout)))
            with trio.move_on_after(limits.READER_START_S):
                await self._control.socket.sendmsg([line], [rights])
                if await self._line() == b"started":
                    return trio.lowlevel.FdStream(to_child), trio.lowlevel.FdStream(from_child)
            raise StarterGone
        except BaseException as exc:
            os.close(to_child)
            os.close(from_child)
            if isinstance(exc, OSError):
                raise StarterGone from exc
            raise
        finally:
            os.close(stdin)
            os.close(stdout)

    async def ended(self) -> int:
        """How the process ended: its exit status, or the negative number of a signal. Raises StarterGone."""
        return int(await self._line())

    async def end(self, *, at_once: bool) -> None:
        """End it, and what it started. Call it shielded."""
        await bury(self._process, self._control, at_once=at_once, grace_s=limits.READER_GRACE_S)

    async def _line(self) -> bytes:
        while b"\n" not in self._received:
            try:
                part = await self._control.receive_some(limits.MAX_READER_LINE_BYTES)
            except trio.BrokenResourceError as exc:
                raise StarterGone from exc
            if not part:
                raise StarterGone
            self._received += part
        line, _, self._received = self._received.partition(b"\n")
        return line


def starter_command() -> list[str]:
    """How to run it with this interpreter."""
    return [sys.executable, "-m", "ryvion_node.knowledge.reading", str(os.getpid())]
