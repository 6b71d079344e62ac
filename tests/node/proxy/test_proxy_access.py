"""Who is answered: keys and scopes, Host and Origin, content types, and what a configured web page may do."""

from __future__ import annotations

import pytest
from proxy_harness import HELLO, serving

from ryvion_node.market.fake import FakeMarket, Script, says
from ryvion_node.market.interface import MarketError
from ryvion_node.proxy.settings import Settings

SCRIPTS = {"echo": says("x")}
CHAT = {"model": "echo", "messages": HELLO}
PAGE = "http://localhost:3000"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"authorization": "Bearer sk-buyer"}, 200),
        ({"authorization": "bearer sk-buyer"}, 200),
        ({"authorization": "BEARER   sk-buyer "}, 200),
        ({"x-api-key": "sk-buyer"}, 200),
        ({"authorization": "Bearer wrong", "x-api-key": "sk-buyer"}, 200),
        ({"authorization": "Bearer sk-buyer", "x-api-key": "wrong"}, 200),
        ({}, 401),
        ({"authorization": "Bearer wrong"}, 401),
        ({"authorization": "Bearer "}, 401),
        ({"authorization": "Bearer"}, 401),
        ({"authorization": "Basic sk-buyer"}, 401),
        ({"authorization": "sk-buyer"}, 401),
        ({"x-api-key": ""}, 401),
        ({"authorization": "Bearer wrong", "x-api-key": "wrong"}, 401),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_keys(headers: dict[str, str], status: int, stream: bool) -> None:
    async with serving(SCRIPTS) as endpoint:
        reply = await endpoint.ask("POST", "/v1/chat/completions", CHAT | {"stream": stream}, **headers)
        assert reply.status == status
        if status == 401:
            assert reply.error["code"] == "invalid_api_key"
            assert reply.headers["content-type"] == "application/json"
            assert reply.headers["www-authenticate"].startswith("Bearer")
            assert not endpoint.market.orders


@pytest.mark.parametrize(
    ("scope", "may_list", "may_buy", "may_read"),
    [
        ("buyer", True, True, True),
        ("reader", True, False, True),
        ("writer", True, True, False),
        ("operator", True, True, True),
        ("odd", False, False, False),
    ],
)
async def test_scopes(scope: str, may_list: bool, may_buy: bool, may_read: bool) -> None:
    async with serving(SCRIPTS) as endpoint:
        key = {"authorization": f"Bearer sk-{scope}"}
        listing = await endpoint.ask("GET", "/v1/models", **key)
        bought = await endpoint.ask("POST", "/v1/chat/completions", CHAT, **key)
        read = await endpoint.ask("GET", "/api/v1/receipts?completion_id=chatcmpl-1", **key)
    statuses = (listing.status, bought.status, read.status)
    assert statuses == tuple(200 if allowed else 403 for allowed in (may_list, may_buy, may_read))
    assert all(reply.error["code"] == "insufficient_scope" for reply in (listing, bought, read) if reply.status == 403)


async def test_a_key_bound_to_a_place() -> None:
    async with serving(SCRIPTS) as endpoint:
        assert (await endpoint.chat(token="sk-canada")).status == 200
        refused = await endpoint.chat(token="sk-canada", jurisdiction="DE")
        assert (refused.status, refused.error["code"]) == (403, "jurisdiction_not_allowed")
        assert [order.jurisdictions for order in endpoint.market.orders] == [("CA", "US")]


