"""Spends idle time so that no order waits for it: connections to sellers, and the meters of their models."""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from ryvion_node.engine.interface import EngineError, TokenCounter
from ryvion_node.log import log_event
from ryvion_node.market.book import OfferBook
from ryvion_node.market.constants import MAX_WARM_METERS, MAX_WARM_SELLERS, WARMUP_POLL_S, WARMUP_TIMEOUT_S
from ryvion_node.p2p.interface import Network, PeerUnreachable, StreamBroken
from ryvion_protocol.constants import OFFERS_PROTOCOL
from ryvion_protocol.schema import NodeKey

log = logging.getLogger("ryvion.market.warmup")


class Warmup:
    """Watches the book; the first sellers and tokenizers it sees are made ready once each."""

    def __init__(
        self, network: Network, book: OfferBook, counter: TokenCounter, own_key: NodeKey, clock_ms: Callable[[], int]
    ) -> None:
        self._network = network
        self._book = book
        self._counter = counter
        self._clock_ms = clock_ms
        self._sellers = {own_key}
        self._digests: set[bytes] = set()

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                for offer in self._book.live(self._clock_ms()):
                    if offer.node_key not in self._sellers and len(self._sellers) <= MAX_WARM_SELLERS:
                        self._sellers.add(offer.node_key)
                        self._network.learn_addresses(offer.node_key, offer.addresses)
                        nursery.start_soon(self._meet, offer.node_key)
                    for digest in {model.digest for model in offer.models} - self._digests:
                        if self._counter.knows(digest) and len(self._digests) < MAX_WARM_METERS:
                            self._digests.add(digest)
                            nursery.start_soon(self._start_meter, digest)
                await trio.sleep(WARMUP_POLL_S)

    async def _meet(self, seller: NodeKey) -> None:
        """Dial the seller; asking for its book costs no more than any other word."""
        with trio.move_on_after(WARMUP_TIMEOUT_S):
            try:
                stream = await self._network.open_stream(seller, OFFERS_PROTOCOL)
            except PeerUnreachable:
                return
            try:
                await stream.receive()
            except StreamBroken as exc:
                log_event(log, "seller_not_met", peer=seller.hex(), reason=str(exc))
            finally:
                await stream.close()

    async def _start_meter(self, digest: bytes) -> None:
        try:
            await self._counter.count_texts(digest, [""])
        except EngineError as exc:
            log_event(log, "meter_not_started", code=exc.code)
