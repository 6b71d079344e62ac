"""Clients of one buyer that all ask at once: their quotes take turns at an executor, and nobody is refused."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from ryvion_node.engine.fake import Script, fake_model
from ryvion_node.executor.constants import MAX_HOLDS_PER_PEER
from ryvion_node.market.constants import MAX_OPEN_QUOTES
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