async def test_health_needs_no_key() -> None:
    async with serving(SCRIPTS) as endpoint:
        reply = await endpoint.ask("GET", "/health")
        assert (reply.status, reply.json()) == (200, {"status": "ok"})
        head = await endpoint.connect()
        async with head.stream:
            await head.send("HEAD", "/health")
            assert (await head.head()).status == 200


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("127.0.0.1:{port}", True),
        ("localhost:{port}", True),
        ("LOCALHOST:{port}", True),
        ("[::1]:{port}", True),
        ("", False),
        ("localhost", False),
        ("127.0.0.1:1", False),
        ("evil.example:{port}", False),
        ("me.local:{port}", False),
        ("localhost.:{port}", False),
        ("127.0.0.1.nip.io:{port}", False),
        ("127.1:{port}", False),
        ("2130706433:{port}", False),
        ("[::ffff:127.0.0.1]:{port}", False),
        ("user@localhost:{port}", False),
        ("localhost:{port},evil.example", False),
        (":{port}", False),
        ("*", False),
        ("localhost.evil.example:{port}", False),
        ("localhost:{port}.evil.example", False),
        ("0.0.0.0:{port}", False),
    ],
)
async def test_hosts(host: str, allowed: bool) -> None:
    async with serving(SCRIPTS) as endpoint:
        for path in ("/health", "/nope"):
            reply = await endpoint.ask("GET", path, host=host.format(port=endpoint.port))
            if allowed:
                assert reply.status in (200, 404)
            else:
                assert (reply.status, reply.error["code"]) == (403, "host_not_allowed")


async def test_a_request_without_a_host_or_with_two_is_refused() -> None:
    async with serving(SCRIPTS) as endpoint:
        old = await endpoint.connect()
        async with old.stream:
            await old.stream.send_all(b"GET /health HTTP/1.0\r\n\r\n")
            assert (await old.head()).status == 403
        both = await endpoint.connect()
        async with both.stream:
            host = endpoint.authority
            await both.stream.send_all(f"GET /health HTTP/1.1\r\nhost: {host}\r\nhost: evil.example\r\n\r\n".encode())
            assert (await both.head()).status in (400, 403)


async def test_a_rebound_name_gets_no_preflight_either() -> None:
    async with serving(SCRIPTS, Settings(port=0, allowed_origins=(PAGE,))) as endpoint:
        reply = await endpoint.ask(
            "OPTIONS",
            "/v1/chat/completions",
            host=f"evil.example:{endpoint.port}",
            origin=PAGE,
            access_control_request_method="POST",
        )
    assert (reply.status, reply.error["code"]) == (403, "host_not_allowed")
    assert "access-control-allow-headers" not in reply.headers


async def test_one_allowed_origin_does_not_let_another_in_beside_it() -> None:
    async with serving(SCRIPTS, Settings(port=0, allowed_origins=(PAGE,))) as endpoint:
        for first, second in ((PAGE, "https://evil.example"), ("https://evil.example", PAGE)):
            reply = await endpoint.ask("GET", "/health", origin=f"{first}\r\norigin: {second}")
            assert (reply.status, reply.error["code"]) == (403, "origin_not_allowed")


async def test_another_host_can_be_allowed() -> None:
    async with serving(SCRIPTS, Settings(port=0, allowed_hosts=("node.lan",))) as endpoint:
        assert (await endpoint.ask("GET", "/health", host=f"node.lan:{endpoint.port}")).status == 200
        assert (await endpoint.ask("GET", "/health")).status == 403


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost:3001", "http://localhost:3000.evil.example"]
)
async def test_other_origins_are_refused_and_get_no_cors_header(origin: str) -> None:
    async with serving(SCRIPTS, Settings(port=0, allowed_origins=(PAGE,))) as endpoint:
        reply = await endpoint.ask("POST", "/v1/chat/completions", CHAT, origin=origin, authorization="Bearer sk-buyer")
        preflight = await endpoint.ask(
            "OPTIONS", "/v1/chat/completions", origin=origin, access_control_request_method="POST"
        )
    for refused in (reply, preflight):
        assert (refused.status, refused.error["code"]) == (403, "origin_not_allowed")
        assert not [name for name in refused.headers if name.startswith("access-control")]


