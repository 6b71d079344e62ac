"""Node key <-> libp2p peer id, and multiaddrs, without importing libp2p.

A peer id is the base58btc text of a multihash. For Ed25519 it is the identity multihash (code 0x00) of the
protobuf PublicKey{type: Ed25519, data: 32 bytes}: 6 fixed bytes, then the key. Source: libp2p specs, peer-ids.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache

from ryvion_node.p2p.constants import MAX_ADDRESS_BYTES, MAX_PEER_IDS_KEPT
from ryvion_protocol.schema import NodeKey

_ED25519_PREFIX = bytes.fromhex("002408011220")
"""Multihash identity, length 36; protobuf field 1 = 1 (Ed25519), field 2 = 32 bytes."""
_HEX_KEY = re.compile(r"[0-9a-f]{64}")
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BASE58_VALUE = {char: value for value, char in enumerate(_BASE58)}
_MAX_PEER_ID_CHARS = 64
"""An Ed25519 peer id has 52; base58 is quadratic, so the length is capped before it is decoded."""


class BadAddress(ValueError):
    """Not a peer id or multiaddr that this node can use."""


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A parsed `/ip4|ip6/<ip>/tcp/<port>[/p2p/<peer id>]` (or `/dns4|dns6|dns/<name>/...`)."""

    family: str
    host: str
    port: int
    peer: NodeKey | None

    @property
    def dial_part(self) -> str:
        """The multiaddr without the peer id."""
        return f"/{self.family}/{self.host}/tcp/{self.port}"

    def __str__(self) -> str:
        return self.dial_part if self.peer is None else f"{self.dial_part}/p2p/{peer_id_of(self.peer)}"


def peer_id_bytes(key: NodeKey) -> bytes:
    """The 38-byte multihash of a 32-byte node key."""
    if len(key) != 32:
        raise BadAddress(f"a node key has 32 bytes, not {len(key)}")
    return _ED25519_PREFIX + key


def key_of_bytes(raw: bytes) -> NodeKey:
    """The node key inside a 38-byte multihash; raises BadAddress for every other kind of peer id."""
    if len(raw) != len(_ED25519_PREFIX) + 32 or not raw.startswith(_ED25519_PREFIX):
        raise BadAddress("not the peer id of an Ed25519 key")
    return NodeKey(raw[len(_ED25519_PREFIX) :])


@lru_cache(maxsize=MAX_PEER_IDS_KEPT)
def peer_id_of(key: NodeKey) -> str:
    """The peer id as people see it: `12D3KooW...`."""
    return _base58_encode(peer_id_bytes(key))


def key_of(peer_id: str) -> NodeKey:
    """The node key behind a `12D3KooW...` peer id; raises BadAddress."""
    return key_of_bytes(_base58_decode(peer_id))


def parse_node(text: str) -> NodeKey:
    """A node as people name it, by its key in hex or its peer id; raises BadAddress."""
    if _HEX_KEY.fullmatch(text):
        return NodeKey(bytes.fromhex(text))
    try:
        return key_of(text)
    except BadAddress:
        raise BadAddress("a node is named by its key, 64 lowercase hex digits, or its peer id (12D3KooW...)") from None


def parse_address(text: str) -> TcpAddress:
    """Read a multiaddr of the only shapes we dial; raises BadAddress for everything else."""
    if len(text) > MAX_ADDRESS_BYTES or not text.isascii():
        raise BadAddress("multiaddr too long or not ASCII")
    parts = text.split("/")
    if len(parts) not in (5, 7) or parts[0] != "" or parts[3] != "tcp":
        raise BadAddress(f"not a /ip4/.../tcp/... multiaddr: {text[:80]!r}")
    peer: NodeKey | None = None
    if len(parts) == 7:
        if parts[5] != "p2p":
            raise BadAddress(f"only /p2p may follow the port: {text[:80]!r}")
        peer = key_of(parts[6])
    return TcpAddress(parts[1], _host(parts[1], parts[2]), _port(parts[4]), peer)


def _host(family: str, host: str) -> str:
    try:
        match family:
            case "ip4":
                return str(ipaddress.IPv4Address(host))
            case "ip6":
                address = ipaddress.IPv6Address(host)
                if address.scope_id is not None:
                    raise BadAddress("a scoped address means nothing to others")
                return str(address)
    except ValueError as exc:
        raise BadAddress(f"not an address of family {family}: {host!r}") from exc
    if family not in ("dns", "dns4", "dns6"):
        raise BadAddress(f"unknown address family {family[:16]!r}")
    labels = host.removesuffix(".").split(".")
    if not all(0 < len(label) < 64 and label.replace("-", "a").isalnum() for label in labels):
        raise BadAddress(f"not a host name: {host!r}")
    return host


def _port(text: str) -> int:
    if not (1 <= len(text) <= 5 and text.isdecimal() and int(text) <= 65535 and str(int(text)) == text):
        raise BadAddress(f"not a port: {text[:16]!r}")
    return int(text)


def _base58_encode(raw: bytes) -> str:
    number = int.from_bytes(raw, "big")
    digits: list[str] = []
    while number:
        number, digit = divmod(number, 58)
        digits.append(_BASE58[digit])
    zeros = len(raw) - len(raw.lstrip(b"\0"))
    return "1" * zeros + "".join(reversed(digits))


def _base58_decode(text: str) -> bytes:
    if not 1 <= len(text) <= _MAX_PEER_ID_CHARS:
        raise BadAddress("not a peer id: wrong length")
    number = 0
    for char in text:
        if char not in _BASE58_VALUE:
            raise BadAddress(f"not a peer id: {char!r} is not a base58 digit")
        number = number * 58 + _BASE58_VALUE[char]
    zeros = len(text) - len(text.lstrip("1"))
    return b"\0" * zeros + number.to_bytes((number.bit_length() + 7) // 8, "big")
