"""Verification of Ed25519 signatures, stricter than RFC 8032 asks: no key or signature with two readings (spec 01)."""

from __future__ import annotations

from functools import lru_cache

import nacl.bindings
import nacl.exceptions

from ryvion_protocol.constants import KEY_BYTES, MAX_CACHED_KEYS, SIGNATURE_BYTES
from ryvion_protocol.errors import SignatureInvalid


def verify(key: bytes, data: bytes, signature: bytes) -> None:
    """Raise SignatureInvalid unless `signature` is `key`'s over `data`."""
    if len(signature) != SIGNATURE_BYTES:
        raise SignatureInvalid(f"a signature has {SIGNATURE_BYTES} bytes, not {len(signature)}")
    if len(key) != KEY_BYTES:
        raise SignatureInvalid(f"a public key has {KEY_BYTES} bytes, not {len(key)}")
    if not _usable(key):
        raise SignatureInvalid("the public key is no canonical point of the main subgroup")
    try:
        nacl.bindings.crypto_sign_open(signature + data, key)
    except nacl.exceptions.CryptoError:
        raise SignatureInvalid("the signature does not verify") from None


@lru_cache(maxsize=MAX_CACHED_KEYS)
def _usable(key: bytes) -> bool:
    """A key of small order verifies signatures over anything; checked once per key."""
    return bool(nacl.bindings.crypto_core_ed25519_is_valid_point(key))
