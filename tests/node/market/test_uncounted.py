"""Engines that tell a prompt's length only at the end, or are full: what is billed, and who is asked next."""

from __future__ import annotations

import pytest
import trio

from ryvion_node.engine.fake import Script
from ryvion_node.engine.interface import EngineError
from ryvion_node.executor.job import SoldJob
from ryvion_node.market.interface import MarketError, Piece
from tests.node.market.marketplace import ANSWER, SellerPlan, buy, marketplace, order

pytestmark = pytest.mark.virtual_time


async def test_prompt_is_billed_as_told_at_the_end() -> None:
    async with marketplace(SellerPlan(1), counts=False) as market:
        market.sellers[0].engine.counts = False
        bought = await buy(market)
        assert bought.text == ANSWER
        assert bought.outcome is not None and bought.outcome.accepted
        # One token to begin, one for the role, two words.
        assert (bought.outcome.prompt_tokens, bought.outcome.completion_tokens) == (4, 6)


async def test_no_more_tokens_were_cached_than_are_billed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients take the one from the other. An executor may say any number up to what was ordered."""
    announce = SoldJob._announce

    async def boast(job: SoldJob, prompt_tokens: int, cached_tokens: int = 0) -> None:
        most = job._terms.offer.max_prompt_tokens
        await announce(job, most, most)

    monkeypatch.setattr(SoldJob, "_announce", boast)
    async with marketplace(SellerPlan(1), counts=False) as market:
        outcome = (await buy(market)).outcome
        assert outcome is not None
        assert (outcome.prompt_tokens, outcome.cached_tokens) == (4, 4)


async def test_cancelled_job_that_nobody_counted_is_free() -> None:
    plan = SellerPlan(1, script=lambda _: Script(ANSWER, token_s=1.0))
    async with marketplace(plan, counts=False) as market:
        market.sellers[0].engine.counts = False
        async with market.buyer.buy(order()) as job:
            async for event in job.events():
                if isinstance(event, Piece):
                    break
            job_id = job.placement.job_id
        await trio.sleep(0.5)
        sold = await market.sellers[0].ledger.job(job_id, "sold")
        assert sold is not None
        assert (sold.state, sold.prompt_units, sold.completion_units, sold.cost_microcredits) == ("accepted", 0, 0, 0)


async def test_full_engine_is_passed_over_for_the_next_seller() -> None:
    full = Script("", error=EngineError("busy", "the engine behind tiny is busy"))
    cheap = SellerPlan(1, price_in=1, price_out=1, script=lambda _: full)
    async with marketplace(cheap, SellerPlan(2)) as market:
        bought = await buy(market)
        assert bought.text == ANSWER
        assert bought.placement is not None and bought.placement.node_key == market.sellers[1].identity.public_key
    async with marketplace(cheap) as market:
        with pytest.raises(MarketError, match="busy"):
            await buy(market)
