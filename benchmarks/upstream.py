"""An OpenAI-compatible engine that costs next to nothing: every answer is the same text at a steady pace.

    python -m benchmarks.upstream PORT [--answer-tokens 64]

Serves until it is killed. All streams are written at the same ticks, as an engine does that decodes
its jobs in one batch; what a busy machine delays is caught up at the next tick, so that the pace holds on average.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import Any, Final

import h11

MODEL: Final = "bench"
TOKENS_PER_S: Final = 500
FIRST_TOKEN_S: Final = 0.01
_WORDS: Final = " a market where anybody may sell the time of their graphics card to anybody who asks".split()


def answer_text(tokens: int) -> str:
    """What every answer says; a word with the space before it is a token."""
    return "".join(_token(number) for number in range(tokens))


def _token(number: int) -> str:
    return f" {_WORDS[number % len(_WORDS)]}{number}"


class Answer:
    """The bytes of the answer's stream, made once: headers, a part a token, the end."""

    def __init__(self, tokens: int) -> None:
        self.head = (
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
            b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
        ) + _chunk([_choice({"role": "assistant", "content": ""}, None)])
        self._parts = [_chunk([_choice({"content": _token(number)}, None)]) for number in range(tokens)]
        self._ends: dict[int, bytes] = {}

    def part(self, begin: int, end: int) -> bytes:
        """Tokens `begin` to `end`, without the latter."""
        return b"".join(self._parts[begin:end])

    def length(self, max_tokens: int) -> int:
        return min(max_tokens, len(self._parts))

    def end(self, tokens: int) -> bytes:
        """What follows the last of so many tokens."""
        if tokens not in self._ends:
            usage = {"prompt_tokens": 24, "completion_tokens": tokens, "total_tokens": 24 + tokens}
            events = [_choice({}, "stop"), _event([], usage)]
            self._ends[tokens] = _chunk(events) + _framed(b"data: [DONE]\n\n") + b"0\r\n\r\n"
        return self._ends[tokens]


def _choice(delta: dict[str, str], reason: str | None) -> dict[str, Any]:
    return _event([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}])


def _event(choices: list[dict[str, Any]], usage: dict[str, int] | None = None) -> dict[str, Any]:
    head = {"id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": 1, "model": MODEL}
    return {**head, "choices": choices, "usage": usage}


def _chunk(events: list[dict[str, Any]]) -> bytes:
    return _framed(b"".join(b"data: %b\n\n" % json.dumps(event, separators=(",", ":")).encode() for event in events))


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Decoder:
    """Writes every running stream what is due, tick by tick."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self._loop = asyncio.get_running_loop()
        self._running: dict[Connection, _Progress] = {}

    def begin(self, connection: Connection, max_tokens: int) -> None:
        """Answer a connection's request."""
        connection.transport.write(self.answer.head)
        idle = not self._running
        due_s = self._loop.time() + FIRST_TOKEN_S
        self._running[connection] = _Progress(due_s, self.answer.length(max_tokens))
        if idle:
            self._loop.call_at(due_s, self._tick)

    def forget(self, connection: Connection) -> None:
        """The connection is gone."""
        self._running.pop(connection, None)

    def _tick(self) -> None:
        now = self._loop.time()
        for connection, progress in list(self._running.items()):
            due = min(progress.tokens, int((now - progress.first_s) * TOKENS_PER_S) + 1)
            if due <= progress.sent:
                continue
            data = self.answer.part(progress.sent, due)
            progress.sent = due
            if due == progress.tokens:
                data += self.answer.end(due)
                del self._running[connection]
                connection.answered()
            connection.transport.write(data)
        if self._running:
            self._loop.call_at(now + 1 / TOKENS_PER_S, self._tick)


class _Progress:
    def __init__(self, first_s: float, tokens: int) -> None:
        self.first_s = first_s
        self.tokens = tokens
        self.sent = 0


class Connection(asyncio.Protocol):
    """One client's connection, kept alive between its requests."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._http = h11.Connection(h11.SERVER)
        self._request: h11.Request | None = None
        self._body = bytearray()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._decoder.forget(self)

    def data_received(self, data: bytes) -> None:
        self._http.receive_data(data)
        self._read()

    def answered(self) -> None:
        """The answer is written: a next request may come."""
        if self._request is not None and (b"connection", b"close") in self._request.headers:
            self._close_later()
        # What was written went past h11, which knows of a request only.
        trailing, _ = self._http.trailing_data
        self._http = h11.Connection(h11.SERVER)
        if trailing:
            self._http.receive_data(trailing)
            self._read()

    def _close_later(self) -> None:
        asyncio.get_running_loop().call_soon(self.transport.close)

    def _read(self) -> None:
        while True:
            match self._http.next_event():
                case h11.Request() as request:
                    self._request, self._body = request, bytearray()
                case h11.Data(data=data):
                    self._body += data
                case h11.EndOfMessage():
                    self._answer()
                    return
                case h11.ConnectionClosed():
                    self.transport.close()
                    return
                case h11.NEED_DATA | h11.PAUSED:
                    return

    def _answer(self) -> None:
        assert self._request is not None
        if self._request.method == b"POST":
            asked = json.loads(self._body)
            self._decoder.begin(self, asked.get("max_tokens") or asked.get("max_completion_tokens") or 1 << 30)
            return
        listed = {"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "bench"}]}
        content = json.dumps(listed).encode()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        self.transport.write(head % len(content) + content)
        self.answered()


async def serve(port: int, answer_tokens: int) -> None:
    """Serve for ever."""
    decoder = Decoder(Answer(answer_tokens))
    server = await asyncio.get_running_loop().create_server(lambda: Connection(decoder), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int)
    parser.add_argument("--answer-tokens", type=int, default=64)
    options = parser.parse_args()
    asyncio.run(serve(options.port, options.answer_tokens))
