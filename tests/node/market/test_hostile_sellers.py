"""Sellers that stall, flood or bait: no order hangs or grows because of them, and none costs more than it may."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest
import trio

from ryvion_node.engine.fake import Script, fake_model
from ryvion_node.engine.interface import EngineError
from ryvion_node.market.bidding import unacceptable
from ryvion_node.market.book import OfferBook
from ryvion_node.market.filters import Eligible, PromptLength
from ryvion_node.market.interface import MarketError, Taken
from ryvion_node.p2p.channel import JobChannel
from ryvion_node.p2p.interface import Stream, StreamBroken
from ryvion_node.preferences import Preferences
from ryvion_protocol.constants import MARKET_PROTOCOL
from ryvion_protocol.job import job_id_of
from ryvion_protocol.messages import ChatMessage, Delta, Hardware, Offer, Quote, QuoteRequest, Started, Withdraw
from ryvion_protocol.packet import pack
from tests.node.market.marketplace import (
    ANSWER,
    NETWORK,
    Marketplace,
    SellerPlan,
    buy,
    clock_ms,
    identity,
    marketplace,
    order,
)

pytestmark = pytest.mark.virtual_time


def streams_for_ever(market: Marketplace, delta: Callable[[int], Delta]) -> None:
    """Let the first seller take every job and send `delta(0)`, `delta(1)`, ... ten times a second without end."""
    me = market.sellers[0].identity

    async def serve(stream: Stream) -> None:
        channel = JobChannel(stream, "executor")
        asked = await channel.receive()
        assert isinstance(asked.message, QuoteRequest)
        await channel.send(pack(quote(asked.hash), me))
        try:
            ordered = await channel.receive()
            await channel.receive()
            hardware = Hardware("gpu", 1, 0, "cuda")
            await channel.send(pack(Started(job_id_of(ordered), 4, hardware, "DE", "", clock_ms())))
            seq = 0
            while True:
                await channel.send(pack(delta(seq)))
                seq += 1
                await trio.sleep(0.1)
        except StreamBroken:
            return

    market.sellers[0].network.serve(MARKET_PROTOCOL, serve)


def quote(request_hash: bytes = bytes(32)) -> Quote:
    digest, now = fake_model("tiny").digest, clock_ms()
    key = identity(1).public_key
    return Quote(request_hash, key, "tiny", digest, 512, 50_000, 200_000, "DE", 0, 1, 50_000, now, now + 10_000)


@pytest.mark.parametrize(
    ("text", "longest_s"),
    [(lambda seq: "", 15), (lambda seq: "" if seq else "a", 35), (lambda seq: "a", 615)],
    ids=["never any text", "no more text", "a crumb now and then"],
)
async def test_seller_that_never_ends_is_given_up(text: Callable[[int], str], longest_s: float) -> None:
    async with marketplace(SellerPlan(1)) as market:
        streams_for_ever(market, lambda seq: Delta(seq, 0, text(seq), ()))
        began = trio.current_time()
        with pytest.raises(MarketError) as caught:
            await buy(market)
        assert caught.value.code == "node_timeout"
        assert trio.current_time() - began < longest_s


async def test_seller_that_sends_more_text_than_any_tokens_hold_is_cut_off() -> None:
    async with marketplace(SellerPlan(1)) as market:
        streams_for_ever(market, lambda seq: Delta(seq, 0, "x" * 30_000, ()))
        began = trio.current_time()
        with pytest.raises(MarketError, match="bytes of text") as caught:
            await buy(market)
        assert caught.value.code == "node_failed"
        assert trio.current_time() - began < 2


async def test_seller_that_made_its_client_give_up_is_asked_last() -> None:
    """Else a client that waits less long than we do would get the same one each time."""
    async with marketplace(SellerPlan(1), SellerPlan(2, price_out=10**6), quote_peers=1) as market:
        streams_for_ever(market, lambda seq: Delta(seq, 0, "", ()))
        with trio.move_on_after(5):
            await buy(market)
        await trio.sleep(6)
        route = await market.buyer.route(order())
        assert route.winner == market.sellers[1].identity.public_key


async def test_bait_that_costs_nothing_and_stalls_is_taken_by_nobody_with_a_choice() -> None:
    """Whoever has none, or asked for the lowest price, waits no longer than was promised, and a little."""
    late = replace(fake_model("tiny"), load_ms=290_000)
    bait = SellerPlan(1, price_in=0, price_out=0, model=late, script=lambda _: Script(ANSWER, prompt_s=10_000))
    async with marketplace(bait, SellerPlan(2)) as market:
        began = trio.current_time()
        assert (await buy(market)).text == ANSWER
        assert trio.current_time() - began < 1
        assert market.sellers[0].engine.requests == []
        assert (await buy(market, order(preferences=Preferences(sort="price")))).text == ANSWER
        assert 290 < trio.current_time() - began < 325


async def test_sellers_that_never_quote_do_not_hold_up_every_order() -> None:
    async def say_nothing(stream: Stream) -> None:
        await trio.sleep_forever()

    silent = [SellerPlan(seed, price_in=1, price_out=1) for seed in range(1, 6)]
    async with marketplace(*silent, SellerPlan(9)) as market:
        for seller in market.sellers[:5]:
            seller.network.serve(MARKET_PROTOCOL, say_nothing)
        took_s = []
        for _ in range(8):
            began = trio.current_time()
            assert (await buy(market)).text == ANSWER
            took_s.append(trio.current_time() - began)
        # Three are asked at once, one of them by chance.
        assert sum(seconds > 1 for seconds in took_s) <= 2


async def test_no_order_lets_a_seller_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Offers may name contexts of billions of tokens, and some clients ask for as many."""
    monkeypatch.setattr("ryvion_node.market.intake.MAX_ANSWER_BYTES", 50_000)
    async with marketplace(SellerPlan(1)) as market:
        streams_for_ever(market, lambda seq: Delta(seq, 0, "x" * 30_000, ()))
        with pytest.raises(MarketError, match="more than 50000 bytes of text"):
            await buy(market, order(max_completion_tokens=400))


