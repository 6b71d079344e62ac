"""What the offer book keeps, refuses and forgets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ryvion_node.engine.fake import fake_model
from ryvion_node.executor.announcer import Advert, draw_up_offer
from ryvion_node.market.book import OfferBook
from ryvion_protocol.messages import Hardware, Offer, Withdraw
from ryvion_protocol.packet import Packet, pack
from ryvion_protocol.signing import SigningIdentity

NOW = 1_800_000_000_000
ME = SigningIdentity(b"\x01" * 32)
OTHER = SigningIdentity(b"\x02" * 32)


def offer(now_ms: int = NOW, signer: SigningIdentity = ME, network: str = "test") -> Packet:
    advert = Advert(network, "test", Hardware("gpu", 1, 0, "cuda"), "DE", "", 1, 2)
    packet = draw_up_offer(advert, signer, [fake_model("tiny")], lambda name: 4, ["/ip4/127.0.0.1/tcp/1"], now_ms)
    assert packet is not None
    return packet


def test_offer_lives_until_it_expires() -> None:
    book = OfferBook("test")
    assert book.hear(offer().raw, NOW) is not None
    assert len(book.live(NOW + 119_999)) == 1
    assert book.live(NOW + 120_000) == ()


def test_newer_offer_replaces_an_older_one() -> None:
    book = OfferBook("test")
    book.hear(offer().raw, NOW)
    later = offer(NOW + 30_000)
    assert book.hear(later.raw, NOW + 30_000) is not None
    assert [o.seq for o in book.live(NOW + 30_000)] == [NOW + 30_000]


@pytest.mark.parametrize(
    ("packet", "heard_at", "author"),
    [
        (offer(network="another"), NOW, None),
        (offer(), NOW, OTHER.public_key),
        (offer(NOW + 121_000), NOW, None),
        (offer(NOW - 241_000), NOW, None),
    ],
    ids=["another network", "relayed in another's name", "from the future", "expired"],
)
def test_wrong_offers_are_refused(packet: Packet, heard_at: int, author: bytes | None) -> None:
    assert OfferBook("test").hear(packet.raw, heard_at, author=author) is None  # type: ignore[arg-type]


def test_replay_and_flood_are_refused() -> None:
    book = OfferBook("test")
    assert book.hear(offer().raw, NOW) is not None
    assert book.hear(offer().raw, NOW + 20_000) is None, "the same seq again"
    assert book.hear(offer(NOW + 9_999).raw, NOW + 9_999) is None, "less than 10 s after the last one"
    assert book.hear(offer(NOW + 10_000).raw, NOW + 10_000) is not None


def test_withdrawn_offer_cannot_come_back() -> None:
    book = OfferBook("test")
    old = offer()
    book.hear(old.raw, NOW)
    withdraw = pack(Withdraw("test", ME.public_key, NOW + 1, NOW + 1), ME)
    assert book.hear(withdraw.raw, NOW + 1) is not None
    assert book.live(NOW + 1) == ()
    assert book.hear(old.raw, NOW + 2) is None
    assert book.hear(offer(NOW + 2).raw, NOW + 2) is not None, "a node that came back sells at once"


def test_nobody_withdraws_for_another() -> None:
    book = OfferBook("test")
    book.hear(offer().raw, NOW)
    forged = pack(Withdraw("test", OTHER.public_key, NOW + 1, NOW + 1), OTHER)
    book.hear(forged.raw, NOW + 1)
    assert len(book.live(NOW + 1)) == 1


def test_full_book_takes_no_strangers_but_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ryvion_node.market.book.MAX_BOOK_OFFERS", 2)
    book = OfferBook("test")
    signers = [SigningIdentity(bytes([n]) * 32) for n in (1, 2, 3)]
    for signer in signers:
        book.hear(offer(signer=signer).raw, NOW)
    assert len(book.live(NOW)) == 2
    assert book.hear(offer(NOW + 20_000).raw, NOW + 20_000) is not None
    later = NOW + 10 * 60_000
    assert book.hear(offer(later, signers[2]).raw, later) is not None, "expired entries make room"


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_without_an_exception(data: bytes) -> None:
    assert OfferBook("test").hear(data, NOW) is None


@given(st.integers(min_value=0, max_value=len(offer().raw) * 8 - 1))
def test_one_flipped_bit_makes_an_offer_worthless(bit: int) -> None:
    raw = bytearray(offer().raw)
    raw[bit // 8] ^= 1 << (bit % 8)
    assert OfferBook("test").hear(bytes(raw), NOW) is None


def test_sync_hands_out_what_was_signed() -> None:
    book = OfferBook("test")
    book.hear(offer().raw, NOW)
    (packet,) = book.packets(NOW)
    assert isinstance(packet.message, Offer)
    assert OfferBook("test").hear(packet.raw, NOW) is not None
