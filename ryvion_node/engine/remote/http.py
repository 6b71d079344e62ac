"""The few bytes of HTTP that a server is spoken to with, on trio and h11.

Nothing is read before someone asks for it, so a slow reader slows the server and fills no memory; leaving a request before
its reply is whole closes its connection, which is how every server learns that a job is cancelled. Redirects are not followed, proxies of the
environment not used, compression not asked for.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import AsyncIterator, Sequence
from typing import Final, Literal

import h11
import trio

from ryvion_node.engine.remote.connections import LOST, Connection, Connections, ServerLost, ServerSlow, reason_of
from ryvion_node.engine.remote.constants import MAX_JSON_BYTES, MAX_REQUEST_BYTES, READ_BYTES
from ryvion_node.engine.remote.spec import ServerAddress


class ServerRefused(Exception):
    """The server answers with an error, at once or within its stream, where `status` is as an HTTP status would be."""

    def __init__(self, status: int, body: object) -> None:
        super().__init__(f"the server answers with an error (HTTP {status})")
        self.status = status
        self.body = body


class Reply:
    """A reply whose headers have come."""

    def __init__(self, connection: Connection, head: h11.Response) -> None:
        self.status = head.status_code
        fields = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
        self.media_type = fields.get("content-type", "").partition(";")[0].strip().lower()
        self._encoding = fields.get("content-encoding", "identity").strip().lower()
        self._stream = connection.stream
        self._machine = connection.machine
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
        self.connections = Connections(address, connect_s)

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

    @contextlib.asynccontextmanager
    async def send(
        self, method: Literal["GET", "POST"], path: str, body: object = None, *, within_s: float = math.inf
    ) -> AsyncIterator[Reply]:
        """Send a request; yields when its headers have come, `within_s` seconds from now. Raises ServerLost or ServerSlow."""
        content = b"" if body is None else encoded(body)
        head = h11.Request(method=method, target=self.address.root + path, headers=self._headers(content))
        request = (head, h11.Data(data=content), h11.EndOfMessage())
        deadline = trio.current_time() + within_s
        try:
            connection, response = await self._begun(request, deadline)
        except trio.TooSlowError:
            raise ServerSlow(f"it did not begin to answer {path} within {within_s:g} s") from None
        try:
            yield Reply(connection, response)
        finally:
            self.connections.give_back(connection)

    async def _begun(self, request: Sequence[h11.Event], deadline: float) -> tuple[Connection, h11.Response]:
        """The head of the reply, and where its body comes. A kept connection may have been closed by the server: then a
        new one is tried.
        """
        kept = self.connections.take()
        if kept is not None:
            with contextlib.suppress(ServerLost):
                return kept, await self._response_on(kept, request, deadline)
        connection = await self.connections.connect()
        return connection, await self._response_on(connection, request, deadline)

    async def _response_on(self, connection: Connection, request: Sequence[h11.Event], deadline: float) -> h11.Response:
        try:
            with trio.fail_at(deadline):
                await _send(connection, request)
                return await _response(connection)
        except BaseException:  # a cancellation, too, must not leave the connection open
            self.connections.give_back(connection)
            raise

    def _headers(self, content: bytes) -> list[tuple[str, str]]:
        return [
            ("host", self.address.authority),
            ("accept-encoding", "identity"),
            ("content-type", "application/json"),
            ("content-length", str(len(content))),
            *self._authorization,
        ]


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


async def _send(connection: Connection, events: Sequence[h11.Event]) -> None:
    content = b"".join(connection.machine.send(event) or b"" for event in events)
    try:
        await connection.stream.send_all(content)
    except LOST as exc:
        raise ServerLost(f"the connection broke: {reason_of(exc)}") from exc


async def _response(connection: Connection) -> h11.Response:
    while True:
        match await _next_event(connection.stream, connection.machine):
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
    except LOST as exc:
        raise ServerLost(f"the connection broke: {reason_of(exc)}") from exc
    return event


def _arrived_event(machine: h11.Connection) -> h11.Event | None:
    """The next event of what was received; None when there is no whole one. Raises ServerLost."""
    try:
        event = machine.next_event()
    except h11.RemoteProtocolError as exc:
        raise ServerLost(f"the connection broke: {reason_of(exc)}") from exc
    if event is h11.PAUSED:
        raise ServerLost("it switched to another protocol")
    return event if isinstance(event, h11.Event) else None