@pytest.fixture
async def eligible() -> AsyncIterator[Eligible]:
    async with marketplace(SellerPlan(1)) as market:
        offer = market.sellers[0].offer.message
        assert isinstance(offer, Offer)
        yield Eligible(offer, offer.models[0], PromptLength(4, counted=True))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({}, None),
        ({"price_out": 200_001}, "the offer said"),
        ({"price_in": 10**12}, "the offer said"),
        ({"first_token_ms": 2**32 - 1}, "first token"),
    ],
)
async def test_quote_must_keep_what_the_offer_promised(
    eligible: Eligible, changed: dict[str, int], reason: str | None
) -> None:
    said = unacceptable(replace(quote(), **changed), eligible, order())  # type: ignore[arg-type]
    assert said is None if reason is None else reason in (said or "")


async def test_job_that_may_cost_so_much_orders_no_more_tokens_than_that_pays_for() -> None:
    async with marketplace(SellerPlan(1, price_in=0, price_out=10_000_000)) as market:
        await buy(market, order(max_completion_tokens=400, max_price=2_600))
        await buy(market, order(max_completion_tokens=400))
        assert [request.max_tokens for request in market.sellers[0].engine.requests] == [260, 400]


async def test_client_that_leaves_in_the_quote_round_leaves_no_slot_held() -> None:
    async def silent(stream: Stream) -> None:
        await stream.receive()
        await trio.sleep_forever()

    async with marketplace(SellerPlan(1), SellerPlan(2)) as market:
        market.internet.delay_s = 0.1
        market.sellers[1].network.serve(MARKET_PROTOCOL, silent)
        for left_after_s in (0.35, 0.45):  # before the first bid came, and between it and the end of the round
            with trio.move_on_after(left_after_s) as scope:
                await buy(market)
            assert scope.cancelled_caught
            await trio.sleep(1)
            assert market.sellers[0].seller.free_slots("tiny") == 4


async def test_request_too_large_for_the_wire_is_refused_and_leaves_no_slot_held() -> None:
    async with marketplace(SellerPlan(1, model=fake_model("tiny", context_tokens=10**6))) as market:
        with pytest.raises(MarketError) as caught:
            await buy(
                market, order(messages=(ChatMessage("user", "x" * 260_000, ""), ChatMessage("user", "y" * 9_000, "")))
            )
        assert caught.value.code == "context_length_exceeded"
        await trio.sleep(1)
        assert market.sellers[0].seller.free_slots("tiny") == 4


async def test_what_a_broken_job_sent_is_kept() -> None:
    script = Script("a b", token_s=1.0, error=EngineError("worker_crashed", "it died"))
    async with marketplace(SellerPlan(1, script=lambda r: script)) as market:
        job_id = None
        with pytest.raises(MarketError):  # noqa: PT012
            async with market.buyer.buy(order()) as job:
                async for event in job.events():
                    if isinstance(event, Taken):
                        job_id = event.placement.job_id
        assert job_id is not None
        kinds = [item.kind for item in await market.ledger.evidence(job_id, "bought")]
        assert kinds == ["quote", "job_offer", "error"]


async def test_prompt_that_a_model_cannot_take_is_not_held_against_its_seller() -> None:
    refusal = Script("", error=EngineError("template_failed", "no such role"))
    plans = (SellerPlan(1, script=lambda r: refusal), SellerPlan(2, price_out=10**6))
    async with marketplace(*plans, quote_peers=1) as market:
        assert (await buy(market)).text == ANSWER
        route = await market.buyer.route(order())
        assert route.winner == market.sellers[0].identity.public_key


async def test_withdrawals_of_strangers_fill_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ryvion_node.market.book.MAX_BOOK_OFFERS", 2)
    book = OfferBook(NETWORK)
    now = clock_ms()
    heard = [
        book.hear(pack(Withdraw(NETWORK, identity(seed).public_key, now, now), identity(seed)).raw, now)
        for seed in (1, 2, 3)
    ]
    assert [packet is not None for packet in heard] == [True, True, False]
