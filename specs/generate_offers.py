"""Vectors of spec 03: offers and withdrawals. `python -m specs.generate_offers [--check]`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ryvion_protocol.codec import encode_body, pack_value
from ryvion_protocol.constants import MAX_CLOCK_SKEW_MS, MAX_OFFER_BYTES, MAX_PRICE
from ryvion_protocol.features import FEATURES
from ryvion_protocol.messages import Offer
from ryvion_protocol.packet import pack
from specs.samples import EXECUTOR, NOW_MS, OFFER, WITHDRAW
from specs.vector_form import JsonValue, Vector, main, plain


def vectors() -> Sequence[Vector]:
    """All vectors of the family, in the order of the file."""
    return [*_packets(), *_times()]


def _packets() -> list[Vector]:
    offer, withdraw = pack(OFFER, EXECUTOR), pack(WITHDRAW, EXECUTOR)
    model = OFFER.models[0]
    many = tuple(replace(model, name=f"model-{index:02}" + "x" * 86, features=tuple(FEATURES)) for index in range(32))

    def able(*features: str) -> Offer:
        return replace(OFFER, models=(replace(model, features=features),))

    unknown = pack(able("seeded", "telepathy"), EXECUTOR)

    def bad(
        name: str, requirement: str, comment: str, changed: Offer, code: str, layer: str = "payload-invalid"
    ) -> Vector:
        given: dict[str, JsonValue] = {"allowed": ["offer", "withdraw"]}
        return Vector(name, (requirement,), comment, "packet", _signed(changed), ("executor",), given, layer, code)

    large = replace(OFFER, models=many)
    if len(_signed(large)) <= MAX_OFFER_BYTES:
        raise ValueError("the large offer is not large enough")
    return [
        *(
            Vector(
                f"{packet.message.TYPE}-ok",
                ("R-03-6", *(("R-03-1",) if packet is offer else ())),
                f"A {type(packet.message).__name__} as it is gossiped.",
                "packet",
                packet.raw,
                ("executor",),
                {"allowed": ["offer", "withdraw"]},
                gives={"type": packet.message.TYPE, "hash": packet.hash.hex(), "fields": plain(packet.message)},
            )
            for packet in (offer, withdraw)
        ),
        bad(
            "offer-lifetime", "R-03-1", "Valid for 120.001 s.", replace(OFFER, expires_ms=NOW_MS + 120_001), "lifetime"
        ),
        bad(
            "offer-no-lifetime", "R-03-1", "It expires as it is issued.", replace(OFFER, expires_ms=NOW_MS), "lifetime"
        ),
        bad(
            "offer-slots",
            "R-03-2",
            "Five free slots of four.",
            replace(OFFER, models=(replace(model, slots_free=5),)),
            "offer_slots",
        ),
        bad("offer-model-twice", "R-03-2", "One name twice.", replace(OFFER, models=(model, model)), "offer_models"),
        Vector(
            "offer-unknown-feature",
            ("R-03-14",),
            "A feature of a later version.",
            "packet",
            unknown.raw,
            ("executor",),
            {"allowed": ["offer", "withdraw"]},
            gives={"type": "offer", "hash": unknown.hash.hex(), "fields": plain(unknown.message)},
        ),
        bad("offer-features-unsorted", "R-03-13", "Features fall.", able("top_k", "seeded"), "features"),
        bad("offer-feature-twice", "R-03-13", "One feature twice.", able("seeded", "seeded"), "features"),
        bad(
            "offer-too-large",
            "R-03-5",
            "32 long model names with all features.",
            large,
            "frame_too_large",
            "framing-error",
        ),
        Vector(
            "offer-price",
            ("R-00-9",),
            "One micro-credit above the highest price.",
            "packet",
            _overpriced(),
            ("executor",),
            {"allowed": ["offer", "withdraw"]},
            "schema-error",
            "schema_invalid",
        ),
        Vector(
            "offer-resigned",
            ("R-03-6",),
            "A price changed under an old signature.",
            "packet",
            pack_value(("offer", encode_body(replace(OFFER, models=(replace(model, price_in=1),))), offer.signature)),
            ("executor",),
            {"allowed": ["offer", "withdraw"]},
            "signature-invalid",
            "signature_invalid",
        ),
    ]


def _times() -> list[Vector]:
    def at(name: str, requirement: str, comment: str, now_ms: int, code: str = "", withdraw: bool = False) -> Vector:
        raw = pack(WITHDRAW if withdraw else OFFER, EXECUTOR).raw
        expect = "payload-invalid" if code else "ok"
        return Vector(
            name, (requirement,), comment, "offer-times", raw, ("executor",), {"now_ms": now_ms}, expect, code
        )

    skew, expires, gone = MAX_CLOCK_SKEW_MS, OFFER.expires_ms, WITHDRAW.issued_ms
    return [
        at("times-earliest", "R-03-3", "Our clock is 120 s behind.", NOW_MS - skew),
        at("times-too-early", "R-03-3", "Our clock is 120.001 s behind.", NOW_MS - skew - 1, "issued_in_future"),
        at("times-latest", "R-03-3", "Expired 119.999 s ago by our clock.", expires + skew - 1),
        at("times-too-late", "R-03-3", "Expired 120 s ago by our clock.", expires + skew, "expired"),
        at("withdraw-latest", "R-03-4", "Issued 120 s ago.", gone + skew, "", True),
        at("withdraw-too-late", "R-03-4", "Issued 120.001 s ago.", gone + skew + 1, "expired", True),
        at("withdraw-too-early", "R-03-4", "120.001 s in the future.", gone - skew - 1, "issued_in_future", True),
    ]


def _signed(offer: Offer) -> bytes:
    body = encode_body(offer)
    return pack_value((offer.TYPE, body, EXECUTOR.sign_typed(offer.TYPE, body)))


def _overpriced() -> bytes:
    """A signed offer with a price that the encoder would refuse."""
    most = replace(OFFER, models=(replace(OFFER.models[0], price_in=MAX_PRICE),))
    body = encode_body(most).replace(pack_value(MAX_PRICE), pack_value(MAX_PRICE + 1))
    return pack_value((Offer.TYPE, body, EXECUTOR.sign_typed(Offer.TYPE, body)))


if __name__ == "__main__":
    main("03", "offers", vectors)
