"""What keys may spend, through the whole purchase: capped before, checked at the begin, given back after."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import trio

from ryvion_node.engine.fake import Script
from ryvion_node.engine.interface import EngineError
from ryvion_node.ledger.spending import Allowance, Spending
from ryvion_node.market import bidding, floor
from ryvion_node.market.constants import HELD_RETRY_MS
from ryvion_node.market.interface import Account, ChatOrder, MarketError
from ryvion_protocol.messages import QuoteRequest
from tests.node.market.marketplace import ANSWER, Bought, Marketplace, SellerPlan, buy, marketplace, order

pytestmark = pytest.mark.virtual_time

SLOW = Script(ANSWER, token_s=1.0)
DEAR = 10**9
"""Micro-credits per million tokens: a token costs 1,000."""


def account(**limits: int | None) -> Account:
    return Account("key-1", "chatcmpl-1", Allowance(**limits))


def dear(script: Script | None = None) -> SellerPlan:
    """A seller whose whole order of 50 tokens may cost 50,000 and a few for the prompt."""
    return SellerPlan(1, price_in=0, price_out=DEAR, script=lambda request: script or Script(ANSWER), max_queue=50)


def ordered(**limits: int | None) -> ChatOrder:
    return order(account=account(**limits))


async def spent(market: Marketplace) -> Spending:
    return await market.ledger.spending("key-1")


async def test_a_job_is_kept_with_its_completion_and_its_key() -> None:
    async with marketplace(dear()) as market:
        bought = await buy(market, ordered())
        assert bought.outcome is not None
        (job,) = await market.ledger.by_completion_id("chatcmpl-1")
        assert (job.key_id, job.cost_microcredits) == ("key-1", bought.outcome.cost)
        assert await spent(market) == Spending(6_000, 6_000, 6_000)


async def test_a_decision_is_remembered_by_its_job_until_newer_ones_take_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(floor, "MAX_DECISIONS", 2)
    async with marketplace(dear()) as market:
        placed = [(await buy(market)).placement for _ in range(3)]
        known = [market.buyer.placement(placement.job_id) for placement in placed if placement is not None]
        assert known == [None, *placed[1:]]


async def test_of_a_large_market_those_that_were_asked_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(floor, "MAX_CANDIDATES_KEPT", 3)
    abroad = [SellerPlan(seed, jurisdiction="CA") for seed in range(1, 5)]
    async with marketplace(*abroad, replace(dear(), seed=8), replace(dear(), seed=9)) as market:
        bought = await buy(market, order(jurisdictions=("DE",)))
        assert bought.placement is not None
        known = market.buyer.placement(bought.placement.job_id)
        assert known is not None
        assert [candidate.outcome for candidate in known.route.candidates] == ["won", "bid", "filtered"]


async def test_all_jobs_that_a_failover_takes_have_the_completion_and_only_one_costs() -> None:
    broken = SellerPlan(1, price_out=1, script=lambda r: Script("", error=EngineError("worker_crashed", "it died")))
    async with marketplace(broken, SellerPlan(2)) as market:
        await buy(market, ordered(total=10**6))
        jobs = await market.ledger.by_completion_id("chatcmpl-1")
        assert {job.state for job in jobs} == {"failed", "accepted"}
        assert (await spent(market)).total == sum(job.cost_microcredits for job in jobs) > 0


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        ({"total": 6_000}, "budget_exhausted"),
        ({"day": 6_000}, "budget_exhausted"),
        ({"hour": 6_000}, "spending_velocity"),
    ],
)
async def test_a_key_that_has_spent_its_limit_buys_nothing_more(limits: dict[str, int], code: str) -> None:
    async with marketplace(dear()) as market:
        small = replace(ordered(**limits), max_completion_tokens=6)
        await buy(market, small)
        with pytest.raises(MarketError, match="6000 of 6000 micro-credits") as refused:
            await buy(market, small)
        assert refused.value.code == code
        assert (await spent(market)).total == 6_000
        if code == "spending_velocity":
            wait_ms = refused.value.retry_after_ms
            assert wait_ms is not None
            await trio.sleep(wait_ms / 1000 - 1)
            assert (await spent(market)).hour == 6_000
            await trio.sleep(1)
            assert (await spent(market)).hour == 0


async def test_a_key_without_credits_still_uses_free_executors() -> None:
    async with marketplace(SellerPlan(1, price_in=0, price_out=0)) as market:
        assert (await buy(market, ordered(total=0))).text == ANSWER


async def test_an_answer_is_ordered_no_longer_than_the_key_can_pay() -> None:
    async with marketplace(dear()) as market:
        bought = await buy(market, replace(ordered(total=300_500), max_completion_tokens=None))
        assert bought.outcome is not None
        (sold,) = market.sellers[0].engine.requests
        assert sold.max_tokens == 300


async def test_the_lowest_of_all_limits_counts_and_says_whose_it_is() -> None:
    async with marketplace(dear()) as market:
        with pytest.raises(MarketError) as by_order:
            await buy(market, replace(ordered(total=10_000), max_price=5_000))
        with pytest.raises(MarketError) as by_key:
            await buy(market, replace(ordered(total=5_000), max_price=10_000))
    assert (by_order.value.code, by_key.value.code) == ("price_limit", "budget_exhausted")
    assert "ask for less" in str(by_order.value)
    assert "`ryvion-node keys set`" in str(by_key.value)


async def test_executors_are_told_the_limit_of_an_order_and_not_what_its_key_has_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[int] = []

    def note(**fields: Any) -> QuoteRequest:
        told.append(fields["max_price"])
        return QuoteRequest(**fields)

    monkeypatch.setattr(bidding, "QuoteRequest", note)
    async with marketplace(dear()) as market:
        await buy(market, replace(ordered(total=400_000), max_price=300_000))
        await buy(market, ordered(total=400_000))
    assert told == [300_000, 0]


@pytest.mark.parametrize("limit", ["hour", "day", "total"])
async def test_orders_at_once_never_spend_more_than_the_limit_together(limit: str) -> None:
    refused: list[MarketError] = []
    bought: list[Bought] = []
    async with marketplace(dear(SLOW), quote_peers=1) as market:

        async def spend() -> None:
            try:
                bought.append(await buy(market, replace(ordered(**{limit: 30_000}), max_completion_tokens=10)))
            except MarketError as exc:
                refused.append(exc)

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(spend)
            await trio.sleep(0.5)
            running = await spent(market)
            assert running.running + running.total <= 30_000
        assert (await spent(market)).total == 6_000 * len(bought) <= 30_000
        assert len(bought) + len(refused) == 20
        assert bought
        assert {exc.code for exc in refused} <= {"budget_held", "no_capacity"}
        assert "budget_held" in {exc.code for exc in refused}
        assert {exc.retry_after_ms for exc in refused if exc.code == "budget_held"} == {HELD_RETRY_MS}
        # What they did not use has come back.
        await buy(market, replace(ordered(**{limit: 30_000}), max_completion_tokens=10))


async def test_a_cancelled_job_gives_back_what_was_not_delivered() -> None:
    async with marketplace(dear(SLOW)) as market:
        async with market.buyer.buy(ordered(total=60_000)) as job:
            await job.events().__anext__()
            await trio.sleep(1.5)
            assert (await spent(market)).running == 50_000
        await trio.sleep(10)
        after = await spent(market)
        assert after.running == 0
        assert 0 < after.total < 6_000
