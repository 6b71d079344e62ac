"""Every error is the same object with its status, and says what to do; nothing a client sends does harm."""

from __future__ import annotations

import logging
import re

import pytest
import trio
from hypercorn.protocol.h11 import H11Protocol
from proxy_harness import HELLO, serving

from ryvion_node.market.fake import Hold, Script, says
from ryvion_node.market.interface import MarketError, Piece
from ryvion_node.proxy import connection as connection_module
from ryvion_node.proxy import exchange as exchange_module
from ryvion_node.proxy.errors import STATUS_AND_TYPE, ApiError
from ryvion_node.proxy.settings import Settings

SCRIPTS = {"echo": says("x")}
KEY = {"authorization": "Bearer sk-buyer"}
CHAT = {"model": "echo", "messages": HELLO}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("code", "status", "param"),
    [
        ("model_not_found", 404, "model"),
        ("jurisdiction_not_allowed", 403, "jurisdiction"),
        ("context_length_exceeded", 400, "messages"),
        ("price_limit", 402, None),
        ("no_capacity", 503, None),
        ("node_timeout", 504, None),
        ("node_failed", 502, None),
    ],
)
async def test_what_the_market_refuses(code: str, status: int, param: str | None, stream: bool) -> None:
    refusal = MarketError(code, "the reason")  # type: ignore[arg-type]
    async with serving({"m": Script(before=(refusal,))}) as endpoint:
        reply = await endpoint.chat("m", stream=stream)
    assert reply.status == status
    error = reply.error
    assert (error.pop("message") or "").endswith("the reason")
    assert error == {"type": STATUS_AND_TYPE[code][1], "param": param, "code": code}
    assert ("retry-after" in reply.headers) == (status == 503)
    assert "x-should-retry" not in reply.headers


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("context_length_exceeded", "is longer than the model's context length"),
        ("invalid_api_key", "Incorrect API key provided"),
    ],
)
def test_messages_have_the_words_by_which_litellm_knows_them(code: str, words: str) -> None:
    message = ApiError(code, "the reason", param="messages").at("input").message
    assert message.count(words) == 1
    assert message.endswith(": the reason")


@pytest.mark.parametrize(("wait_ms", "sent"), [(None, ("1000", "1")), (1, ("1", "1")), (90_000, ("60000", "60"))])
async def test_advice_when_to_try_again(wait_ms: int | None, sent: tuple[str, str]) -> None:
    async with serving({"m": Script(before=(MarketError("no_capacity", "busy", wait_ms),))}) as endpoint:
        reply = await endpoint.chat("m")
    assert (reply.headers["retry-after-ms"], reply.headers["retry-after"]) == sent


async def test_a_whole_answer_that_broke_after_text_must_not_be_retried_blindly() -> None:
    async with serving({"m": Script((Piece("a"), MarketError("node_failed", "gone")))}) as endpoint:
        reply = await endpoint.chat("m")
    assert (reply.status, reply.error["code"]) == (502, "node_failed")
    assert reply.headers["x-should-retry"] == "false"
    assert reply.headers["x-ryvion-job-id"] == f"{1:064x}"


async def test_a_whole_answer_whose_events_stop_is_a_failure() -> None:
    async with serving({"m": Script((Piece("a"),), ends=False)}) as endpoint:
        assert (await endpoint.chat("m")).error["code"] == "node_failed"


