"""The few bytes of HTTP that a server is spoken to with: one connection per request, on trio and h11.

Nothing is read before someone asks for it, so a slow reader slows the server and fills no memory; leaving a request closes
its connection, which is how every server learns that a job is cancelled. Redirects are not followed, proxies of the
environment not used, compression not asked for.
"""

from __future__ import annotations

import json
import math
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Literal

import h11
import trio

from ryvion_node.engine.remote.constants import MAX_HEADERS_BYTES, MAX_JSON_BYTES, MAX_REQUEST_BYTES, READ_BYTES
from ryvion_node.engine.remote.spec import ServerAddress

_LOST: Final = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError)


class ServerLost(Exception):
    """The server cannot be reached, broke off, or does not speak HTTP; the message is for the owner alone."""


class ServerSlow(Exception):
    """The server did not answer within the time it had."""


class ServerRefused(Exception):
    """The server answers with an error, at once or within its stream, where `status` is as an HTTP status would be."""

    def __init__(self, status: int, body: object) -> None:
        super().__init__(f"the server answers with an error (HTTP {status})")
        self.status = status
        self.body = body


class Reply:
    """A reply whose headers have come."""

    def __init__(self, stream: trio.abc.Stream, machine: h11.Connection, head: h11.Response) -> None:
        self.status = head.status_code
        fields = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
        self.media_type = fields.get("content-type", "").partition(";")[0].strip().lower()
        self._encoding = fields.get("content-encoding", "identity").strip().lower()
        self._stream = stream
        self._machine = machine
        self._is_over = False

    async def read(self) -> bytes:
        """What has come of the body, at least a byte but at its end. Raises ServerLost."""
        if self._encoding not in ("", "identity"):
            raise ServerLost(f"it compresses its replies ({self._encoding:.20}) without being asked")
        parts: list[bytes] = []
        while not (parts or self._is_over):
            event: h11.Event | None = await _next_event(self._stream, self._machine)
            while event is not None:
                match event:
                    case h11.Data(data=data):
                        parts.append(bytes(data))
                    case h11.EndOfMessage() | h11.ConnectionClosed():
                        self._is_over = True
                        break
                event = _arrived_event(self._machine)
        return b"".join(parts)

    async def whole(self, limit_bytes: int = MAX_JSON_BYTES) -> bytes:
        """The whole body. Raises ServerLost, also beyond `limit_bytes`."""
        parts = bytearray()
        while data := await self.read():
            parts += data
            if len(parts) > limit_bytes:
                raise ServerLost(f"its reply is longer than {limit_bytes} bytes")
        return bytes(parts)


class HttpServer:
    """One server and the key for it."""

    def __init__(self, address: ServerAddress, key: str, *, connect_s: float, answer_s: float) -> None:
        """`connect_s`: until a connection stands; `answer_s`: for a whole reply to a question."""
        self.address = address
        self._key = key
        self._authorization = [("authorization", f"Bearer {key}")] if key else []
        self._connect_s = connect_s
        self._answer_s = answer_s
        self._tls = ssl.create_default_context() if address.scheme == "https" else None

    def without_key(self, text: str) -> str:
        """A text of the server's for its owner: some repeat the key that they refuse."""
        return text.replace(self._key, "...") if self._key else text

    async def ask(self, method: Literal["GET", "POST"], path: str, body: object = None) -> tuple[int, object]:
        """Status and parsed JSON of a short question; None where the body is no JSON. Raises ServerLost or ServerSlow."""
        try:
            with trio.fail_after(self._connect_s + self._answer_s):
                async with self.send(method, path, body) as reply:
                    return reply.status, parsed(await reply.whole())
        except trio.TooSlowError:
            raise ServerSlow(f"it did not answer {path} within {self._answer_s:g} s") from None

    @asynccontextmanager
    async def send(
        self, method: Literal["GET", "POST"], path: str, body: object = None, *, within_s: float = math.inf
    ) -> AsyncIterator[Reply]:
        """Send a request; yields when its headers have come, `within_s` seconds from now. Raises ServerLost or ServerSlow."""
        content = b"" if body is None else encoded(body)
        stream = await self._connect()
        try:
            machine = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEADERS_BYTES)
            head = h11.Request(method=method, target=self.address.root + path, headers=self._headers(content))
            try:
                with trio.fail_after(within_s):
                    await _send(stream, machine, head, h11.Data(data=content), h11.EndOfMessage())
                    response = await _response(stream, machine)
            except trio.TooSlowError:
                raise ServerSlow(f"it did not begin to answer {path} within {within_s:g} s") from None
            yield Reply(stream, machine, response)
        finally:
            await trio.aclose_forcefully(stream)

    def _headers(self, content: bytes) -> list[tuple[str, str]]:
        return [
            ("host", self.address.authority),
            ("accept-encoding", "identity"),
            ("connection", "close"),
            ("content-type", "application/json"),
            ("content-length", str(len(content))),
            *self._authorization,
        ]

    async def _connect(self) -> trio.abc.Stream:
        try:
            with trio.fail_after(self._connect_s):
                tcp = await trio.open_tcp_stream(self.address.host, self.address.port)
                if self._tls is None:
                    return tcp
                stream = trio.SSLStream(tcp, self._tls, server_hostname=self.address.host, https_compatible=True)
                try:
                    await stream.do_handshake()
                except BaseException:  # whatever it was goes on its way; the socket must not stay open
                    await trio.aclose_forcefully(tcp)
                    raise
                return stream
        except trio.TooSlowError:
            raise ServerSlow(f"no connection to {self.address} within {self._connect_s:g} s") from None
        except _LOST as exc:
            raise ServerLost(f"no connection to {self.address}: {_reason(exc)}") from exc


