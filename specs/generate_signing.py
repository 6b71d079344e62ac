"""Vectors of spec 01: typed signatures and the keys we refuse. `python -m specs.generate_signing [--check]`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import nacl.bindings

from ryvion_protocol.codec import pack_value
from ryvion_protocol.packet import pack
from ryvion_protocol.signing import signing_input
from specs.samples import CANCEL, EXECUTOR, OFFER, REQUESTER, SEEDS, STRANGER, WITHDRAW
from specs.vector_form import Vector, main

BODY = pack(WITHDRAW, EXECUTOR).body
GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493
SMALL_ORDER_KEYS = {
    "identity": bytes([1]) + bytes(31),
    "order-2": bytes.fromhex("ec" + "ff" * 30 + "7f"),
    "order-4": bytes(32),
    "order-8": bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
}
NON_CANONICAL_KEY = bytes.fromhex("ee" + "ff" * 30 + "7f")
"""y = 1 written as p + 1."""


def vectors() -> Sequence[Vector]:
    """All vectors of the family, in the order of the file."""
    good = EXECUTOR.sign_typed("withdraw", BODY)
    s = int.from_bytes(good[32:], "little") + GROUP_ORDER
    cases = [
        _typed(
            "typed-ok",
            ("R-01-1",),
            "The sample Withdraw, signed.",
            good,
            gives={"signing_input": signing_input("withdraw", BODY).hex()},
        ),
        _wrong("typed-other-type", "R-01-1", "The same bytes as another type.", good, message_type="offer"),
        _wrong("typed-other-key", "R-01-4", "Signed by somebody else.", STRANGER.sign_typed("withdraw", BODY)),
        _wrong("typed-short", "R-01-2", "63 bytes.", good[:63]),
        _wrong("typed-long", "R-01-2", "65 bytes.", good + b"\0"),
        _wrong("typed-none", "R-01-2", "No signature.", b""),
        _wrong("key-short", "R-01-2", "A key of 31 bytes.", good, key=EXECUTOR.public_key[:31]),
        _wrong("typed-zeros", "R-01-2", "64 zero bytes.", bytes(64)),
        _wrong(
            "typed-malleable",
            "R-01-8",
            "S plus the group order verifies in careless libraries.",
            good[:32] + s.to_bytes(32, "little"),
        ),
        *(
            _wrong(
                f"key-{name}",
                "R-01-3",
                "A key of small order, with a signature that is right for every message in careless libraries.",
                SMALL_ORDER_KEYS["identity"] + bytes(32),
                key=key,
            )
            for name, key in SMALL_ORDER_KEYS.items()
        ),
        _mixed_order(),
        _wrong("key-non-canonical", "R-01-3", "y = p + 1.", bytes([1]) + bytes(63), key=NON_CANONICAL_KEY),
        _wrong("key-no-point", "R-01-3", "y = 2 is on no point of the curve.", good, key=bytes([2]) + bytes(31)),
    ]
    return [*cases, *_packets()]


def _mixed_order() -> Vector:
    """A key with a part of order 2, and a signature by it that the plain equation accepts.

    With A' = aB + T the equation S B = R + h A' holds for S = r + h a whenever h T is neutral, that is for even h.
    """
    half = hashlib.sha512(SEEDS["executor"]).digest()[:32]
    secret = int.from_bytes(half, "little") & (2**254 - 8) | 2**254
    key = nacl.bindings.crypto_core_ed25519_add(EXECUTOR.public_key, SMALL_ORDER_KEYS["order-2"])
    data = signing_input("withdraw", BODY)
    for nonce in range(1, 100):
        point = nacl.bindings.crypto_scalarmult_ed25519_base_noclamp(nonce.to_bytes(32, "little"))
        h = int.from_bytes(hashlib.sha512(point + key + data).digest(), "little") % GROUP_ORDER
        if h % 2 == 0:
            break
    else:
        raise ValueError("no even h among 99")
    signature = point + ((nonce + h * secret) % GROUP_ORDER).to_bytes(32, "little")
    comment = "A point outside the main subgroup, with a signature that most libraries accept."
    return _wrong("key-mixed-order", "R-01-3", comment, signature, key=key)


def _packets() -> list[Vector]:
    offer = pack(OFFER, EXECUTOR)
    flipped = bytes([offer.signature[0] ^ 1]) + offer.signature[1:]
    cancel = pack(CANCEL)
    cases = {
        "signed-ok": ("R-01-4", "A signed offer.", "offer", offer.body, offer.signature, True),
        "signed-flipped-bit": ("R-01-4", "One bit of the signature.", "offer", offer.body, flipped, False),
        "signed-missing": ("R-01-4", "A signed class without its signature.", "offer", offer.body, b"", False),
        "signed-by-other": (
            "R-01-4",
            "Signed by another key than the one it names.",
            "offer",
            offer.body,
            REQUESTER.sign_typed("offer", offer.body),
            False,
        ),
        "unsigned-with-signature": (
            "R-01-5",
            "A class that is not signed, with a signature.",
            "cancel",
            cancel.body,
            EXECUTOR.sign_typed("cancel", cancel.body),
            False,
        ),
    }
    return [
        Vector(
            name,
            (requirement,),
            comment,
            "packet",
            pack_value((message_type, body, signature)),
            ("executor",),
            {"allowed": [message_type]},
            "ok" if good else "signature-invalid",
            "" if good else "signature_invalid",
            {"type": message_type, "hash": offer.hash.hex()} if good else {},
        )
        for name, (requirement, comment, message_type, body, signature, good) in cases.items()
    ]


def _typed(
    name: str,
    requirements: tuple[str, ...],
    comment: str,
    signature: bytes,
    *,
    key: bytes = EXECUTOR.public_key,
    message_type: str = "withdraw",
    gives: dict[str, str] | None = None,
) -> Vector:
    given = {"type": message_type, "key": key.hex(), "signature": signature.hex()}
    if gives is None:
        code = "signature_invalid"
        return Vector(
            name, requirements, comment, "typed-signature", BODY, ("executor",), given, "signature-invalid", code
        )
    return Vector(name, requirements, comment, "typed-signature", BODY, ("executor",), given, gives=gives)


def _wrong(
    name: str,
    requirement: str,
    comment: str,
    signature: bytes,
    *,
    key: bytes = EXECUTOR.public_key,
    message_type: str = "withdraw",
) -> Vector:
    return _typed(name, (requirement,), comment, signature, key=key, message_type=message_type)


if __name__ == "__main__":
    main("01", "signing", vectors)
