"""Executors of embeddings that fail in the middle are replaced: the client has seen nothing, and pays for one answer."""

from __future__ import annotations

import pytest

from ryvion_node.engine.fake import fake_model, fake_vector
from ryvion_node.engine.interface import Embeddings, EngineError
from ryvion_node.market.interface import Done, EmbeddingOrder, MarketError, Taken, VectorsPiece
from tests.node.market.marketplace import Marketplace, SellerPlan, marketplace

pytestmark = pytest.mark.virtual_time

MODEL = fake_model("vectors", kind="embedding", dimensions=16, features=("counted",))
TEXTS = tuple(f"text {number}" for number in range(200))
"""Four lots of at most 64."""
WANTED = EmbeddingOrder("vectors", TEXTS)
CHEAP, DEAR = SellerPlan(1, price_in=1, model=MODEL), SellerPlan(2, model=MODEL)


def break_after(market: Marketplace, lots: int) -> None:
    """The cheap seller's engine dies after so many lots."""
    engine = market.sellers[0].engine
    embed = engine.embed

    async def dying(model: str, texts: tuple[str, ...]) -> Embeddings:
        if len(engine.embedded) == lots:
            raise EngineError("worker_crashed", "it died")
        return await embed(model, texts)

    engine.embed = dying  # type: ignore[method-assign, assignment]


async def test_an_executor_that_dies_in_the_middle_is_replaced_and_not_paid() -> None:
    async with marketplace(CHEAP, DEAR) as market:
        break_after(market, 2)
        events = []
        async with market.buyer.embed(WANTED) as job:
            events = [event async for event in job.events()]
        takers = [event.placement.node_key for event in events if isinstance(event, Taken)]
        assert takers == [seller.identity.public_key for seller in market.sellers]
        last = max(number for number, event in enumerate(events) if isinstance(event, Taken))
        assert any(isinstance(event, VectorsPiece) for event in events[:last])
        values = b"".join(event.values for event in events[last:] if isinstance(event, VectorsPiece))
        assert values == b"".join(fake_vector(text, 16) for text in TEXTS)
        assert isinstance(events[-1], Done)
        assert events[-1].outcome.accepted
        first, second = [event.placement.job_id for event in events if isinstance(event, Taken)]
        broken, done = [await market.ledger.job(job_id, "bought") for job_id in (first, second)]
        assert broken is not None
        assert done is not None
        assert (broken.state, broken.cost_microcredits) == ("failed", 0)
        assert (done.state, done.cost_microcredits) == ("accepted", events[-1].outcome.cost)


async def test_an_executor_that_is_cut_off_in_the_middle_is_replaced() -> None:
    async with marketplace(CHEAP, DEAR) as market:
        market.sellers[0].engine.embed_s = 1.0
        values = b""
        async with market.buyer.embed(WANTED) as job:
            async for event in job.events():
                match event:
                    case Taken():
                        values = b""
                    case VectorsPiece():
                        values += event.values
                        market.internet.kill(market.sellers[0].identity.public_key)
                    case Done():
                        assert event.outcome.accepted
        assert values == b"".join(fake_vector(text, 16) for text in TEXTS)


async def test_without_another_executor_the_client_may_try_again() -> None:
    async with marketplace(CHEAP) as market:
        break_after(market, 1)
        with pytest.raises(MarketError, match="no other executor") as caught:  # noqa: PT012
            async with market.buyer.embed(WANTED) as job:
                async for _ in job.events():
                    pass
        assert caught.value.code == "node_failed"