async def test_preflight_comes_before_the_key_and_echoes_what_is_asked() -> None:
    async with serving(SCRIPTS, Settings(port=0, allowed_origins=(PAGE,))) as endpoint:
        asked = "authorization, content-type, x-stainless-brand-new"
        client = await endpoint.connect()
        async with client.stream:
            await client.send(
                "OPTIONS",
                "/v1/chat/completions",
                origin=PAGE,
                access_control_request_method="POST",
                access_control_request_headers=asked,
                access_control_request_private_network="true",
            )
            reply = await client.head()
    assert reply.status == 204
    assert reply.headers["access-control-allow-origin"] == PAGE
    assert reply.headers["access-control-allow-headers"] == asked
    assert "POST" in reply.headers["access-control-allow-methods"]
    assert reply.headers["access-control-allow-private-network"] == "true"
    assert reply.headers["vary"] == "Origin"
    assert "access-control-allow-credentials" not in reply.headers


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/health", None, 200),
        ("GET", "/nope", None, 404),
        ("GET", "/v1/chat/completions", None, 405),
        ("GET", "/v1/models", None, 401),
        ("POST", "/v1/chat/completions", b"{", 400),
        ("POST", "/v1/chat/completions", b" " * 2000, 413),
        ("POST", "/v1/chat/completions", CHAT | {"model": "dear"}, 402),
        ("POST", "/v1/chat/completions", CHAT | {"model": "fast"}, 429),
        ("POST", "/v1/chat/completions", CHAT | {"model": "busy"}, 503),
        ("POST", "/v1/chat/completions", CHAT | {"model": "none"}, 404),
        ("POST", "/v1/chat/completions", CHAT | {"stream": True}, 200),
    ],
)
async def test_cors_headers_are_on_every_answer_errors_too(method: str, path: str, body: object, status: int) -> None:
    refusals = {"dear": "budget_exhausted", "fast": "spending_velocity", "busy": "no_capacity"}
    scripts = SCRIPTS | {name: Script(before=(MarketError(code, "no"),)) for name, code in refusals.items()}  # type: ignore[arg-type]
    async with serving(scripts, Settings(port=0, allowed_origins=(PAGE,), max_body_bytes=1000)) as endpoint:
        key = {"authorization": "Bearer sk-buyer"} if method == "POST" else {}
        reply = await endpoint.ask(method, path, body, origin=PAGE, **key)
    assert reply.status == status
    assert reply.headers["access-control-allow-origin"] == PAGE
    exposed = reply.headers["access-control-expose-headers"].split(", ")
    assert "x-request-id" in reply.headers and "x-request-id" in exposed
    ours = [name for name in reply.headers if name.startswith(("x-", "retry", "openai"))]
    assert set(ours) - {"x-accel-buffering"} <= set(exposed)


async def test_without_configured_origins_there_is_no_cors_at_all() -> None:
    async with serving(SCRIPTS) as endpoint:
        reply = await endpoint.ask("GET", "/health")
        assert not [name for name in reply.headers if name.startswith("access-control") or name == "vary"]
        assert (await endpoint.ask("GET", "/health", origin=PAGE)).status == 403


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("Application/JSON", 200),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data", 415),
        ("application/jsonp", 415),
        (None, 415),
    ],
)
async def test_only_json_bodies(content_type: str | None, status: int) -> None:
    async with serving(SCRIPTS) as endpoint:
        reply = await endpoint.ask(
            "POST", "/v1/chat/completions", CHAT, content_type=content_type, authorization="Bearer sk-buyer"
        )
    assert reply.status == status
    if status == 415:
        assert reply.error["code"] == "unsupported_media_type"


async def test_compressed_bodies_are_refused() -> None:
    async with serving(SCRIPTS) as endpoint:
        reply = await endpoint.ask(
            "POST", "/v1/chat/completions", CHAT, content_encoding="gzip", authorization="Bearer sk-buyer"
        )
    assert (reply.status, reply.error["code"]) == (415, "unsupported_media_type")


async def test_nothing_is_bought_by_a_refused_request() -> None:
    market: FakeMarket
    async with serving(SCRIPTS) as endpoint:
        market = endpoint.market
        await endpoint.ask("GET", "/v1/chat/completions", authorization="Bearer sk-buyer")
        await endpoint.ask("POST", "/v1/chat/completions", CHAT, authorization="Bearer sk-reader")
        await endpoint.ask("POST", "/v1/chat/completions", CHAT, authorization="Bearer sk-buyer", host="evil.example")
        await endpoint.ask("POST", "/v1/chat/completions", CHAT, authorization="Bearer sk-buyer", origin=PAGE)
    assert market.orders == []