async def test_an_unknown_model_names_what_is_on_offer() -> None:
    async with serving(SCRIPTS) as endpoint:
        bought = await endpoint.chat("other")
        looked_up = await endpoint.ask("GET", "/v1/models/some/other", **KEY)
    for reply in (bought, looked_up):
        assert (reply.status, reply.error["code"], reply.error["param"]) == (404, "model_not_found", "model")
        assert "echo" in (reply.error["message"] or "")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "unknown_url"),
        ("GET", "/v1", 404, "unknown_url"),
        ("GET", "/v1/models/", 404, "model_not_found"),
        ("GET", "/health/", 404, "unknown_url"),
        ("POST", "/v1/audio/speech", 404, "unknown_url"),
        ("GET", "/%ff%00/..//", 404, "unknown_url"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("DELETE", "/v1/models/echo", 405, "method_not_allowed"),
        ("OPTIONS", "/v1/models", 405, "method_not_allowed"),
        ("BREW", "/health", 405, "method_not_allowed"),
    ],
)
async def test_wrong_places_and_methods(method: str, path: str, status: int, code: str) -> None:
    async with serving(SCRIPTS) as endpoint:
        reply = await endpoint.ask(method, path, **KEY)
    assert (reply.status, reply.error["code"]) == (status, code)
    assert ("allow" in reply.headers) == (status == 405)
    assert re.fullmatch("req_[0-9a-f]{24}", reply.headers["x-request-id"])


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"{", "invalid_json", None),
        (b"", "invalid_json", None),
        ({"model": "echo"}, "missing_required_parameter", "messages"),
        (CHAT | {"best_of": 2}, "unsupported_parameter", "best_of"),
        (CHAT | {"temperature": "hot"}, "invalid_type", "temperature"),
        (CHAT | {"jurisdiction": "Atlantis"}, "invalid_value", "jurisdiction"),
    ],
)
async def test_wrong_bodies(body: object, code: str, param: str | None) -> None:
    async with serving(SCRIPTS) as endpoint:
        reply = await endpoint.ask("POST", "/v1/chat/completions", body, **KEY)
    assert (reply.status, reply.error["code"], reply.error["param"]) == (400, code, param)


async def test_a_bug_in_a_handler_is_a_500_and_the_log_keeps_the_prompt_out(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    bug = Script((ValueError("my secret prompt"),))
    async with serving({"bug": bug, "early": Script(before=(ValueError("my secret prompt"),)), **SCRIPTS}) as endpoint:
        for model in ("bug", "early"):
            reply = await endpoint.chat(model)
            assert (reply.status, reply.error["code"]) == (500, "internal_error")
            assert reply.headers["x-request-id"] in (reply.error["message"] or "")
            assert reply.headers["x-request-id"] in caplog.text
        assert (await endpoint.chat()).status == 200
    assert "ValueError" in caplog.text
    assert "secret" not in caplog.text
    assert "sk-buyer" not in caplog.text


# --- limits -----------------------------------------------------------------------------------------------

SMALL = Settings(port=0, max_body_bytes=1000)


async def test_a_declared_body_that_is_too_large_is_refused_and_the_connection_stays_usable() -> None:
    async with serving(SCRIPTS, SMALL) as endpoint:
        client = await endpoint.connect()
        async with client.stream:
            await client.send("POST", "/v1/chat/completions", CHAT | {"user": "x" * 2_000_000}, **KEY)
            reply = await client.reply()
            assert (reply.status, reply.error["code"]) == (413, "request_too_large")
            await client.chat("echo")
            assert (await client.reply()).status == 200


async def test_a_chunked_body_is_refused_as_soon_as_it_is_too_large() -> None:
    async with serving(SCRIPTS, SMALL) as endpoint:
        client = await endpoint.connect()
        async with client.stream:
            await client.send(
                "POST", "/v1/chat/completions", content_type="application/json", transfer_encoding="chunked", **KEY
            )
            for _ in range(40):
                await client.stream.send_all(b"64\r\n" + b"x" * 100 + b"\r\n")
            reply = await client.reply()  # the body never ends
            assert (reply.status, reply.error["code"]) == (413, "request_too_large")


async def test_a_chunked_body_within_the_limit_is_read() -> None:
    async with serving(SCRIPTS) as endpoint:
        client = await endpoint.connect()
        async with client.stream:
            await client.send(
                "POST", "/v1/chat/completions", content_type="application/json", transfer_encoding="chunked", **KEY
            )
            for byte in b'{"model":"echo","messages":[{"role":"user","content":"hi"}]}':
                await client.stream.send_all(b"1\r\n%c\r\n" % byte)
            await client.stream.send_all(b"0\r\n\r\n")
            assert (await client.reply()).status == 200


async def test_a_body_that_does_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange_module, "BODY_DEADLINE_S", 0.05)
    monkeypatch.setattr(exchange_module, "LINGER_S", 0.05)
    async with serving(SCRIPTS) as endpoint:
        reply = await endpoint.ask("POST", "/v1/chat/completions", b"{", content_length="10", **KEY)
    assert (reply.status, reply.error["code"]) == (408, "request_timeout")


async def test_refusing_a_large_unread_body_does_not_reset_the_client() -> None:
    async with serving(SCRIPTS) as endpoint:
        reply = await endpoint.ask("POST", "/v1/chat/completions", b"x" * 3_000_000, authorization="Bearer wrong")
    assert (reply.status, reply.complete) == (401, True)


