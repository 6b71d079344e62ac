"""The service: its port, its receipts, its end."""

from __future__ import annotations

import socket
from dataclasses import replace

import pytest
import trio
from proxy_harness import FakeKeys, FakeReceipts, serving

from ryvion_node.errors import OperatorError
from ryvion_node.market.fake import FakeMarket, says
from ryvion_node.market.interface import ChatOrder, MarketError, Order, Route
from ryvion_node.proxy.answers import taken_json
from ryvion_node.proxy.receipts import StoredReceipt
from ryvion_node.proxy.server import EndpointAddressUnusable, EndpointPortTaken, ProxyServer
from ryvion_node.proxy.settings import Settings
from ryvion_node.proxy.vault import MemoryVault

KEY = {"authorization": "Bearer sk-buyer"}


def server(settings: Settings) -> ProxyServer:
    return ProxyServer(
        FakeMarket({"echo": says("x")}), FakeKeys(), FakeReceipts(FakeMarket({})), settings, MemoryVault()
    )


async def test_a_taken_port_is_told_with_its_mend() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(EndpointPortTaken, match=rf"(?s)Port {port} .*\[proxy\]") as caught:
            await server(Settings(port=port)).run()
    assert isinstance(caught.value, OperatorError)


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host.invalid"])
async def test_an_address_that_is_not_ours_is_told_with_its_mend(host: str) -> None:
    with pytest.raises(EndpointAddressUnusable, match=r"127\.0\.0\.1 always works"):
        await server(Settings(host=host, port=0)).run()


async def test_a_stopped_endpoint_frees_its_port_at_once() -> None:
    async with serving({"echo": says("x")}) as endpoint:
        assert (await endpoint.chat()).status == 200
        idle = await endpoint.connect()
    async with serving({"echo": says("x")}, Settings(port=endpoint.port)) as again:
        assert (await again.chat()).status == 200
    await idle.stream.aclose()


async def test_it_can_listen_on_ipv6() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        async with trio.open_nursery() as nursery:
            url: str = await nursery.start(server(Settings(host="::1", port=0)).run)
            assert url.startswith("http://[::1]:")
            nursery.cancel_scope.cancel()
    except* EndpointAddressUnusable:
        pytest.skip("no IPv6 here")


async def test_receipts_are_found_by_completion_and_by_name() -> None:
    async with serving({"echo": says("x")}) as endpoint:
        answer = (await endpoint.chat()).json()
        outcome = endpoint.market.outcomes[next(iter(endpoint.market.outcomes))]
        stored = StoredReceipt(
            receipt=outcome.receipt,
            cid=outcome.cid,
            envelope=outcome.envelope,
            checks=outcome.checks,
            accepted=outcome.accepted,
            cost=outcome.cost,
            model="echo",
            created_ms=1_700_000_000_123,
            completion_id=str(answer["id"]),
        )
        endpoint.receipts.stored += [stored, replace(stored, cid="ryv1:sha256:other")]
        by_completion = await endpoint.ask("GET", f"/api/v1/receipts?completion_id={answer['id']}", **KEY)
        by_name = await endpoint.ask("GET", f"/api/v1/receipts/{outcome.cid}", **KEY)
        unknown = await endpoint.ask("GET", "/api/v1/receipts?completion_id=chatcmpl-0", **KEY)
        nameless = await endpoint.ask("GET", "/api/v1/receipts/ryv1:sha256:0", **KEY)
    listing = by_completion.json()
    assert listing["object"] == "list"
    assert isinstance(listing["data"], list)
    assert len(listing["data"]) == 2
    found = by_name.json()
    assert found == listing["data"][0]
    assert found["completion_id"] == answer["id"]
    assert isinstance(answer["ryvion"], dict)
    assert found["receipt"] == answer["ryvion"]["receipt"]
    assert (found["cid"], found["accepted"], found["cost_microcredits"]) == (outcome.cid, True, 12)
    assert unknown.json() == {"object": "list", "data": []}
    assert (nameless.status, nameless.error["code"]) == (404, "receipt_not_found")


