"""Another engine's HTTP server as a process, and a client that costs little: the reference of `benchmarks.engine`."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from benchmarks.processes import ServerFailed, free_port, running

JOB_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Settings:
    """What both engines run with."""

    model: Path
    slots: int
    context_tokens: int
    threads: int


def find_server(path: str | None) -> tuple[str, list[str]]:
    """Name and command of the reference: llama-server if there is one, else llama-cpp-python's own server."""
    found = path or shutil.which("llama-server")
    if found:
        return "llama-server", [found]
    return "llama_cpp.server", [sys.executable, "-m", "llama_cpp.server"]


@asynccontextmanager
async def serving(name: str, command: list[str], settings: Settings) -> AsyncIterator[int]:
    """Starts the server and waits until it answers; gives its port."""
    port = free_port()
    async with running([*command, *_arguments(name, settings, port)], port, "/v1/models"):
        yield port


def _arguments(name: str, settings: Settings, port: int) -> list[str]:
    where = ["--host", "127.0.0.1", "--port", str(port)]
    if name == "llama-server":
        total = settings.context_tokens * settings.slots
        size = ["-np", str(settings.slots), "-c", str(total), "-t", str(settings.threads)]
        return ["-m", str(settings.model), *size, *where]
    size = ["--n_ctx", str(settings.context_tokens), "--n_threads", str(settings.threads)]
    # By default a new request cuts off the one that is being answered.
    return ["--model", str(settings.model), *size, "--interrupt_requests", "False", *where]


async def token_times(port: int, prompt: str, max_tokens: int) -> list[float]:
    """Runs one greedy chat job; when each of its tokens came."""
    body: dict[str, Any] = {
        "model": "bench",
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": True,
        # Our side runs without an owner, hence without a prefix cache.
        "cache_prompt": False,
    }
    data = json.dumps(body).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Connection: close\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    times: list[float] = []
    with trio.fail_after(JOB_TIMEOUT_S):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(head.encode() + data)
            buffer = b""
            async for chunk in stream:
                now = trio.current_time()
                *lines, buffer = (buffer + chunk).split(b"\n")
                times += [now for _ in _contents(lines)]
                if any(line.startswith(b"data: [DONE]") for line in lines):
                    break
    if len(times) < max_tokens - 1:
        raise ServerFailed(f"{len(times)} tokens came, {max_tokens} were asked for")
    return times


def _contents(lines: list[bytes]) -> Iterator[str]:
    for line in lines:
        if line.startswith(b"data: {"):
            for choice in json.loads(line.removeprefix(b"data: "))["choices"]:
                if text := choice["delta"].get("content"):
                    yield text
