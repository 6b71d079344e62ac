"""Money from end to end: the key file, the endpoint, the real buyer and its ledger, sellers on a network in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
from proxy_harness import HELLO, Client, Reply

from ryvion_node.engine.fake import Script
from ryvion_node.keys import ApiKey, KeyLimits, KeyStore
from ryvion_node.ledger.spending import Spending
from ryvion_node.proxy.server import ProxyServer
from ryvion_node.proxy.settings import Settings
from ryvion_node.proxy.vault import MemoryVault
from ryvion_node.proxy.wiring import LedgerReceipts, NodeKeys
from tests.node.market.marketplace import ANSWER, Marketplace, SellerPlan, marketplace

TOKEN_PRICE = 1_000
"""Micro-credits; the prompt is free, an answer has six tokens and may have ten."""


@dataclass(slots=True)
class Shop:
    """A running endpoint with one key."""

    url: str
    market: Marketplace
    store: KeyStore
    key: ApiKey
    token: str

    async def connect(self) -> Client:
        host, port = self.url.removeprefix("http://").split(":")
        return Client(await trio.open_tcp_stream(host, int(port)), f"{host}:{port}")

    async def ask(self, method: str, path: str, body: object = None, **headers: str) -> Reply:
        client = await self.connect()
        async with client.stream:
            await client.send(method, path, body, authorization=f"Bearer {self.token}", **headers)
            return await client.reply()

    async def chat(
        self,
        *,
        stream: bool = False,
        max_tokens: int | None = 10,
        n: int = 1,
        max_price: int | None = None,
        **headers: str,
    ) -> Reply:
        body = {"model": "tiny", "messages": HELLO, "stream": stream, "max_tokens": max_tokens, "n": n}
        body |= {"ryvion": {"max_price": max_price}}
        return await self.ask("POST", "/v1/chat/completions", body, **headers)

    async def spent(self) -> Spending:
        return await self.market.ledger.spending(self.key.id)


@asynccontextmanager
async def shop(folder: Path, script: Script, **limits: int | None) -> AsyncIterator[Shop]:
    seller = SellerPlan(1, price_in=0, price_out=TOKEN_PRICE * 10**6, script=lambda request: script, max_queue=50)
    store = KeyStore(folder / "home" / "keys.json")
    key, token = store.create("test", "buyer", None, KeyLimits(**limits))
    with trio.fail_after(20):
        async with marketplace(seller, quote_peers=1) as market, trio.open_nursery() as nursery:
            books = LedgerReceipts(market.ledger)
            keys = NodeKeys(store, "control_secret")
            server = ProxyServer(market.buyer, keys, books, Settings(port=0), MemoryVault())
            url: str = await nursery.start(server.run)
            yield Shop(url, market, store, key, token)
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("limit", ["budget_day", "budget_total", "velocity"])
@pytest.mark.parametrize("stream", [True, False])
async def test_requests_at_once_never_spend_more_than_the_key_may(tmp_path: Path, limit: str, stream: bool) -> None:
    replies: list[Reply] = []
    async with shop(tmp_path, Script(ANSWER, token_s=0.01), **{limit: 35_000}) as place:

        async def buy() -> None:
            replies.append(await place.chat(stream=stream))

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(buy)
        spent = await place.spent()
        answered = [reply for reply in replies if reply.status == 200]
        refused = [reply for reply in replies if reply.status != 200]
        assert spent.running == 0
        assert spent.total == 6_000 * len(answered) <= 35_000
        assert len(answered) >= 3
        assert {(reply.status, reply.error["code"]) for reply in refused} <= {
            (429, "rate_limit_exceeded"),
            (503, "no_capacity"),
        }
        assert any(reply.status == 429 and reply.headers["retry-after"] == "2" for reply in refused)


async def test_a_key_is_stopped_at_its_budget_and_goes_on_when_it_is_raised(tmp_path: Path) -> None:
    async with shop(tmp_path, Script(ANSWER), budget_total=12_000) as place:
        assert [(await place.chat()).status for _ in range(2)] == [200, 402]
        refused = await place.chat()
        assert (refused.error["code"], refused.error["type"]) == ("insufficient_quota", "insufficient_quota")
        assert "6000 of 12000" in str(refused.error["message"])
        assert "retry-after" not in refused.headers
        assert (await place.chat(max_tokens=6)).status == 200
        place.store.change(place.key.id, {"budget_total": 22_000})
        assert (await place.chat()).status == 200
        assert (await place.spent()).total == 18_000


async def test_a_new_key_that_runs_wild_is_stopped_within_the_hour(tmp_path: Path) -> None:
    async with shop(tmp_path, Script(ANSWER), velocity=6_000) as place:
        assert (await place.chat(max_tokens=6)).status == 200
        refused = await place.chat(max_tokens=6)
    assert (refused.status, refused.error["code"]) == (429, "spending_velocity_exceeded")
    assert refused.headers["retry-after"] == "60"


async def test_an_answer_is_cut_to_what_is_left(tmp_path: Path) -> None:
    async with shop(tmp_path, Script(ANSWER), budget_total=300_000) as place:
        reply = await place.chat(max_tokens=None)
        (job,) = place.market.sellers[0].engine.requests
        assert (reply.status, job.max_tokens) == (200, 300)


async def test_a_choice_waits_for_what_another_does_not_use_of_the_budget(tmp_path: Path) -> None:
    async with shop(tmp_path, Script(ANSWER), budget_total=16_000) as place:
        reply = await place.chat(n=2)
        assert reply.json()["ryvion"]["cost_microcredits"] == 12_000  # type: ignore[index]
        assert (await place.spent()) == Spending(hour=12_000, day=12_000, total=12_000, running=0)
        listing = (await place.ask("GET", f"/api/v1/receipts?completion_id={reply.json()['id']}")).json()["data"]
        assert len(listing) == 2  # type: ignore[arg-type]


async def test_the_price_of_an_answer_is_kept_by_its_choices_together(tmp_path: Path) -> None:
    async with shop(tmp_path, Script(ANSWER)) as place:
        assert (await place.chat(n=3, max_price=30_000)).json()["ryvion"]["cost_microcredits"] == 18_000  # type: ignore[index]
        assert (await place.chat(n=3, max_price=29_999)).error["code"] == "price_limit"
        assert (await place.chat(n=1, max_price=29_999)).status == 200


async def test_more_choices_than_a_seller_holds_quotes_for(tmp_path: Path) -> None:
    async with shop(tmp_path, Script(ANSWER)) as place:
        reply = await place.chat(n=16)
        assert len(reply.json()["choices"]) == 16  # type: ignore[arg-type]
        assert (await place.spent()).total == 16 * 6_000


async def test_receipts_are_found_by_the_id_of_the_answer(tmp_path: Path) -> None:
    async with shop(tmp_path, Script(ANSWER)) as place:
        answer = (await place.chat()).json()
        listing = (await place.ask("GET", f"/api/v1/receipts?completion_id={answer['id']}")).json()["data"]
        evidence = answer["ryvion"]
        assert isinstance(listing, list) and isinstance(evidence, dict)
        assert [(found["cid"], found["completion_id"]) for found in listing] == [(evidence["cid"], answer["id"])]
        old_name = await place.ask("GET", f"/api/v1/receipts?completion_id=chatcmpl-{evidence['job_id']}")
        assert old_name.json()["data"] == listing
        unknown = await place.ask("GET", f"/api/v1/receipts?completion_id=chatcmpl-{'0' * 64}")
        assert unknown.json()["data"] == []
        route = await place.ask("GET", f"/api/v1/jobs/{evidence['job_id']}/route")
        assert route.json()["route"] == evidence["route"]


async def test_a_repeated_request_costs_once(tmp_path: Path) -> None:
    async with shop(tmp_path, Script(ANSWER)) as place:
        first, again = [await place.chat(idempotency_key="order-1") for _ in range(2)]
        assert first.body == again.body
        assert (await place.spent()).total == 6_000


async def test_a_request_that_its_client_left_is_settled_and_not_bought_again(tmp_path: Path) -> None:
    async with shop(tmp_path, Script(ANSWER, token_s=0.2)) as place:
        client = await place.connect()
        async with client.stream:
            body = {"model": "tiny", "messages": HELLO, "stream": True}
            headers = {"authorization": f"Bearer {place.token}", "idempotency_key": "order-1"}
            await client.send("POST", "/v1/chat/completions", body, **headers)
            await client.head()
            await client.chunk()
            await client.chunk()
        reply = await place.ask("POST", "/v1/chat/completions", body, idempotency_key="order-1")
        while reply.error["code"] == "idempotency_key_in_use":
            assert reply.status == 409
            reply = await place.ask("POST", "/v1/chat/completions", body, idempotency_key="order-1")
        assert (reply.status, reply.error["code"]) == (409, "idempotency_answer_lost")
        assert 0 < (await place.spent()).total < 6_000