async def test_a_client_that_goes_in_the_middle_of_its_body_leaves_nothing_behind() -> None:
    async with serving(SCRIPTS) as endpoint:
        client = await endpoint.connect()
        await client.send("POST", "/v1/chat/completions", b"{", content_length="10", **KEY)
        await client.stream.aclose()
        assert (await endpoint.chat()).status == 200


async def test_more_than_the_cap_are_told_to_try_later() -> None:
    hold = trio.Event()
    async with serving({"slow": Script((Hold(hold),)), **SCRIPTS}, Settings(port=0, max_in_flight=2)) as endpoint:
        clients = [await endpoint.connect() for _ in range(2)]
        for client in clients:
            await client.chat("slow", stream=True)
            await client.head()
        reply = await endpoint.chat()
        assert (reply.status, reply.error["code"]) == (429, "rate_limit_exceeded")
        assert reply.headers["retry-after"] == "1"
        hold.set()
        for client in clients:
            while await client.chunk():
                pass
            await client.stream.aclose()
        assert (await endpoint.chat()).status == 200


async def test_too_many_connections_are_closed_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "MAX_CONNECTIONS", 2)
    async with serving(SCRIPTS) as endpoint:
        clients = [await endpoint.connect() for _ in range(2)]
        for client in clients:
            await client.send("GET", "/health")
            assert (await client.reply()).status == 200
        third = await endpoint.connect()
        assert await third.stream.receive_some() == b""
        for client in [*clients, third]:
            await client.stream.aclose()


async def test_clients_that_went_leave_no_connection_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "MAX_CONNECTIONS", 2)
    async with serving(SCRIPTS) as endpoint:
        for _ in range(3):
            client = await endpoint.connect()
            async with client.stream:
                await client.send("GET", "/health")
                assert (await client.reply()).status == 200
                await trio.testing.wait_all_tasks_blocked()


async def test_the_log_has_no_path_no_query_and_no_key(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with serving(SCRIPTS) as endpoint:
        await endpoint.ask("GET", "/sk-private?sk-private", authorization="Bearer sk-private")
        await endpoint.chat(messages=[{"role": "user", "content": "sk-private"}])
    assert "status=404" in caplog.text
    assert "name=ChatCompletions" in caplog.text
    assert "sk-" not in caplog.text


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\0" * 100,
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 50,
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: !!!\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    ],
)
async def test_no_bytes_end_the_endpoint(garbage: bytes) -> None:
    async with serving(SCRIPTS) as endpoint:
        client = await endpoint.connect()
        async with client.stream:
            try:
                await client.stream.send_all(garbage)
                await client.stream.send_eof()
                with trio.move_on_after(2):
                    while await client.stream.receive_some():
                        pass
            except trio.BrokenResourceError:
                pass
        assert (await endpoint.chat()).status == 200


async def test_a_wish_for_http_2_is_answered_in_http_1() -> None:
    wish = {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "http2-settings": "AAMAAABkAAQAAP__"}
    async with serving(SCRIPTS) as endpoint:
        assert (await endpoint.ask("GET", "/health", **wish)).json() == {"status": "ok"}
        assert (await endpoint.ask("POST", "/v1/chat/completions", CHAT, **KEY, **wish)).status == 200


async def test_an_exception_in_the_server_ends_one_connection_and_no_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(SCRIPTS) as endpoint:
        with monkeypatch.context() as patch:
            patch.setattr(H11Protocol, "handle", _fails)
            client = await endpoint.connect()
            await client.send("GET", "/health")
            assert await client.stream.receive_some() == b""
            await client.stream.aclose()
        assert (await endpoint.chat()).status == 200
    assert "connection_failed error=ZeroDivisionError" in caplog.text
    assert "secret" not in caplog.text


async def _fails(self: H11Protocol, event: object) -> None:
    raise ZeroDivisionError("secret")


@pytest.mark.parametrize("code", sorted(STATUS_AND_TYPE))
def test_every_code_makes_a_whole_error_object(code: str) -> None:
    error = ApiError(code, "why")
    assert 400 <= error.status < 600
    assert b'"param": null' in error.body()
    assert (("retry-after", "1") in error.headers) == (error.status in (429, 503))
