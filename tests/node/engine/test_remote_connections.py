"""Connections to another engine: used again after a whole reply, and never relied on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import h11
import pytest
import trio

from ryvion_node.engine.remote import connections
from ryvion_node.engine.remote.connections import ServerLost
from ryvion_node.engine.remote.http import HttpServer
from ryvion_node.engine.remote.spec import parse_url

REPLY = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


@dataclass(slots=True)
class Host:
    """Answers each request; hangs up after `replies` of a connection."""

    replies: int = 1000
    reply: bytes = REPLY
    served: list[int] = field(default_factory=list)
    """Requests by connection."""
    open: int = 0

    async def handle(self, stream: trio.SocketStream) -> None:
        number, machine = len(self.served), h11.Connection(h11.SERVER)
        self.served.append(0)
        self.open += 1
        try:
            while self.served[number] < self.replies:
                while not isinstance(event := machine.next_event(), h11.EndOfMessage):
                    if isinstance(event, h11.ConnectionClosed):
                        return
                    if event is h11.NEED_DATA:
                        machine.receive_data(await stream.receive_some(4096))
                self.served[number] += 1
                await stream.send_all(self.reply)
                machine = h11.Connection(h11.SERVER)
        except trio.BrokenResourceError:
            return
        finally:
            self.open -= 1


@asynccontextmanager
async def client(host: Host, *, keeps: bool = True) -> AsyncIterator[HttpServer]:
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, host.handle, 0)
        port = listeners[0].socket.getsockname()[1]
        server = HttpServer(parse_url(f"http://127.0.0.1:{port}"), "", connect_s=5, answer_s=5)
        if keeps:
            server.connections.open()
        try:
            yield server
        finally:
            server.connections.close()
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("keeps", "served"), [(True, [3]), (False, [1, 1, 1])])
async def test_a_connection_serves_one_request_after_the_other(keeps: bool, served: list[int]) -> None:
    host = Host()
    async with client(host, keeps=keeps) as server:
        for _ in range(3):
            assert await server.ask("POST", "/v1/models", {}) == (200, {})
    assert host.served == served


async def test_requests_at_once_have_a_connection_each() -> None:
    host = Host()
    async with client(host) as server, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(server.ask, "GET", "/v1/models")
    assert host.served == [1, 1, 1]


async def test_a_kept_connection_that_the_server_closed_is_replaced() -> None:
    host = Host(replies=1)
    async with client(host) as server:
        for _ in range(3):
            assert await server.ask("GET", "/v1/models") == (200, {})
    assert host.served == [1, 1, 1]


async def test_a_new_connection_that_breaks_is_an_error() -> None:
    host = Host(replies=0)
    async with client(host) as server:
        with pytest.raises(ServerLost):
            await server.ask("GET", "/v1/models")
    assert host.served == [0]


async def test_a_reply_that_was_left_ends_its_connection() -> None:
    host = Host()
    async with client(host) as server:
        async with server.send("GET", "/v1/models"):
            pass
        assert await server.ask("GET", "/v1/models") == (200, {})
    assert host.served == [1, 1]


async def test_a_server_that_wants_its_connection_closed_has_it_closed() -> None:
    host = Host(reply=REPLY.replace(b"content-type", b"connection: close\r\ncontent-type"))
    async with client(host) as server:
        for _ in range(2):
            await server.ask("GET", "/v1/models")
    assert host.served == [1, 1]


async def test_what_was_kept_too_long_or_beyond_the_end_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host()
    async with client(host) as server:
        monkeypatch.setattr(connections, "KEEP_CONNECTION_S", 0.0)
        await server.ask("GET", "/v1/models")
        await server.ask("GET", "/v1/models")
        assert host.served == [1, 1]
        server.connections.close()
        with trio.fail_after(5):
            while host.open:
                await trio.lowlevel.checkpoint()
