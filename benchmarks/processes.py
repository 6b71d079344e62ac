"""Servers of a benchmark as processes of their own, and what they cost."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import trio

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 5.0


class ServerFailed(Exception):
    """Another server did not start, or answered with something else than it should."""


def free_port() -> int:
    """One that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def answers(port: int, path: str) -> bool:
    """Is there a 200 for `path`? Many a server says 503 while it loads."""
    try:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
            return b" 200 " in await stream.receive_some(64)
    except OSError:
        return False


@asynccontextmanager
async def running(
    command: Sequence[str], port: int, path: str, *, env: dict[str, str] | None = None, log: Path | None = None
) -> AsyncIterator[trio.Process]:
    """Start a server and wait until it answers `path` on `port`; stop it at the end."""
    with log.open("wb") if log is not None else contextlib.nullcontext(subprocess.DEVNULL) as output:
        process = await trio.lowlevel.open_process(list(command), stdout=output, stderr=output, env=env)
        try:
            with trio.move_on_after(START_TIMEOUT_S) as starting:
                while not await answers(port, path):
                    if process.poll() is not None:
                        raise ServerFailed(f"{' '.join(command)} ended with status {process.returncode}{_tail(log)}")
                    await trio.sleep(0.1)
            if starting.cancelled_caught:
                raise ServerFailed(f"{' '.join(command)} did not answer within {START_TIMEOUT_S:.0f} s{_tail(log)}")
            yield process
        finally:
            with trio.CancelScope(shield=True):
                process.terminate()
                with trio.move_on_after(STOP_TIMEOUT_S):
                    await process.wait()
                process.kill()
                await process.wait()


def _tail(log: Path | None) -> str:
    return "" if log is None else f"; the end of its log: {log.read_text('utf-8', 'replace')[-2000:]}"


def cpu_s(pid: int) -> float:
    """What a process and its living children have used of the processors."""
    process = psutil.Process(pid)
    total = 0.0
    for each in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = each.cpu_times()
            total += times.user + times.system
    return float(total)
