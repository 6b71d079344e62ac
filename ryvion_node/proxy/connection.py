"""One client connection: hypercorn's, made safe for a long-lived node.

hypercorn's own server lets an exception of one connection end the whole program (an HTTP/2 path that is not ASCII is
enough), and waits for ever, shielded from cancellation, for a client that stops reading. Neither may happen here.
HTTP/1.1 only: on a loopback endpoint HTTP/2 brings nothing but its attack surface.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

import h11
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import MAX_RECV, TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ConnectionState
from hypercorn.utils import parse_socket_addr

from ryvion_node.log import log_event
from ryvion_node.proxy.constants import (
    IDLE_CONNECTION_S,
    LINGER_BYTES,
    LINGER_S,
    MAX_CONNECTIONS,
    MAX_HEADER_BYTES,
    SEND_STALL_S,
    SHUTDOWN_SEND_S,
)
from ryvion_node.proxy.errors import ApiError
from ryvion_node.proxy.exchange import new_request_id

log = logging.getLogger("ryvion.proxy.connection")


class Connections:
    """All open connections of one endpoint; at most MAX_CONNECTIONS."""

    def __init__(self, app: AppWrapper) -> None:
        self._app = app
        self._config = _config()
        self._context = WorkerContext(None)
        self._open: set[_Connection] = set()

    async def serve(self, stream: trio.SocketStream) -> None:
        """Serve one connection to its end; never raises but for cancellation."""
        if len(self._open) >= MAX_CONNECTIONS:
            log_event(log, "connection_refused", level=logging.WARNING, limit=MAX_CONNECTIONS)
            return
        connection = _Connection(self._app, self._config, self._context, stream)
        self._open.add(connection)
        try:
            await connection.run()
        except* Exception as group:  # noqa: BLE001 - whatever it was, it ends this connection and no other
            log_event(log, "connection_failed", level=logging.ERROR, error=_innermost(group))
        finally:
            self._open.discard(connection)

    def hurry(self) -> None:
        """The node is stopping: what is being sent gets a moment, and nothing more."""
        for connection in self._open:
            connection.hurry()


class _Connection(TCPServer):
    def __init__(self, app: AppWrapper, config: Config, context: WorkerContext, stream: trio.SocketStream) -> None:
        # Annotated for TLS only; without it hypercorn takes the plain stream.
        super().__init__(app, config, context, ConnectionState({}), cast(Any, stream))
        self._socket = stream.socket
        self._stall_s = SEND_STALL_S
        self._sending: trio.CancelScope | None = None

    async def run(self) -> None:
        """Serve HTTP/1.1 until one side closes; hypercorn's own without TLS and HTTP/2."""
        try:
            client = parse_socket_addr(self._socket.family, self._socket.getpeername())
            server = parse_socket_addr(self._socket.family, self._socket.getsockname())
            async with TaskGroup() as self._task_group:
                protocol = _Http1(
                    self.app,
                    self.config,
                    self.context,
                    self._task_group,
                    ConnectionState({}),
                    False,
                    client,
                    server,
                    self.protocol_send,
                )
                protocol.linger = self.linger
                self.protocol = cast(Any, protocol)
                await self.idle_task.restart(self._task_group, self._idle_timeout)
                await self._read_data()
                await self.idle_task.stop()  # the client is gone: its place is not kept until it had been idle for long
        except OSError:
            pass  # the client is gone
        finally:
            await self._close()

    async def _close(self) -> None:
        # hypercorn's own closes in the middle of another task's write, which then fails as if that task were wrong.
        async with self.send_lock:
            await super()._close()

    async def linger(self) -> None:
        """Drop what still comes, within limits: closing with bytes unread would take the answer back from the client."""
        dropped = 0
        with trio.move_on_after(LINGER_S):
            try:
                while dropped < LINGER_BYTES and (data := await self.stream.receive_some(MAX_RECV)):
                    dropped += len(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return

    def hurry(self) -> None:
        self._stall_s = SHUTDOWN_SEND_S
        if self._sending is not None:
            self._sending.deadline = min(self._sending.deadline, trio.current_time() + SHUTDOWN_SEND_S)

    async def protocol_send(self, event: Event) -> None:
        """Put bytes on the wire; shielded, since half a chunk would break what follows, but never for ever."""
        if not isinstance(event, RawData):
            await super().protocol_send(event)
            return
        sent = False
        async with self.send_lock:
            deadline = trio.current_time() + self._stall_s
            with trio.CancelScope(shield=True, deadline=deadline) as self._sending:
                try:
                    await self.stream.send_all(event.data)
                    sent = True
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    pass
            self._sending = None
        if not sent:
            await trio.aclose_forcefully(self.stream)
            await self.protocol.handle(Closed())


class _Http1(H11Protocol):
    linger: Callable[[], Awaitable[None]]

    async def _check_protocol(self, event: h11.Request) -> None:
        """Ignore a wish for HTTP/2, which every client that has it survives."""

    async def _create_stream(self, request: h11.Request) -> None:
        """Ignore a wish for WebSockets as well: whoever needs them reads in the answer that there are none."""
        if any(name == b"upgrade" for name, _ in request.headers):
            request = h11.Request(
                method=request.method,
                target=request.target,
                headers=[header for header in request.headers if header[0] != b"upgrade"],
                http_version=request.http_version,
            )
        await super()._create_stream(request)

    async def _send_error_response(self, status_code: int) -> None:
        """What cannot be read as HTTP gets the error object too, and its sender the time to read it."""
        code, problem = _UNREADABLE.get(status_code, _UNREADABLE[400])
        error = ApiError(code, problem)
        body = error.body()
        headers = [
            ("content-type", "application/json"),
            ("content-length", str(len(body))),
            ("connection", "close"),
            ("x-request-id", new_request_id()),
        ]
        await self._send_h11_event(h11.Response(status_code=error.status, headers=headers))
        await self._send_h11_event(h11.Data(data=body))
        await self._send_h11_event(h11.EndOfMessage())
        await self.linger()


_UNREADABLE: Final = {
    400: ("malformed_http", "This is no HTTP/1.1 request."),
    431: ("headers_too_large", f"The request line and headers are larger than {MAX_HEADER_BYTES} bytes."),
}


def _config() -> Config:
    config = Config()
    config.accesslog = None
    config.errorlog = None
    config.include_server_header = False
    config.h11_max_incomplete_size = MAX_HEADER_BYTES
    config.keep_alive_timeout = IDLE_CONNECTION_S
    return config


def _innermost(exc: BaseException) -> str:
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    return type(exc).__name__
