"""What must hold between the messages of one job up to its start (spec 04, "Agreeing on a job").

`peer` is the key that the stream was authenticated with, `now_ms` the receiver's own clock.
"""

from __future__ import annotations

from typing import Final

from ryvion_protocol.constants import MAX_CLOCK_SKEW_MS
from ryvion_protocol.errors import PayloadInvalid, SignatureInvalid
from ryvion_protocol.features import needed_features
from ryvion_protocol.job import job_id_of
from ryvion_protocol.messages import (
    EMBEDDING,
    EmbedRequest,
    JobOffer,
    JobRequest,
    Quote,
    QuoteRequest,
    Sampling,
    Started,
)
from ryvion_protocol.money import cost_microcredits
from ryvion_protocol.packet import Packet
from ryvion_protocol.schema import NodeKey

NO_SAMPLING: Final = Sampling(temperature_millionths=0, top_p_millionths=1_000_000, seed=0)
"""What an order of vectors says, where no token is chosen."""


def check_quote(quote: Packet, request: Packet, peer: NodeKey, now_ms: int) -> None:
    """For the requester: does this Quote answer our QuoteRequest? Raises PayloadInvalid or SignatureInvalid."""
    said, asked = _quote_of(quote), _request_of(request)
    _same_key(said.node_key, peer, "quote")
    _require(said.request_hash == request.hash, "request_hash", "the quote answers another request")
    _require(asked.model in ("", said.model), "model", f"asked was {asked.model}, quoted is {said.model}")
    _require(asked.digest in (b"", said.digest), "model", "the quote is for another model file")
    allowed = not asked.jurisdictions or said.jurisdiction in asked.jurisdictions
    _require(allowed, "jurisdiction", f"jurisdiction {said.jurisdiction} was not asked for")
    _require(said.issued_ms <= now_ms + MAX_CLOCK_SKEW_MS, "issued_in_future", "the quote is from the future")
    _require(said.expires_ms > now_ms - MAX_CLOCK_SKEW_MS, "expired", "the quote has expired")


def check_job_offer(job_offer: Packet, quote: Packet, request: Packet, peer: NodeKey, now_ms: int) -> None:
    """For the executor: does this JobOffer take up our Quote? Raises PayloadInvalid or SignatureInvalid."""
    order, said, asked = _order_of(job_offer), _quote_of(quote), _request_of(request)
    _same_key(order.requester_key, peer, "order")
    _require(order.executor_key == said.node_key, "executor_key", "the order is for another executor")
    _require(order.network == asked.network, "network", f"the order is for network {order.network!r}")
    _require(order.quote_hash == quote.hash, "quote_hash", "the order takes up another quote")
    _require((order.model, order.digest) == (said.model, said.digest), "model", "the order is for another model")
    for what, ordered, quoted in (
        ("prompt", order.max_prompt_tokens, asked.prompt_tokens_max),
        ("completion", order.max_completion_tokens, asked.completion_tokens_max),
    ):
        _require(ordered <= quoted, "limits", f"ordered are {ordered} {what} tokens, quoted were {quoted}")
    most = cost_microcredits(
        order.max_prompt_tokens, order.max_completion_tokens, said.price_in, said.price_out, asked.kind
    )
    _require(most <= (order.max_price or most), "limits", f"it may cost {most}, the order pays {order.max_price}")
    _require(said.expires_ms > now_ms, "quote_expired", f"the quote expired {now_ms - said.expires_ms} ms ago")
    _require(order.issued_ms <= now_ms + MAX_CLOCK_SKEW_MS, "issued_in_future", "the order is from the future")
    _require(order.expires_ms > now_ms - MAX_CLOCK_SKEW_MS, "expired", "the order has expired")


def check_job_request(job_request: Packet, job_offer: Packet) -> None:
    """For the executor: is this the request that the JobOffer committed to? Raises PayloadInvalid."""
    committed = _order_of(job_offer).request_commitment == job_request.hash
    _require(committed, "request_commitment", "the order committed to another request")


def check_kind(content: Packet, job_offer: Packet, request: Packet) -> None:
    """For the executor: are these texts to embed exactly when an embedding was quoted? Raises PayloadInvalid."""
    order, asked = _order_of(job_offer), _request_of(request)
    embeds = asked.kind == EMBEDDING
    wanted, found = "EmbedRequest" if embeds else "JobRequest", type(content.message).__name__
    _require(isinstance(content.message, EmbedRequest if embeds else JobRequest), "kind", f"{found}, not {wanted}")
    plain = order.sampling == NO_SAMPLING and order.max_completion_tokens == 0
    _require(plain or not embeds, "embedding_order", "an embedding has no sampling rules and no completion")


def check_features(job_request: Packet, job_offer: Packet, request: Packet) -> None:
    """For the executor: were all features asked for that order and JobRequest need? Raises PayloadInvalid."""
    content = job_request.message
    if isinstance(content, EmbedRequest):
        return
    if not isinstance(content, JobRequest):
        raise TypeError("a JobRequest packet is wanted here")
    asked = _request_of(request).features
    missing = [code for code in needed_features(_order_of(job_offer).sampling, content) if code not in asked]
    _require(not missing, "feature", f"the job needs {', '.join(missing)}, which the quote request did not name")


def check_started(started: Started, job_offer: Packet, quote: Packet) -> None:
    """For the requester: did the job start that was ordered? Raises PayloadInvalid."""
    order, said = _order_of(job_offer), _quote_of(quote)
    _require(started.job_id == job_id_of(job_offer), "job_id", "another job started")
    _require(started.jurisdiction == said.jurisdiction, "jurisdiction", f"it started in {started.jurisdiction}")
    most = order.max_prompt_tokens
    _require(started.prompt_tokens <= most, "limits", f"the prompt has {started.prompt_tokens} tokens, not {most}")


def _require(holds: bool, code: str, message: str) -> None:
    if not holds:
        raise PayloadInvalid(code, message)


def _same_key(named: NodeKey, peer: NodeKey, what: str) -> None:
    if named != peer:
        raise SignatureInvalid(f"the {what} is signed by {named.hex()[:16]}, the stream is with {peer.hex()[:16]}")


def _order_of(packet: Packet) -> JobOffer:
    if not isinstance(packet.message, JobOffer):
        raise TypeError("a JobOffer packet is wanted here")
    return packet.message


def _quote_of(packet: Packet) -> Quote:
    if not isinstance(packet.message, Quote):
        raise TypeError("a Quote packet is wanted here")
    return packet.message


def _request_of(packet: Packet) -> QuoteRequest:
    if not isinstance(packet.message, QuoteRequest):
        raise TypeError("a QuoteRequest packet is wanted here")
    return packet.message
