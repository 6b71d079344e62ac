"""Offers over time: announced, refreshed, changed, withdrawn; and how they reach nodes that come late."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio

from ryvion_node.engine.fake import fake_model
from ryvion_node.executor.announcer import Advert, Announcer, draw_up_offer
from ryvion_node.market.book import OfferBook
from ryvion_node.market.feed import OfferFeed
from ryvion_node.p2p.fake import FakeInternet, FakeNetwork
from ryvion_node.p2p.interface import Stream
from ryvion_protocol.constants import OFFERS_PROTOCOL
from ryvion_protocol.framing import frame
from ryvion_protocol.messages import Hardware, Offer, Withdraw
from ryvion_protocol.packet import Packet
from tests.node.market.marketplace import NETWORK, clock_ms, identity

pytestmark = pytest.mark.virtual_time

ADVERT = Advert(NETWORK, "test", Hardware("gpu", 1, 0, "cuda"), "DE", "", 1, 2)


class Stand:
    """What an announcer announces, and what it published when."""

    def __init__(self, seed: int = 1) -> None:
        self.me = identity(seed)
        self.models = (fake_model("tiny"),)
        self.free = 4
        self.published: list[tuple[float, Packet]] = []

    def draw_up(self, now_ms: int) -> Packet | None:
        return draw_up_offer(ADVERT, self.me, self.models, lambda name: self.free, [], now_ms)

    async def publish(self, packet: Packet) -> None:
        self.published.append((trio.current_time(), packet))

    def announcer(self) -> Announcer:
        return Announcer(self.draw_up, self.publish, self.me, NETWORK, clock_ms)

    @property
    def times(self) -> list[float]:
        start = self.published[0][0]
        return [at - start for at, _ in self.published]


async def test_offer_is_announced_refreshed_and_withdrawn() -> None:
    stand = Stand()
    async with trio.open_nursery() as nursery:
        await nursery.start(stand.announcer().run)
        await trio.sleep(200)
        nursery.cancel_scope.cancel()
    *offers, last = [packet.message for _, packet in stand.published]
    assert all(isinstance(offer, Offer) for offer in offers)
    assert isinstance(last, Withdraw)
    assert stand.times[:2] == [0, 1]
    gaps = [later - earlier for earlier, later in zip(stand.times[1:-1], stand.times[2:-1], strict=False)]
    assert gaps
    assert all(28 <= gap <= 46 for gap in gaps)
    seqs = [packet.message.seq for _, packet in stand.published]  # type: ignore[union-attr]
    assert seqs == sorted(set(seqs))


async def test_becoming_full_is_announced_once_the_market_takes_it() -> None:
    stand = Stand()
    async with trio.open_nursery() as nursery:
        await nursery.start(stand.announcer().run)
        await trio.sleep(2)
        stand.free = 0
        await trio.sleep(12)
        nursery.cancel_scope.cancel()
    offers = [packet.message for _, packet in stand.published if isinstance(packet.message, Offer)]
    assert [offer.models[0].slots_free for offer in offers] == [4, 4, 0]
    assert stand.times[2] - stand.times[1] >= 10


async def test_withdrawn_model_takes_the_offer_with_it() -> None:
    stand = Stand()
    async with trio.open_nursery() as nursery:
        await nursery.start(stand.announcer().run)
        await trio.sleep(2)
        stand.models = ()
        await trio.sleep(15)
        stand.models = (fake_model("tiny"),)
        await trio.sleep(15)
        nursery.cancel_scope.cancel()
    kinds = [type(packet.message) for _, packet in stand.published]
    assert kinds == [Offer, Offer, Withdraw, Offer, Withdraw]


class Listener:
    """A node with a book that is kept current."""

    def __init__(self, network: FakeNetwork) -> None:
        self.network = network
        self.book = OfferBook(NETWORK)
        self.feed = OfferFeed(network, NETWORK, self.book, clock_ms)

    def hears(self) -> list[bytes]:
        return [bytes(offer.node_key) for offer in self.book.live(clock_ms())]


async def test_offer_travels_through_the_middle_and_is_gone_when_withdrawn() -> None:
    internet = FakeInternet(everyone_linked=False)
    middle, seller, buyer = identity(10), identity(1), identity(2)
    async with trio.open_nursery() as nursery:
        nodes = [
            Listener(internet.node(key.public_key, bootstrap))
            for key, bootstrap in ((middle, ()), (seller, (middle.public_key,)), (buyer, (middle.public_key,)))
        ]
        for node in nodes:
            await nursery.start(node.network.run)
            await nursery.start(node.feed.run)
        await trio.sleep(2)
        stand = Stand(1)
        announcing = Announcer(stand.draw_up, nodes[1].feed.publish, seller, NETWORK, clock_ms)
        selling = trio.CancelScope()
        nursery.start_soon(_run_in, selling, announcing)
        await trio.sleep(3)
        assert nodes[2].hears() == [seller.public_key]
        selling.cancel()
        await trio.sleep(1)
        assert nodes[2].hears() == []
        nursery.cancel_scope.cancel()


async def _run_in(scope: trio.CancelScope, announcer: Announcer) -> None:
    with scope:
        await announcer.run()


async def test_newcomer_gets_the_book_from_its_first_peer() -> None:
    internet = FakeInternet()
    old, new = identity(10), identity(11)
    async with trio.open_nursery() as nursery:
        first = Listener(internet.node(old.public_key))
        await nursery.start(first.network.run)
        await nursery.start(first.feed.run)
        for seed in (1, 2, 3):
            offer = Stand(seed).draw_up(clock_ms())
            assert offer is not None
            first.book.hear(offer.raw, clock_ms())
        second = Listener(internet.node(new.public_key))
        await nursery.start(second.network.run)
        await nursery.start(second.feed.run)
        await trio.sleep(1)
        assert len(second.hears()) == 3
        nursery.cancel_scope.cancel()


async def test_book_sync_survives_a_lying_peer() -> None:
    internet = FakeInternet()
    liar, new = identity(10), identity(11)
    genuine = Stand(1).draw_up(clock_ms())
    assert genuine is not None
    forged = bytearray(genuine.raw)
    forged[-1] ^= 1

    async def lie(stream: Stream) -> None:
        await stream.send(frame(bytes(forged)) + frame(b"junk") + frame(genuine.raw) + (2**31).to_bytes(4, "big"))

    async with trio.open_nursery() as nursery:
        network = internet.node(liar.public_key)
        network.serve(OFFERS_PROTOCOL, lie)
        await nursery.start(network.run)
        listener = Listener(internet.node(new.public_key))
        await nursery.start(listener.network.run)
        await nursery.start(listener.feed.run)
        await trio.sleep(1)
        assert listener.hears() == [identity(1).public_key]
        nursery.cancel_scope.cancel()


async def test_offer_of_another_network_is_not_taken() -> None:
    other = draw_up_offer(
        replace(ADVERT, network="elsewhere"), identity(1), (fake_model("tiny"),), lambda name: 1, [], clock_ms()
    )
    assert other is not None
    assert OfferBook(NETWORK).hear(other.raw, clock_ms()) is None


async def test_offer_names_as_many_models_as_fit() -> None:
    models = [fake_model(f"{number:02}-" + "n" * 90) for number in range(40)]
    packet = draw_up_offer(ADVERT, identity(1), models, lambda name: 1, [], clock_ms())
    assert packet is not None
    assert isinstance(packet.message, Offer)
    assert 10 < len(packet.message.models) < 32
    assert OfferBook(NETWORK).hear(packet.raw, clock_ms()) is not None
