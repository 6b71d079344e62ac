"""Clients of one buyer that all ask at once: their quotes take turns at an executor, and nobody is refused."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from ryvion_node.engine.fake import Script, fake_model
from ryvion_node.executor.constants import MAX_HOLDS_PER_PEER
from ryvion_node.market.constants import MAX_OPEN_QUOTES, QUOTE_TIMEOUT_S, QUOTE_TURN_S
from ryvion_node.market.interface import MarketError
from ryvion_node.market.open_quotes import OpenQuotes
from ryvion_protocol.schema import NodeKey
from tests.node.market.marketplace import ANSWER, SellerPlan, buy, marketplace, order

pytestmark = pytest.mark.virtual_time

ALICE, BOB = NodeKey(bytes(32)), NodeKey(bytes([1]) * 32)


async def test_as_many_orders_at_once_as_a_seller_has_slots_all_run() -> None:
    plan = SellerPlan(1, model=fake_model("tiny", slots=32), script=lambda _: Script(ANSWER, token_s=0.1))
    async with marketplace(plan) as market:
        texts: list[str] = []

        async def one() -> None:
            texts.append((await buy(market)).text)

        async with trio.open_nursery() as nursery:
            for _ in range(32):
                nursery.start_soon(one)
        assert texts == [ANSWER] * 32


async def test_a_turn_that_is_long_in_coming_is_no_quote_that_is_late() -> None:
    model = fake_model("tiny", slots=4)
    async with marketplace(SellerPlan(1, model=model, max_queue=16)) as market:
        market.internet.delay_s = 0.3
        texts: list[str] = []

        async def one() -> None:
            texts.append((await buy(market)).text)

        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(12):
                nursery.start_soon(one)
        assert texts == [ANSWER] * 12
        assert trio.current_time() - started > QUOTE_TIMEOUT_S


async def test_a_request_does_not_wait_for_its_turn_for_ever() -> None:
    async with marketplace(SellerPlan(1, model=fake_model("tiny", slots=2))) as market:
        market.internet.delay_s = 60
        told: list[str] = []

        async def one() -> None:
            with pytest.raises(MarketError) as caught:
                await buy(market)
            told.append(str(caught.value))

        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(one)
        assert trio.current_time() - started < QUOTE_TURN_S + QUOTE_TIMEOUT_S + 1
        assert sum("no turn to ask" in text for text in told) == 2


async def test_bids_that_lose_make_way_for_the_next() -> None:
    plans = [SellerPlan(seed, price_out=100_000 * seed, model=fake_model("tiny", slots=2)) for seed in (1, 2)]
    async with marketplace(*plans) as market:
        for _ in range(2 * MAX_OPEN_QUOTES):
            assert (await market.buyer.route(order())).winner == market.sellers[0].identity.public_key
            assert (await buy(market)).text == ANSWER


async def test_quotes_wait_for_those_before_them_at_the_same_executor_alone() -> None:
    quotes, passed = OpenQuotes(), list[str]()

    async def hold(name: str, executor: NodeKey) -> None:
        await quotes.hold(executor, slots=64)
        passed.append(name)

    first = [await quotes.hold(ALICE, slots=64) for _ in range(MAX_OPEN_QUOTES)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold, "alice", ALICE)
        nursery.start_soon(hold, "bob", BOB)
        await trio.testing.wait_all_tasks_blocked()
        assert passed == ["bob"]
        first[0].release()
        first[0].release()
        await trio.testing.wait_all_tasks_blocked()
    assert passed == ["bob", "alice"]


async def test_whoever_stops_waiting_leaves_the_place_to_the_next() -> None:
    quotes = OpenQuotes()
    held = await quotes.hold(ALICE, slots=1)
    with trio.move_on_after(1) as gave_up:
        await quotes.hold(ALICE, slots=1)
    assert gave_up.cancelled_caught
    held.release()
    with trio.fail_after(1):
        (await quotes.hold(ALICE, slots=1)).release()


def test_half_of_what_executors_grant_is_asked_for() -> None:
    assert 2 * MAX_OPEN_QUOTES <= MAX_HOLDS_PER_PEER
