"""What must hold between the fields of one message; checked on the way out and on the way in (specs 02-04)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ryvion_protocol import constants as limits
from ryvion_protocol.errors import PayloadInvalid
from ryvion_protocol.messages import (
    Acceptance,
    AuditEnvelope,
    Finished,
    JobOffer,
    JobRequest,
    Message,
    Offer,
    Quote,
    QuoteRequest,
)

STATUS_OF_REASON: Final = {
    "stop": "completed",
    "length": "completed",
    "tool_calls": "completed",
    "cancelled": "cancelled",
    "error": "failed",
}
"""Which envelope status goes with which finish reason."""
FINISH_REASONS: Final = tuple(STATUS_OF_REASON)
ROLES: Final = ("system", "user", "assistant", "tool")


def check_payload(message: Message) -> None:
    """Raise PayloadInvalid when the fields of a message contradict each other."""
    rule = _RULES.get(type(message))
    if rule is not None:
        rule(message)


def _require(holds: bool, code: str, message: str) -> None:
    if not holds:
        raise PayloadInvalid(code, message)


def _lifetime(issued_ms: int, expires_ms: int, longest_ms: int) -> None:
    _require(expires_ms > issued_ms, "lifetime", f"it expires {issued_ms - expires_ms} ms before it was issued")
    lifetime_ms = expires_ms - issued_ms
    _require(lifetime_ms <= longest_ms, "lifetime", f"valid for {lifetime_ms} ms, at most {longest_ms} are allowed")


def _offer(offer: Offer) -> None:
    _lifetime(offer.issued_ms, offer.expires_ms, limits.OFFER_LIFETIME_MS)
    for model in offer.models:
        _require(
            model.slots_free <= model.slots_total,
            "offer_slots",
            f"{model.slots_free} of {model.slots_total} slots of {model.name} are free",
        )
    _require(
        len({model.name for model in offer.models}) == len(offer.models), "offer_models", "a model name stands twice"
    )


def _quote_request(request: QuoteRequest) -> None:
    _require(bool(request.model or request.digest), "quote_request_model", "neither model name nor digest is given")


def _quote(quote: Quote) -> None:
    _lifetime(quote.issued_ms, quote.expires_ms, limits.QUOTE_LIFETIME_MS)


def _job_offer(offer: JobOffer) -> None:
    _require(
        offer.version == limits.PROTOCOL_VERSION,
        "version",
        f"version {offer.version}, only {limits.PROTOCOL_VERSION} is known",
    )
    _lifetime(offer.issued_ms, offer.expires_ms, limits.JOB_OFFER_LIFETIME_MS)


def _job_request(request: JobRequest) -> None:
    for message in request.messages:
        _require(message.role in ROLES, "role", f"role {message.role} is none of {', '.join(ROLES)}")


def _finished(finished: Finished) -> None:
    _require(finished.reason in FINISH_REASONS, "finish_reason", f"{finished.reason} is no finish reason")


def _audit_envelope(envelope: AuditEnvelope) -> None:
    _require(envelope.status in STATUS_OF_REASON.values(), "envelope_status", f"{envelope.status} is no status")
    _require(
        envelope.started_ms <= envelope.finished_ms,
        "envelope_times",
        f"it finished {envelope.started_ms - envelope.finished_ms} ms before it started",
    )
    _require(
        envelope.first_token_ms == 0 or envelope.started_ms <= envelope.first_token_ms <= envelope.finished_ms,
        "envelope_times",
        "the first token came outside the job's time",
    )


def _acceptance(acceptance: Acceptance) -> None:
    _require(
        acceptance.accepted == (acceptance.reason == ""), "acceptance_reason", "a reason is given exactly for a dispute"
    )


_RULES: Final[dict[type, Callable[..., None]]] = {
    Offer: _offer,
    QuoteRequest: _quote_request,
    Quote: _quote,
    JobOffer: _job_offer,
    JobRequest: _job_request,
    Finished: _finished,
    AuditEnvelope: _audit_envelope,
    Acceptance: _acceptance,
}
