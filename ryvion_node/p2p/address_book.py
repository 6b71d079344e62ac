"""Where peers say they can be dialled: hints, bounded, least recently used forgotten."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache

from ryvion_node.p2p.constants import MAX_ADDRESSES_PER_PEER, MAX_KNOWN_PEERS
from ryvion_node.p2p.peer_id import BadAddress, TcpAddress, parse_address
from ryvion_protocol.schema import NodeKey


class AddressBook:
    """Dialable addresses per peer; what cannot be dialled is left out silently, because it is only a hint."""

    def __init__(self, max_peers: int = MAX_KNOWN_PEERS) -> None:
        self._max_peers = max_peers
        self._addresses: OrderedDict[NodeKey, tuple[TcpAddress, ...]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._addresses)

    def learn(self, peer: NodeKey, addresses: Sequence[str]) -> None:
        """Replace what is known about a peer; an announcement without a usable address changes nothing."""
        usable = _usable(peer, tuple(addresses[:MAX_ADDRESSES_PER_PEER]))
        if not usable:
            return
        self._addresses[peer] = usable
        self._addresses.move_to_end(peer)
        if len(self._addresses) > self._max_peers:
            self._addresses.popitem(last=False)

    def addresses(self, peer: NodeKey) -> tuple[TcpAddress, ...]:
        """Where to dial a peer, in the order it gave."""
        known = self._addresses.get(peer, ())
        if known:
            self._addresses.move_to_end(peer)
        return known


@lru_cache(MAX_KNOWN_PEERS)
def _usable(peer: NodeKey, addresses: tuple[str, ...]) -> tuple[TcpAddress, ...]:
    """Each of those that can be dialled, once. The same ones are learnt again with every order."""
    usable: dict[TcpAddress, None] = {}
    for text in addresses:
        try:
            address = parse_address(text)
        except BadAddress:
            continue
        if _is_dialable(address, peer):
            usable[TcpAddress(address.family, address.host, address.port, peer)] = None
    return tuple(usable)


def _is_dialable(address: TcpAddress, peer: NodeKey) -> bool:
    if address.port == 0 or address.peer not in (None, peer):
        return False
    if address.family not in ("ip4", "ip6"):
        return True
    ip = ipaddress.ip_address(address.host)
    return not (ip.is_unspecified or ip.is_multicast)
