"""The offers a node has heard: the newest one of each seller, until it expires or is withdrawn (spec 03)."""

from __future__ import annotations

from dataclasses import dataclass

from ryvion_node.market.constants import MAX_BOOK_OFFERS
from ryvion_protocol.constants import MAX_CLOCK_SKEW_MS, OFFER_MIN_INTERVAL_MS
from ryvion_protocol.errors import ProtocolError
from ryvion_protocol.messages import Offer, Withdraw
from ryvion_protocol.offers import check_offer_times, check_withdraw_times
from ryvion_protocol.packet import Packet, unpack
from ryvion_protocol.schema import NodeKey


@dataclass(slots=True)
class _Entry:
    seq: int
    heard_ms: int
    """When the newest offer came, by our clock."""
    packet: Packet | None
    """None after a Withdraw: the seq stays, so that an old offer cannot come back."""
    forget_ms: int


class OfferBook:
    """Decides which gossip is worth keeping and forwarding. Synchronous and without a clock of its own."""

    def __init__(self, network: str) -> None:
        self._network = network
        self._entries: dict[NodeKey, _Entry] = {}

    def hear(self, raw: bytes, now_ms: int, *, author: NodeKey | None = None) -> Packet | None:
        """Take in one gossiped packet; None when it is invalid, stale or too frequent.

        `author` is the key that the transport authenticated; None for book sync, where the signature alone counts.
        """
        try:
            packet = unpack(raw, (Offer, Withdraw))
            message = packet.message
            if not isinstance(message, Offer | Withdraw):
                return None
            if isinstance(message, Offer):
                check_offer_times(message, now_ms)
            else:
                check_withdraw_times(message, now_ms)
        except ProtocolError:
            return None
        if message.network != self._network or (author is not None and message.node_key != author):
            return None
        return packet if self._keep(packet, message, now_ms) else None

    def _keep(self, packet: Packet, message: Offer | Withdraw, now_ms: int) -> bool:
        entry = self._entries.get(message.node_key)
        if entry is not None and message.seq <= entry.seq:
            return False
        if isinstance(message, Withdraw):
            if not self._has_room(message.node_key, now_ms):
                return False
            self._entries[message.node_key] = _Entry(message.seq, now_ms, None, now_ms + 2 * MAX_CLOCK_SKEW_MS)
            return True
        too_soon = entry is not None and entry.packet is not None and now_ms - entry.heard_ms < OFFER_MIN_INTERVAL_MS
        if too_soon or not self._has_room(message.node_key, now_ms):
            return False
        # A seller's seq is remembered for as long as one of its older offers could still pass the time check.
        forget_ms = message.expires_ms + 2 * MAX_CLOCK_SKEW_MS
        self._entries[message.node_key] = _Entry(message.seq, now_ms, packet, forget_ms)
        return True

    def _has_room(self, key: NodeKey, now_ms: int) -> bool:
        if key in self._entries or len(self._entries) < MAX_BOOK_OFFERS:
            return True
        self._entries = {k: entry for k, entry in self._entries.items() if entry.forget_ms > now_ms}
        return len(self._entries) < MAX_BOOK_OFFERS

    def live(self, now_ms: int) -> tuple[Offer, ...]:
        """Offers that have not expired, newest first."""
        return tuple(packet.message for packet in self.packets(now_ms) if isinstance(packet.message, Offer))

    def packets(self, now_ms: int) -> tuple[Packet, ...]:
        """The signed packets of the live offers, newest first: what book sync hands to a newcomer."""
        entries = sorted(self._entries.values(), key=lambda entry: -entry.heard_ms)
        return tuple(
            entry.packet
            for entry in entries
            if entry.packet is not None
            and isinstance(entry.packet.message, Offer)
            and entry.packet.message.expires_ms > now_ms
        )
