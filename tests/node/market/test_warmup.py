"""Idle time spent on what the first order would wait for."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio

from ryvion_node.engine.fake import FakeCounter
from ryvion_node.engine.interface import EngineError
from ryvion_node.market.warmup import Warmup
from ryvion_node.p2p.interface import Stream
from ryvion_protocol.constants import OFFERS_PROTOCOL
from tests.node.market.marketplace import SellerPlan, clock_ms, marketplace

pytestmark = pytest.mark.virtual_time


class Meter(FakeCounter):
    """Says what it was asked to count, or fails."""

    def __init__(self, digests: Sequence[bytes], *, broken: bool = False) -> None:
        super().__init__(digests)
        self.counted: list[bytes] = []
        self.broken = broken

    async def count_texts(self, digest: bytes, texts: Sequence[str]) -> int:
        self.counted.append(digest)
        if self.broken:
            raise EngineError("model_broken", "it does not start")
        return await super().count_texts(digest, texts)


@pytest.mark.parametrize("broken", [False, True])
async def test_sellers_are_met_and_meters_started_once_whatever_fails(broken: bool) -> None:
    met = []

    async def note(stream: Stream) -> None:
        met.append(stream.peer)

    async with marketplace(SellerPlan(1), SellerPlan(2)) as market:
        market.sellers[0].network.serve(OFFERS_PROTOCOL, note)
        market.internet.kill(market.sellers[1].identity.public_key)
        digest = market.book.live(clock_ms())[0].models[0].digest
        meter = Meter([digest], broken=broken)
        own_key = market.buyer_identity.public_key
        market.nursery.start_soon(Warmup(market.network, market.book, meter, own_key, clock_ms).run)
        await trio.sleep(30)
        assert met == [own_key]
        assert meter.counted == [digest]