async def test_the_decision_on_a_job_can_be_read_again() -> None:
    async with serving({"echo": says("x")}) as endpoint:
        answer = (await endpoint.chat()).json()["ryvion"]
        assert isinstance(answer, dict)
        again = await endpoint.ask("GET", f"/api/v1/jobs/{answer['job_id']}/route", **KEY)
        for unknown in ("0" * 64, "x", "%00"):
            reply = await endpoint.ask("GET", f"/api/v1/jobs/{unknown}/route", **KEY)
            assert (reply.status, reply.error["code"]) == (404, "job_not_found")
        writer = {"authorization": "Bearer sk-writer"}
        assert (await endpoint.ask("GET", f"/api/v1/jobs/{answer['job_id']}/route", **writer)).status == 403
    shown = again.json()
    assert shown == {name: answer[name] for name in shown}
    assert {"route", "node_id", "jurisdiction", "why"} <= shown.keys()


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("", "missing_required_parameter"),
        ("?completion_id=x", "invalid_value"),
        ("?completion_id", "invalid_value"),
        ("?completion_id=chatcmpl-%00", "invalid_value"),
        ("?completion_id=Chat-1", "invalid_value"),
    ],
)
async def test_a_receipt_query_must_name_a_completion(query: str, code: str) -> None:
    async with serving({"echo": says("x")}) as endpoint:
        reply = await endpoint.ask("GET", f"/api/v1/receipts{query}", **KEY)
    assert (reply.status, reply.error["code"], reply.error["param"]) == (400, code, "completion_id")


async def test_a_large_market_does_not_swell_every_answer() -> None:
    order = ChatOrder("echo", (), None)
    async with FakeMarket({"echo": says("x")}).buy(order) as job:
        won = job.placement.route.candidates[0]
        others = tuple(replace(won, peer_id=f"peer-{n}", outcome="filtered") for n in range(100))
        route = replace(job.placement.route, candidates=(*others, won))
        shown = taken_json(replace(job.placement, route=route))["route"]
    assert isinstance(shown, dict)
    assert len(shown["candidates"]) == 16
    assert shown["candidates"][0]["outcome"] == "won"


async def test_a_node_that_cannot_buy_explains_no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    async def closed(market: FakeMarket, order: Order) -> Route:
        raise MarketError("no_capacity", "this node cannot keep its books", 60_000)

    monkeypatch.setattr(FakeMarket, "route", closed)
    async with serving({"echo": says("a")}) as endpoint:
        reply = await endpoint.ask("POST", "/api/v1/route", {"model": "echo"}, **KEY)
    assert (reply.status, reply.error["code"], reply.headers["retry-after"]) == (503, "no_capacity", "60")


async def test_offers_and_routes_are_shown() -> None:
    async with serving({"echo": says("x")}) as endpoint:
        offers = await endpoint.ask("GET", "/api/v1/offers", **KEY)
        route = await endpoint.ask("POST", "/api/v1/route", {"model": "echo", "jurisdiction": "CA"}, **KEY)
        assert not endpoint.market.orders
    listed = offers.json()["offers"]
    assert isinstance(listed, list)
    assert listed[0]["models"][0]["name"] == "echo"
    assert len(listed[0]["node_key"]) == 64
    assert route.json()["jurisdictions"] == ["CA"]
    assert route.json()["explanation"] == "one bid, taken"


@pytest.mark.parametrize(
    ("body", "token", "status", "code"),
    [
        ({}, "buyer", 400, "missing_required_parameter"),
        ({"model": "echo", "max_price": 5}, "buyer", 400, "unsupported_parameter"),
        ({"model": "no such/ name"}, "buyer", 404, "model_not_found"),
        ({"model": "echo", "jurisdiction": "Atlantis"}, "buyer", 400, "invalid_value"),
        ({"model": "echo", "jurisdiction": "DE"}, "canada", 403, "jurisdiction_not_allowed"),
        ({"model": "echo"}, "reader", 403, "insufficient_scope"),
        (b"{", "buyer", 400, "invalid_json"),
    ],
)
async def test_routes_are_asked_for_as_strictly_as_answers(body: object, token: str, status: int, code: str) -> None:
    async with serving({"echo": says("x")}) as endpoint:
        reply = await endpoint.ask("POST", "/api/v1/route", body, authorization=f"Bearer sk-{token}")
        form = await endpoint.ask(
            "POST", "/api/v1/route", b"{}", content_type="text/plain", authorization="Bearer sk-buyer"
        )
    assert (reply.status, reply.error["code"]) == (status, code)
    assert form.status == 415


async def test_a_key_that_may_buy_in_some_places_is_shown_routes_there() -> None:
    async with serving({"echo": says("x")}) as endpoint:
        reply = await endpoint.ask("POST", "/api/v1/route", {"model": "echo"}, authorization="Bearer sk-canada")
    assert reply.json()["jurisdictions"] == ["CA", "US"]
