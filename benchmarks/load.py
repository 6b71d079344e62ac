"""Load on an OpenAI-compatible endpoint: one client for all contestants, as light as it can be.

Each of N clients keeps one connection and sends its next request when the last one is answered. What came is checked
byte for byte against what the engine says, after the clock was read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import trio

PROMPT: Final = "Describe a marketplace in which anybody may sell the time of a graphics card, and what could go wrong."
REQUEST_TIMEOUT_S: Final = 120.0
_CONTENT: Final = re.compile(rb'"content": ?"((?:[^"\\]|\\.)+)"')
_END: Final = b"\r\n0\r\n\r\n"
"""Of a chunked body; no JSON has a carriage return in it."""


class LoadFailed(Exception):
    """A contestant answered with something else than the engine's text."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go."""

    url: str
    """Up to /v1."""
    api_key: str
    model: str


@dataclass(frozen=True, slots=True)
class Request:
    """Seconds from sending it to the first text, and to its end."""

    first_s: float
    total_s: float


@dataclass(frozen=True, slots=True)
class Load:
    """What one contestant did with a number of clients."""

    requests: tuple[Request, ...]
    elapsed_s: float

    @property
    def requests_per_s(self) -> float:
        return len(self.requests) / self.elapsed_s

    @property
    def first_ms(self) -> list[float]:
        return [1000 * each.first_s for each in self.requests]


async def put_load(target: Target, clients: int, requests: int, expected: str) -> Load:
    """Let `clients` at once share `requests`; raises LoadFailed unless all get `expected`."""
    done: list[Request] = []
    left = iter(range(requests))
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(clients):
            nursery.start_soon(_one_after_the_other, target, left, expected, done)
    return Load(tuple(done), trio.current_time() - began)


async def _one_after_the_other(target: Target, left: Iterator[int], expected: str, done: list[Request]) -> None:
    client = _Client(target)
    try:
        for _ in left:
            with trio.fail_after(REQUEST_TIMEOUT_S):
                done.append(await client.ask(expected))
    finally:
        await client.close()


class _Client:
    def __init__(self, target: Target) -> None:
        parts = urlsplit(target.url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        body = {"model": target.model, "messages": [{"role": "user", "content": PROMPT}], "stream": True}
        content = json.dumps(body).encode()
        self._message = (
            f"POST {parts.path}/chat/completions HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            f"Authorization: Bearer {target.api_key}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(content)}\r\n\r\n"
        ).encode() + content
        self._stream: trio.SocketStream | None = None

    async def ask(self, expected: str) -> Request:
        began = trio.current_time()
        if self._stream is None:
            self._stream = await trio.open_tcp_stream(self._host, self._port)
        await self._stream.send_all(self._message)
        reply, first_s = bytearray(), 0.0
        while not reply.endswith(_END):
            data = await self._stream.receive_some(65536)
            reply += data
            if not first_s and _CONTENT.search(reply):
                first_s = trio.current_time() - began
            if not data or (not first_s and not reply.startswith(b"HTTP/1.1 200")):
                raise LoadFailed(f"no stream came: {bytes(reply[-1000:]).decode(errors='replace')}")
        total_s = trio.current_time() - began
        _check(reply, expected)
        return Request(first_s, total_s)

    async def close(self) -> None:
        if self._stream is not None:
            await trio.aclose_forcefully(self._stream)


def _check(reply: bytearray, expected: str) -> None:
    said = b"".join(_CONTENT.findall(reply)).decode()
    if said != expected or b"data: [DONE]" not in reply:
        raise LoadFailed(f"the answer is not the engine's: '{said:.200}'")


def all_first_ms(loads: Sequence[Load]) -> list[float]:
    """Of every request."""
    return [each for load in loads for each in load.first_ms]