def encoded(body: object) -> bytes:
    """JSON as it is sent. Raises ServerLost for one that no server takes."""
    # Only texts of the server's own, sent back to it, can hold half of a surrogate pair.
    content = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    if len(content) > MAX_REQUEST_BYTES:
        raise ServerLost(f"the request is longer than {MAX_REQUEST_BYTES} bytes")
    return content


def parsed(data: bytes | str) -> object:
    """JSON with finite numbers only, or None for whatever else came."""
    try:
        value: object = _DECODER.decode(data) if isinstance(data, str) else json.loads(data, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return None
    return value


def _no_number(name: str) -> object:
    raise ValueError(f"{name} is no JSON")


_DECODER: Final = json.JSONDecoder(parse_constant=_no_number)
"""`json.loads` with such a rule would make one for each chunk of a stream."""


async def _send(stream: trio.abc.Stream, machine: h11.Connection, *events: h11.Event) -> None:
    content = b"".join(machine.send(event) or b"" for event in events)
    try:
        await stream.send_all(content)
    except _LOST as exc:
        raise ServerLost(f"the connection broke: {_reason(exc)}") from exc


async def _response(stream: trio.abc.Stream, machine: h11.Connection) -> h11.Response:
    while True:
        match await _next_event(stream, machine):
            case h11.Response() as head:
                return head
            case h11.InformationalResponse():
                continue
            case _:
                raise ServerLost("it closed the connection without a reply")


async def _next_event(stream: trio.abc.Stream, machine: h11.Connection) -> h11.Event:
    try:
        while (event := _arrived_event(machine)) is None:
            machine.receive_data(bytes(await stream.receive_some(READ_BYTES)))
    except _LOST as exc:
        raise ServerLost(f"the connection broke: {_reason(exc)}") from exc
    return event


def _arrived_event(machine: h11.Connection) -> h11.Event | None:
    """The next event of what was received; None when there is no whole one. Raises ServerLost."""
    try:
        event = machine.next_event()
    except h11.RemoteProtocolError as exc:
        raise ServerLost(f"the connection broke: {_reason(exc)}") from exc
    if event is h11.PAUSED:
        raise ServerLost("it switched to another protocol")
    return event if isinstance(event, h11.Event) else None


def _reason(exc: BaseException) -> str:
    cause = exc if exc.__cause__ is None else exc.__cause__
    if isinstance(cause, BaseExceptionGroup):  # an attempt per address of the host
        cause = cause.exceptions[0]
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not valid: {cause.verify_message}"
    return (str(getattr(cause, "strerror", None) or cause) or type(cause).__name__)[:200]
