"""Connections to one server: opened when needed, kept for a moment when a whole reply came over them."""

from __future__ import annotations

import ssl
from collections import deque
from dataclasses import dataclass, field
from typing import Final

import h11
import trio

from ryvion_node.engine.remote.constants import KEEP_CONNECTION_S, MAX_HEADERS_BYTES, MAX_KEPT_CONNECTIONS
from ryvion_node.engine.remote.spec import ServerAddress

LOST: Final = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError)


class ServerLost(Exception):
    """The server cannot be reached, broke off, or does not speak HTTP; the message is for the owner alone."""


class ServerSlow(Exception):
    """The server did not answer within the time it had."""


@dataclass(slots=True)
class Connection:
    """A stream, and where HTTP stands on it."""

    stream: trio.abc.Stream
    machine: h11.Connection = field(
        default_factory=lambda: h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEADERS_BYTES)
    )
    kept_at: float = 0.0
    """When its last reply was whole."""


class Connections:
    """Those to one server. What was kept is closed by `close`."""

    def __init__(self, address: ServerAddress, connect_s: float) -> None:
        self._address = address
        self._connect_s = connect_s
        self._tls = ssl.create_default_context() if address.scheme == "https" else None
        self._kept: deque[Connection] = deque()
        self._is_open = False

    def open(self) -> None:
        """From now on connections are kept, until `close`."""
        self._is_open = True

    def close(self) -> None:
        """Close what was kept, and keep no more."""
        self._is_open = False
        while self._kept:
            _close(self._kept.pop())

    def take(self) -> Connection | None:
        """A kept one, if there is any; its server may have closed it meanwhile."""
        self.drop_old()
        return self._kept.pop() if self._kept else None

    def drop_old(self) -> None:
        """Close what was kept for too long."""
        oldest = trio.current_time() - KEEP_CONNECTION_S
        while self._kept and self._kept[0].kept_at < oldest:
            _close(self._kept.popleft())

    def give_back(self, connection: Connection) -> None:
        """Keep a connection that can be used again, close any other."""
        machine = connection.machine
        is_whole = machine.our_state is h11.DONE and machine.their_state is h11.DONE and machine.trailing_data[0] == b""
        if not self._is_open or not is_whole or len(self._kept) >= MAX_KEPT_CONNECTIONS:
            _close(connection)
            return
        machine.start_next_cycle()
        connection.kept_at = trio.current_time()
        self._kept.append(connection)

    async def connect(self) -> Connection:
        """A new one. Raises ServerLost or ServerSlow."""
        try:
            with trio.fail_after(self._connect_s):
                return Connection(await self._stream())
        except trio.TooSlowError:
            raise ServerSlow(f"no connection to {self._address} within {self._connect_s:g} s") from None
        except LOST as exc:
            raise ServerLost(f"no connection to {self._address}: {reason_of(exc)}") from exc

    async def _stream(self) -> trio.abc.Stream:
        tcp = await trio.open_tcp_stream(self._address.host, self._address.port)
        if self._tls is None:
            return tcp
        stream = trio.SSLStream(tcp, self._tls, server_hostname=self._address.host, https_compatible=True)
        try:
            await stream.do_handshake()
        except BaseException:  # whatever it was goes on its way; the socket must not stay open
            await trio.aclose_forcefully(tcp)
            raise
        return stream


def reason_of(exc: BaseException) -> str:
    """Why a connection failed, in few words."""
    cause = exc if exc.__cause__ is None else exc.__cause__
    if isinstance(cause, BaseExceptionGroup):  # an attempt per address of the host
        cause = cause.exceptions[0]
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not valid: {cause.verify_message}"
    return (str(getattr(cause, "strerror", None) or cause) or type(cause).__name__)[:200]


def _close(connection: Connection) -> None:
    """At once, without a word to the server."""
    stream = connection.stream
    tcp = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
    assert isinstance(tcp, trio.SocketStream)
    tcp.socket.close()
