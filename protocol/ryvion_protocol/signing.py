"""Ed25519 for the two things a node signs: typed messages and receipt digests (spec 01).

There is no way to sign arbitrary bytes: a typed input is always longer than the 32 bytes of a receipt digest.
"""

from __future__ import annotations

import nacl.bindings

from ryvion_protocol.constants import HASH_BYTES, SEED_BYTES, SIGNATURE_BYTES
from ryvion_protocol.ed25519 import verify
from ryvion_protocol.errors import SignatureInvalid
from ryvion_protocol.receipt import ReceiptFields, check_own_fields
from ryvion_protocol.schema import NodeKey


def signing_input(message_type: str, body: bytes) -> bytes:
    """What a typed signature is over: domain, type, length and body."""
    return b"ryvion/v1/" + message_type.encode("ascii") + b"\0" + len(body).to_bytes(8, "big") + body


class SigningIdentity:
    """A node's key pair, from its 32-byte seed. Shows its public key only."""

    __slots__ = ("_secret", "public_key")

    def __init__(self, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            raise ValueError(f"a seed has {SEED_BYTES} bytes, not {len(seed)}")
        public, self._secret = nacl.bindings.crypto_sign_seed_keypair(seed)
        self.public_key = NodeKey(public)

    def __repr__(self) -> str:
        return f"SigningIdentity({self.public_key.hex()})"

    def sign_typed(self, message_type: str, body: bytes) -> bytes:
        """Sign a message body; 64 bytes. Raises ValueError for an input as short as a receipt digest."""
        data = signing_input(message_type, body)
        if len(data) <= HASH_BYTES:
            raise ValueError("a typed signature is over more than 32 bytes")
        return self._sign(data)

    def sign_receipt(self, fields: ReceiptFields) -> bytes:
        """Sign a receipt's digest; 64 bytes. Raises ValueError for another node's receipt, PayloadInvalid for a field
        that we never issue.
        """
        if fields.node_key != self.public_key:
            raise ValueError("a receipt is signed by the node it names")
        check_own_fields(fields)
        return self._sign(fields.digest())

    def _sign(self, data: bytes) -> bytes:
        return nacl.bindings.crypto_sign(data, self._secret)[:SIGNATURE_BYTES]


def verify_typed(key: bytes, message_type: str, body: bytes, signature: bytes) -> None:
    """Raise SignatureInvalid unless `signature` is `key`'s over this type and body."""
    data = signing_input(message_type, body)
    if len(data) <= HASH_BYTES:
        raise SignatureInvalid("a typed signature is over more than 32 bytes")
    verify(key, data, signature)
