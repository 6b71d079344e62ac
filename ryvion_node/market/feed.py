"""How offers reach the book: gossip, and book sync with every new peer, so that a newcomer sees the market at once
(spec 03)."""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from ryvion_node.log import log_event
from ryvion_node.market.book import OfferBook
from ryvion_node.market.constants import SYNC_BATCH_OFFERS, SYNC_POLL_S, SYNC_TIMEOUT_S
from ryvion_node.p2p.interface import Network, PeerUnreachable, Stream, StreamBroken
from ryvion_protocol.constants import MAX_OFFER_BYTES, MAX_SYNC_OFFERS, OFFERS_PROTOCOL
from ryvion_protocol.errors import ProtocolError
from ryvion_protocol.framing import FrameDecoder, frame
from ryvion_protocol.messages import Offer
from ryvion_protocol.offers import offers_topic
from ryvion_protocol.packet import Packet
from ryvion_protocol.schema import NodeKey

log = logging.getLogger("ryvion.market.feed")


class OfferFeed:
    """Keeps one `OfferBook` current."""

    def __init__(self, network: Network, network_id: str, book: OfferBook, clock_ms: Callable[[], int]) -> None:
        self._network = network
        self._topic = offers_topic(network_id)
        self._book = book
        self._clock_ms = clock_ms

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen to gossip and sync with new peers until cancelled."""
        self._network.serve(OFFERS_PROTOCOL, self._hand_out)
        await self._network.subscribe(self._topic, self._hear, lambda author, raw: None)
        task_status.started()
        synced: frozenset[NodeKey] = frozenset()
        async with trio.open_nursery() as nursery:
            while True:
                peers = frozenset(self._network.snapshot().peers)
                for peer in peers - synced:
                    nursery.start_soon(self._sync, peer)
                synced = peers
                await trio.sleep(SYNC_POLL_S)

    async def publish(self, packet: Packet) -> None:
        """Put our own offer or withdrawal into our book and the gossip."""
        self._book.hear(packet.raw, self._clock_ms())
        await self._network.publish(self._topic, packet.raw)

    def _hear(self, author: NodeKey, raw: bytes) -> bool:
        """Gossip validator: what the book takes is worth forwarding. Our own has been taken in already."""
        if author == self._network.snapshot().node_key:
            return True
        return self._book.hear(raw, self._clock_ms(), author=author) is not None

    async def _hand_out(self, stream: Stream) -> None:
        """Serve book sync: every live offer as one frame, then the end."""
        packets = self._book.packets(self._clock_ms())[:MAX_SYNC_OFFERS]
        for start in range(0, len(packets), SYNC_BATCH_OFFERS):
            batch = packets[start : start + SYNC_BATCH_OFFERS]
            await stream.send(b"".join(frame(packet.raw) for packet in batch))

    async def _sync(self, peer: NodeKey) -> None:
        """Take over what a new peer knows; its signatures are checked like gossip's."""
        stream: Stream | None = None
        try:
            with trio.fail_after(SYNC_TIMEOUT_S):
                stream = await self._network.open_stream(peer, OFFERS_PROTOCOL)
                taken = await self._read_offers(stream)
        except (PeerUnreachable, StreamBroken, ProtocolError, trio.TooSlowError) as exc:
            log_event(log, "book_sync_failed", peer=peer.hex(), reason=type(exc).__name__)
        else:
            log_event(log, "book_synced", peer=peer.hex(), offers=taken)
        finally:
            if stream is not None:
                await stream.close()

    async def _read_offers(self, stream: Stream) -> int:
        decoder = FrameDecoder(MAX_OFFER_BYTES)
        seen = taken = 0
        while data := await stream.receive():
            for raw in decoder.feed(data):
                seen += 1
                if seen > MAX_SYNC_OFFERS:
                    return taken
                packet = self._book.hear(raw, self._clock_ms())
                if packet is not None and isinstance(packet.message, Offer):
                    self._network.learn_addresses(packet.message.node_key, packet.message.addresses)
                    taken += 1
                await trio.lowlevel.checkpoint()
        return taken
