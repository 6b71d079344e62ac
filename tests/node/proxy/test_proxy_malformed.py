"""Whatever is no HTTP, or HTTP that is not served here, gets the error object with a request id as well."""

from __future__ import annotations

import contextlib
import re

import pytest
import trio
from proxy_harness import Endpoint, Reply, serving

from ryvion_node.market.fake import says
from ryvion_node.proxy import connection
from ryvion_node.proxy.constants import LINGER_BYTES, MAX_HEADER_BYTES

SCRIPTS = {"echo": says("x")}
UPGRADE = {
    "connection": "Upgrade",
    "upgrade": "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@pytest.fixture(autouse=True)
def _short_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "LINGER_S", 0.1)


async def answer_to(endpoint: Endpoint, data: bytes) -> Reply:
    """To bytes as they are; the connection must be closed behind it."""
    client = await endpoint.connect()
    async with client.stream:
        with contextlib.suppress(trio.BrokenResourceError):
            await client.stream.send_all(data)
        reply = await client.reply()
        with pytest.raises(EOFError):
            await client.head()
    return reply


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n folded: x\r\nno colon\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
    ],
)
async def test_what_is_no_http(data: bytes) -> None:
    async with serving(SCRIPTS) as endpoint:
        reply = await answer_to(endpoint, data)
    assert (reply.status, reply.error["code"], reply.error["type"]) == (400, "malformed_http", "invalid_request_error")
    assert re.fullmatch("req_[0-9a-f]{24}", reply.headers["x-request-id"])
    assert reply.complete


@pytest.mark.parametrize("size", [2 * MAX_HEADER_BYTES, LINGER_BYTES // 4])
async def test_headers_that_are_too_large_are_told_even_while_they_come(size: int) -> None:
    async with serving(SCRIPTS) as endpoint:
        reply = await answer_to(endpoint, b"GET / HTTP/1.1\r\nHost: a\r\nCookie: " + b"y" * size + b"\r\n\r\n")
    assert (reply.status, reply.error["code"]) == (431, "headers_too_large")
    assert str(MAX_HEADER_BYTES) in str(reply.error["message"])
    assert "x-request-id" in reply.headers


async def test_a_body_in_broken_chunks() -> None:
    async with serving(SCRIPTS) as endpoint:
        client = await endpoint.connect()
        async with client.stream:
            await client.send(
                "POST",
                "/v1/chat/completions",
                content_type="application/json",
                transfer_encoding="chunked",
                authorization="Bearer sk-buyer",
            )
            await client.stream.send_all(b"zz\r\n")
            reply = await client.reply()
        assert (reply.status, reply.error["code"]) == (400, "malformed_http")
        assert (await endpoint.chat()).status == 200


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [("/v1/responses", 405, "method_not_allowed"), ("/v1/realtime", 404, "unknown_url"), ("/health", 200, "")],
)
async def test_a_wish_for_websockets_is_answered_as_if_it_were_none(path: str, status: int, code: str) -> None:
    async with serving(SCRIPTS) as endpoint:
        reply = await endpoint.ask("GET", path, authorization="Bearer sk-buyer", **UPGRADE)
    assert reply.status == status
    assert not code or reply.error["code"] == code
    assert "x-request-id" in reply.headers


async def test_http_1_0_is_answered_and_closed() -> None:
    async with serving(SCRIPTS) as endpoint:
        reply = await answer_to(endpoint, f"GET /health HTTP/1.0\r\nHost: {endpoint.authority}\r\n\r\n".encode())
    assert (reply.status, reply.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/nowhere", {}, 404),
        ("PUT", "/v1/models", {}, 405),
        ("POST", "/v1/chat/completions", {"content_type": "text/plain", "content_length": "0"}, 415),
        ("POST", "/v1/chat/completions", {"content_type": "application/json", "content_length": "99999999"}, 413),
        ("POST", "/v1/chat/completions", {"content_type": "application/json", "content_length": "0"}, 400),
        ("GET", "/v1/models", {"authorization": None}, 401),
        ("GET", "/v1/models", {"host": "elsewhere"}, 403),
        ("GET", "/health", {}, 200),
    ],
)
async def test_every_answer_has_its_id_and_how_long_it_took(
    method: str, path: str, headers: dict[str, str | None], status: int
) -> None:
    async with serving(SCRIPTS) as endpoint:
        client = await endpoint.connect()
        async with client.stream:
            await client.send(method, path, **({"authorization": "Bearer sk-buyer"} | headers))
            reply = await client.reply()
    assert reply.status == status
    assert status == 200 or reply.error["code"]
    assert re.fullmatch("req_[0-9a-f]{24}", reply.headers["x-request-id"])
    assert int(reply.headers["openai-processing-ms"]) >= 0


@pytest.mark.parametrize("path", ["/nowhere", "/v1/models", "/v1/chat/completions"])
async def test_a_request_that_breaks_off_while_it_is_answered(path: str, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(SCRIPTS) as endpoint:
        for _ in range(5):
            client = await endpoint.connect()
            async with client.stream:
                await client.send("PUT", path, b"{", content_length="10", authorization="Bearer sk-buyer")
                await client.stream.send_eof()
                with contextlib.suppress(EOFError):  # it may be cut: nobody was wronged
                    assert (await client.reply()).status in (400, 404, 405)
    assert "failed" not in caplog.text
