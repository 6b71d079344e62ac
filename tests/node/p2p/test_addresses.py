"""Peer ids, multiaddrs, the address book and the rate limit: pure, and fed by strangers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ryvion_node.p2p.address_book import AddressBook
from ryvion_node.p2p.constants import MAX_ADDRESSES_PER_PEER
from ryvion_node.p2p.peer_id import BadAddress, key_of, key_of_bytes, parse_address, peer_id_bytes, peer_id_of
from ryvion_node.p2p.rate_limit import RateLimit
from ryvion_protocol.schema import NodeKey

from .conftest import key_for

KEY = key_for(bytes(range(32)))
OTHER = key_for(bytes(range(1, 33)))
KEYS = st.binary(min_size=32, max_size=32).map(NodeKey)


@given(KEYS)
def test_a_key_survives_the_way_through_its_peer_id(key: NodeKey) -> None:
    peer_id = peer_id_of(key)
    assert peer_id.startswith("12D3KooW")
    assert len(peer_id) == 52
    assert key_of(peer_id) == key
    assert key_of_bytes(peer_id_bytes(key)) == key


def test_peer_ids_are_those_of_libp2p() -> None:
    from libp2p.crypto.ed25519 import create_new_key_pair
    from libp2p.peer.id import ID

    theirs = ID.from_pubkey(create_new_key_pair(bytes(range(32))).public_key)
    assert (theirs.to_base58(), theirs.to_bytes()) == (peer_id_of(KEY), peer_id_bytes(KEY))


@given(st.text() | st.text("123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz", max_size=70))
def test_any_text_is_a_key_or_a_bad_address(text: str) -> None:
    try:
        key = key_of(text)
    except BadAddress:
        return
    assert peer_id_of(key) == text


@pytest.mark.parametrize(
    "text",
    [
        "/ip4/127.0.0.1/tcp/7987",
        f"/ip4/203.0.113.7/tcp/65535/p2p/{peer_id_of(KEY)}",
        "/ip6/::1/tcp/0",
        f"/dns4/node.example.org/tcp/443/p2p/{peer_id_of(KEY)}",
    ],
)
def test_addresses_we_dial_are_read_and_written_alike(text: str) -> None:
    assert str(parse_address(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "127.0.0.1:7987",
        "/ip4/127.0.0.1/udp/7987",
        "/ip4/127.0.0.1/tcp/65536",
        "/ip4/127.0.0.1/tcp/-1",
        "/ip4/127.0.0.1/tcp/07987",
        "/ip4/127.0.0.1/tcp/\u0661",
        "/ip4/256.0.0.1/tcp/1",
        "/ip4/::1/tcp/1",
        "/ip6/fe80::1%eth0/tcp/1",
        "/ip4/127.0.0.1/tcp/1/ws",
        "/ip4/127.0.0.1/tcp/1/p2p/",
        "/ip4/127.0.0.1/tcp/1/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",
        "/ip4/127.0.0.1/tcp/1/p2p/" + "z" * 5000,
        "/unix/tmp/tcp/1",
        "/dns4/a..b/tcp/1",
        "/dns4/a b/tcp/1",
        "/dns4//tcp/1",
    ],
)
def test_other_addresses_are_refused(text: str) -> None:
    with pytest.raises(BadAddress):
        parse_address(text)


@given(st.text() | st.lists(st.sampled_from(["", "ip4", "tcp", "p2p", "1.2.3.4", "::", "7987", "x"])).map("/".join))
def test_any_text_is_an_address_or_a_bad_address(text: str) -> None:
    try:
        address = parse_address(text)
    except BadAddress:
        return
    assert parse_address(str(address)) == address


def test_the_book_keeps_only_what_can_be_dialled() -> None:
    book = AddressBook()
    book.learn(
        KEY,
        [
            "/ip4/192.0.2.1/tcp/1",
            f"/ip4/192.0.2.1/tcp/1/p2p/{peer_id_of(KEY)}",
            f"/ip4/192.0.2.2/tcp/1/p2p/{peer_id_of(OTHER)}",
            "/ip4/0.0.0.0/tcp/1",
            "/ip6/::/tcp/1",
            "/ip4/224.0.0.1/tcp/1",
            "/ip4/192.0.2.3/tcp/0",
            "nonsense",
        ],
    )
    assert [str(address) for address in book.addresses(KEY)] == [f"/ip4/192.0.2.1/tcp/1/p2p/{peer_id_of(KEY)}"]
    book.learn(KEY, ["nonsense"])
    assert len(book.addresses(KEY)) == 1
    book.learn(KEY, ["/ip4/192.0.2.9/tcp/9"])
    assert [address.host for address in book.addresses(KEY)] == ["192.0.2.9"]
    assert book.addresses(OTHER) == ()


def test_the_book_is_bounded_per_peer_and_forgets_who_is_not_asked_for() -> None:
    book = AddressBook(max_peers=3)
    book.learn(KEY, [f"/ip4/192.0.2.1/tcp/{port}" for port in range(1, 100)])
    assert len(book.addresses(KEY)) == MAX_ADDRESSES_PER_PEER
    for number in range(1, 20):
        book.learn(key_for(bytes([number]) * 32), ["/ip4/192.0.2.1/tcp/1"])
        assert book.addresses(KEY)
        assert len(book) <= 3


def test_a_rate_is_a_burst_and_then_a_trickle_per_key() -> None:
    limit = RateLimit(burst=3, per_s=0.5, max_keys=2)
    assert [limit.admit(KEY, 0.0) for _ in range(4)] == [True, True, True, False]
    assert limit.admit(OTHER, 0.0)
    assert not limit.admit(KEY, 1.0)
    assert limit.admit(KEY, 2.0)
    assert not limit.admit(KEY, 1.0), "a clock that steps back gives nothing"


@given(st.lists(st.tuples(KEYS, st.floats(0, 1e6))), st.integers(1, 5))
def test_the_table_of_rates_is_bounded(events: list[tuple[NodeKey, float]], max_keys: int) -> None:
    limit = RateLimit(max_keys=max_keys)
    for key, now_s in events:
        limit.admit(key, now_s)
        assert len(limit) <= max_keys
