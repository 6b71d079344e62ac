"""Spec 03's rules between offers, on the book that the node keeps."""

from __future__ import annotations

from dataclasses import replace

from ryvion_node.market.book import OfferBook
from ryvion_protocol.constants import MAX_OFFER_BYTES, MAX_SYNC_OFFERS, OFFER_MIN_INTERVAL_MS
from ryvion_protocol.framing import FrameDecoder, frame
from ryvion_protocol.messages import Offer
from ryvion_protocol.packet import pack
from ryvion_protocol.schema import NodeKey
from ryvion_protocol.signing import SigningIdentity
from specs.samples import EXECUTOR, NOW_MS, OFFER, STRANGER, WITHDRAW


def raw_offer(seq: int, signer: SigningIdentity = EXECUTOR, **changes: object) -> bytes:
    offer = replace(OFFER, seq=seq, node_key=signer.public_key, **changes)  # type: ignore[arg-type]
    return pack(offer, signer).raw


def book() -> OfferBook:
    return OfferBook("ryvion-main")


def test_only_a_rising_seq_replaces_an_offer() -> None:
    """R-03-7."""
    heard = book()
    later = NOW_MS + OFFER_MIN_INTERVAL_MS
    assert heard.hear(raw_offer(7), NOW_MS, author=EXECUTOR.public_key) is not None
    assert heard.hear(raw_offer(7), later, author=EXECUTOR.public_key) is None
    assert heard.hear(raw_offer(6), later, author=EXECUTOR.public_key) is None
    assert heard.hear(raw_offer(8), later, author=EXECUTOR.public_key) is not None
    assert [offer.seq for offer in heard.live(later)] == [8]


def test_an_offer_of_another_network_or_author_is_dropped() -> None:
    """R-03-8."""
    heard = book()
    assert heard.hear(raw_offer(7, network="test"), NOW_MS, author=EXECUTOR.public_key) is None
    assert heard.hear(raw_offer(7), NOW_MS, author=STRANGER.public_key) is None
    assert heard.live(NOW_MS) == ()


def test_offers_in_quick_succession_are_dropped() -> None:
    """R-03-9."""
    heard = book()
    key = EXECUTOR.public_key
    assert heard.hear(raw_offer(7), NOW_MS, author=key) is not None
    assert heard.hear(raw_offer(8), NOW_MS + OFFER_MIN_INTERVAL_MS - 1, author=key) is None
    assert heard.hear(raw_offer(9), NOW_MS + OFFER_MIN_INTERVAL_MS, author=key) is not None


def test_a_withdrawal_takes_the_offer_away_and_keeps_it_away() -> None:
    """R-03-10."""
    heard = book()
    key = EXECUTOR.public_key
    assert heard.hear(raw_offer(7), NOW_MS, author=key) is not None
    assert heard.hear(pack(WITHDRAW, EXECUTOR).raw, NOW_MS + 1, author=key) is not None
    assert heard.live(NOW_MS + 1) == ()
    assert heard.hear(raw_offer(7), NOW_MS + OFFER_MIN_INTERVAL_MS, author=key) is None


def test_book_sync_is_verified_like_gossip() -> None:
    """R-03-11 and R-03-12: frames of raw packets, each judged by itself, whoever handed them over."""
    sellers = [SigningIdentity(bytes([index]) * 32) for index in range(1, 4)]
    good = [raw_offer(1, seller) for seller in sellers]
    forged = good[0][:-1] + bytes([good[0][-1] ^ 1])
    expired = raw_offer(5, STRANGER, issued_ms=NOW_MS - 400_000, expires_ms=NOW_MS - 300_000)
    stream = b"".join(frame(raw) for raw in (forged, expired, *good))
    heard = book()
    taken = [heard.hear(raw, NOW_MS) for raw in FrameDecoder(MAX_OFFER_BYTES).feed(stream)]
    assert [packet is not None for packet in taken] == [False, False, True, True, True]
    assert {offer.node_key for offer in heard.live(NOW_MS)} == {NodeKey(seller.public_key) for seller in sellers}
    assert [packet.raw for packet in heard.packets(NOW_MS) if isinstance(packet.message, Offer)] == good
    assert MAX_SYNC_OFFERS == 512
