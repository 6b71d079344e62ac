"""Offers against the clock: `now_ms` is the receiver's own (spec 03, "Times")."""

from __future__ import annotations

from ryvion_protocol.constants import MAX_CLOCK_SKEW_MS, OFFERS_PROTOCOL
from ryvion_protocol.errors import PayloadInvalid
from ryvion_protocol.messages import Offer, Withdraw


def offers_topic(network: str) -> str:
    """The gossip topic of a market's offers (spec 03, "Gossip")."""
    return f"{OFFERS_PROTOCOL}/{network}"


def check_offer_times(offer: Offer, now_ms: int) -> None:
    """Raise PayloadInvalid for an offer from the future, or one that has expired."""
    _check_not_early(offer.issued_ms, now_ms)
    if offer.expires_ms <= now_ms - MAX_CLOCK_SKEW_MS:
        raise PayloadInvalid("expired", f"it expired {now_ms - offer.expires_ms} ms ago")


def check_withdraw_times(withdraw: Withdraw, now_ms: int) -> None:
    """Raise PayloadInvalid for a withdrawal that is outside the allowed clock skew."""
    _check_not_early(withdraw.issued_ms, now_ms)
    if withdraw.issued_ms < now_ms - MAX_CLOCK_SKEW_MS:
        raise PayloadInvalid("expired", f"it was issued {now_ms - withdraw.issued_ms} ms ago")


def _check_not_early(issued_ms: int, now_ms: int) -> None:
    if issued_ms > now_ms + MAX_CLOCK_SKEW_MS:
        raise PayloadInvalid("issued_in_future", f"it is dated {issued_ms - now_ms} ms after our clock")
