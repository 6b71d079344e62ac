"""One HTTP request and its answer, over ASGI: bounded body, one start, and the moment the client goes away."""

from __future__ import annotations

import json
import secrets
import time
from typing import Protocol, Self

import trio
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from ryvion_node.proxy.constants import BODY_DEADLINE_S, LINGER_BYTES, LINGER_S
from ryvion_node.proxy.errors import ApiError
from ryvion_node.proxy.errors import Headers as HeaderPairs
from ryvion_node.proxy.policy import require_json

_SCOPE_KEY = "ryvion.exchange"


def new_request_id() -> str:
    """Names a request in its answer and in the log."""
    return f"req_{secrets.token_hex(12)}"


class ClientGone(Exception):
    """The client closed the connection before its request was complete: there is nobody to answer."""


class Recorder(Protocol):
    """Who keeps a copy of an answer."""

    def start(self, status: int, headers: HeaderPairs) -> None:
        """It begins."""
        ...

    def add(self, data: bytes) -> None:
        """A piece of its body."""
        ...

    async def store(self) -> None:
        """It is whole, and its last piece has not been sent."""
        ...


class Exchange:
    """A request under way. `watch` runs beside the handler and cancels it when the client goes away."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        self.method: str = scope["method"]
        self.headers = Headers(scope=scope)
        self.request_id = request_id
        self.started_at = time.perf_counter()
        self.status: int | None = None
        """Of the answer, once it has started."""
        self.gone = False
        """The client went away before the answer was complete."""
        self.failure = ""
        """Code of the error that the client was told; empty: none."""
        self.common_headers: list[tuple[bytes, bytes]] = [(b"x-request-id", request_id.encode())]
        self.recorder: Recorder | None = None
        self._receive = receive
        self._send = send
        self._body_done = trio.Event()
        self._closing = False
        scope[_SCOPE_KEY] = self

    @classmethod
    def of(cls, scope: Scope) -> Self:
        """The exchange that the gateway made for this request."""
        exchange = scope[_SCOPE_KEY]
        assert isinstance(exchange, cls)
        return exchange

    async def body(self, max_bytes: int) -> bytes:
        """The whole JSON body; raises ApiError for another type, size or pace, ClientGone when it breaks off."""
        require_json(self.headers)
        declared = self.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > max_bytes:
            raise _too_large(max_bytes)
        pieces = bytearray()
        with trio.move_on_after(BODY_DEADLINE_S):
            while not self._body_done.is_set():
                pieces += await self._piece()
                if len(pieces) > max_bytes:
                    raise _too_large(max_bytes)
            return bytes(pieces)
        raise ApiError("request_timeout", f"The request body did not arrive within {BODY_DEADLINE_S:.0f} s.")

    async def piece(self) -> bytes | None:
        """The next piece of a body of any type, None after the last; raises ApiError for its pace, ClientGone."""
        if self._body_done.is_set():
            return None
        with trio.move_on_after(BODY_DEADLINE_S):
            return await self._piece()
        raise ApiError("request_timeout", f"Nothing more of the request body came for {BODY_DEADLINE_S:.0f} s.")

    async def watch(self, handling: trio.CancelScope) -> None:
        """Cancel `handling` when the client goes away while it is being answered."""
        await self._body_done.wait()
        message = await self._receive()
        while message["type"] != "http.disconnect":
            message = await self._receive()
        if not self._closing:
            self.gone = True
            handling.cancel()

    def add_headers(self, headers: HeaderPairs) -> None:
        """Put `headers` on the answer, whatever it will be."""
        self.common_headers += [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers]

    async def start(self, status: int, headers: HeaderPairs) -> None:
        """Send status and headers at once."""
        self.status = status
        if self.recorder is not None:
            self.recorder.start(status, headers)
        elapsed_ms = int((time.perf_counter() - self.started_at) * 1000)
        pairs = [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers]
        pairs.append((b"openai-processing-ms", b"%d" % elapsed_ms))
        await self._send({"type": "http.response.start", "status": status, "headers": pairs + self.common_headers})

    async def write(self, data: bytes) -> None:
        """Send one piece of the answer's body; it is on the wire when this returns."""
        if self.recorder is not None:
            self.recorder.add(data)
        await self._send(_body(data, more=True))

    async def finish(self, data: bytes = b"") -> None:
        """Send the last piece; from here on a client that goes away has its whole answer."""
        self._closing = True
        if self.recorder is not None:
            self.recorder.add(data)
            await self.recorder.store()
        if not self._body_done.is_set():
            if data:
                await self._send(_body(data, more=True))
                data = b""
            await self._drain()
        await self._send(_body(data, more=False))

    async def answer(self, status: int, body: bytes, headers: HeaderPairs = ()) -> None:
        """A whole JSON answer."""
        length = ("content-length", str(len(body)))
        await self.start(status, (("content-type", "application/json"), length, *headers))
        await self.finish(body)

    async def answer_json(self, value: object, headers: HeaderPairs = (), *, status: int = 200) -> None:
        """A whole answer."""
        await self.answer(status, json.dumps(value).encode(), headers)

    async def refuse(self, error: ApiError) -> None:
        """End with the error object; nothing can be said once another answer has started."""
        if self.status is None:
            self.failure = error.code
            await self.answer(error.status, error.body(), error.headers)

    async def _piece(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.gone = True
            self._body_done.set()
            raise ClientGone
        if not message.get("more_body", False):
            self._body_done.set()
        body: bytes = message.get("body", b"")
        return body

    async def _drain(self) -> None:
        """Read the rest of a body that nobody wants, within limits, so that the client gets to read its answer."""
        dropped = 0
        with trio.move_on_after(LINGER_S):
            while not self._body_done.is_set() and dropped < LINGER_BYTES:
                try:
                    dropped += len(await self._piece())
                except ClientGone:
                    return


def _body(data: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


def _too_large(max_bytes: int) -> ApiError:
    return ApiError("request_too_large", f"The request body is larger than {max_bytes} bytes.")
