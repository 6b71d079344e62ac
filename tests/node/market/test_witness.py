"""Whoever orders is told of each node before it gets the prompt, and nothing is sent when that cannot be written down."""

from __future__ import annotations

import pytest

from ryvion_node.engine.fake import Script
from ryvion_node.engine.interface import EngineError
from ryvion_node.market.interface import MarketError, NotRecorded, Recipient
from tests.node.market.marketplace import SellerPlan, buy, marketplace, order

pytestmark = pytest.mark.virtual_time


async def test_every_node_that_is_tried_is_told_of_before_it_gets_the_prompt() -> None:
    broken = SellerPlan(1, "DE", price_out=1, script=lambda request: Script(error=EngineError("worker_crashed", "no")))
    async with marketplace(broken, SellerPlan(2, "CA")) as market:
        told: list[tuple[Recipient, list[int]]] = []

        async def witness(recipient: Recipient) -> None:
            told.append((recipient, [len(seller.engine.requests) for seller in market.sellers]))

        bought = await buy(market, order(witness=witness))
        assert [(one.node_key, one.jurisdiction) for one, _ in told] == [
            (market.sellers[0].identity.public_key, "DE"),
            (market.sellers[1].identity.public_key, "CA"),
        ]
        assert [seen for _, seen in told] == [[0, 0], [1, 0]]
        assert bought.placement is not None
        assert told[-1][0].job_id == bought.placement.job_id


async def test_what_cannot_be_recorded_is_not_sent_and_not_owed() -> None:
    async with marketplace(SellerPlan(1)) as market:

        async def witness(recipient: Recipient) -> None:
            raise NotRecorded("the disk is full")

        with pytest.raises(MarketError, match="cannot record what leaves it: the disk is full") as caught:
            await buy(market, order(witness=witness))
        assert (caught.value.code, caught.value.retry_after_ms) == ("no_capacity", 60_000)
        assert market.sellers[0].engine.requests == []
        assert await market.ledger.unfinished_jobs("bought") == ()
        assert (await buy(market)).outcome is not None
