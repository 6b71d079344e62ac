"""Executors that take an order and then have no room for it, or vanish; and who counts all that."""

from __future__ import annotations

import pytest

from ryvion_node.engine.fake import Script, fake_model
from ryvion_node.engine.interface import EngineError, EngineErrorCode
from ryvion_node.engine.scripted import Vanished
from ryvion_node.executor import job
from ryvion_node.executor.constants import BUSY_RETRY_MS
from ryvion_node.market.constants import MIN_RETRY_MS
from ryvion_node.market.interface import MarketError
from tests.node.market.marketplace import ANSWER, SellerPlan, buy, marketplace, order

pytestmark = pytest.mark.virtual_time


@pytest.mark.parametrize(("said", "told"), [("busy", "no_capacity"), ("rate_limited", "rate_limited")])
async def test_caller_learns_why_nobody_had_room_and_when_to_come_again(said: str, told: str) -> None:
    full = Script("", error=EngineError(said, "not now"))  # type: ignore[arg-type]
    async with marketplace(SellerPlan(1, script=lambda _: full), SellerPlan(2, script=lambda _: full)) as market:
        with pytest.raises(MarketError) as caught:
            await buy(market)
        assert (caught.value.code, caught.value.retry_after_ms) == (told, BUSY_RETRY_MS)


async def test_caller_is_told_the_soonest_time_that_any_who_refused_named() -> None:
    """A job of 128 tokens ends after 5 s with the one and after 2.5 s with the other."""
    slow, faster = (fake_model("tiny", slots=1, millitokens_per_s=speed) for speed in (25_600, 51_200))
    endless = Script(ANSWER, token_s=100.0)
    plans = (SellerPlan(1, model=slow, script=lambda _: endless), SellerPlan(2, model=faster, script=lambda _: endless))
    async with marketplace(*plans) as market:
        async with market.buyer.buy(order()), market.buyer.buy(order()):
            with pytest.raises(MarketError, match="all slots") as caught:
                await buy(market)
            route = await market.buyer.route(order())
        assert (caught.value.code, caught.value.retry_after_ms) == ("no_capacity", 2_500)
        assert route.winner is None


async def test_no_word_of_an_executor_makes_clients_come_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "BUSY_RETRY_MS", 1)
    full = Script("", error=EngineError("busy", "not now"))
    async with marketplace(SellerPlan(1, script=lambda _: full)) as market:
        with pytest.raises(MarketError) as caught:
            await buy(market)
        assert caught.value.retry_after_ms == MIN_RETRY_MS


@pytest.mark.parametrize("said", ["busy", "context_overflow", "template_failed", "unsupported"])
async def test_what_explains_a_refusal_is_a_failure_in_the_middle_of_an_answer(said: EngineErrorCode) -> None:
    broken = Script("one two", token_s=0.1, linger_s=1.0, error=EngineError(said, "not any more"))
    async with marketplace(SellerPlan(1, script=lambda _: broken)) as market:
        with pytest.raises(MarketError) as caught:
            await buy(market)
        assert (caught.value.code, caught.value.retry_after_ms) == ("node_failed", None)


async def test_executor_that_vanishes_early_is_replaced_and_late_is_an_error() -> None:
    early, late = Script("", error=Vanished()), Script("one two", token_s=0.1, linger_s=1.0, error=Vanished())
    cheap = SellerPlan(1, price_in=1, price_out=1, script=lambda _: early)
    async with marketplace(cheap, SellerPlan(2)) as market:
        assert (await buy(market)).text == ANSWER
    cheap = SellerPlan(1, price_in=1, price_out=1, script=lambda _: late)
    async with marketplace(cheap, SellerPlan(2)) as market:
        with pytest.raises(MarketError) as caught:
            await buy(market)
        assert caught.value.code == "node_failed"
        assert market.sellers[1].engine.requests == []
