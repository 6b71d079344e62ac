"""The signed order of one job: JobOffer and JobRequest from an order and a quote (pure; spec 04)."""

from __future__ import annotations

from dataclasses import dataclass

from ryvion_node.market.constants import DEFAULT_MAX_COMPLETION_TOKENS
from ryvion_node.market.interface import Account, Order, Witness
from ryvion_node.market.selection import Bid
from ryvion_node.market.wanted import most_completion, request_of, sampling_of
from ryvion_protocol.constants import JOB_OFFER_LIFETIME_MS, PRICE_UNIT_TOKENS, PROTOCOL_VERSION
from ryvion_protocol.job import job_id_of
from ryvion_protocol.messages import JobOffer
from ryvion_protocol.money import cost_microcredits
from ryvion_protocol.packet import Packet, pack
from ryvion_protocol.schema import JobId
from ryvion_protocol.signing import SigningIdentity


@dataclass(frozen=True, slots=True)
class Randomness:
    """Fresh random bytes for one job, drawn by the caller."""

    nonce: bytes
    salt: bytes
    seed: int
    """Used when the order fixes none."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What both sides sign up to, and for whom."""

    job_id: JobId
    account: Account
    max_price: int
    """Micro-credits."""
    job_offer: Packet
    job_request: Packet
    quote: Packet
    lifetime_s: float
    must_be_counted: bool
    """Nothing is settled that we cannot count ourselves."""
    witness: Witness | None = None


def draw_up(
    order: Order,
    bid: Bid,
    quote: Packet,
    identity: SigningIdentity,
    network_id: str,
    now_ms: int,
    random: Randomness,
) -> Terms:
    """Commit to prompt, model, sampling, limits and both parties; the job id is the hash of it all."""
    request = pack(request_of(order, random.salt))
    prompt = bid.eligible.prompt_limit
    completion = min(most_completion(order) or DEFAULT_MAX_COMPLETION_TOKENS, bid.eligible.completion_room)
    completion = min(completion, _affordable(order.max_price, prompt, bid))
    limit = cost_microcredits(prompt, completion, bid.quote.price_in, bid.quote.price_out, order.kind)
    offer = JobOffer(
        version=PROTOCOL_VERSION,
        network=network_id,
        requester_key=identity.public_key,
        executor_key=bid.quote.node_key,
        nonce=random.nonce,
        quote_hash=quote.hash,
        model=bid.quote.model,
        digest=bid.quote.digest,
        request_commitment=request.hash,
        sampling=sampling_of(order, random.seed),
        max_prompt_tokens=prompt,
        max_completion_tokens=completion,
        max_price=limit,
        issued_ms=now_ms,
        expires_ms=now_ms + JOB_OFFER_LIFETIME_MS,
    )
    packet = pack(offer, identity)
    return Terms(
        job_id=job_id_of(packet),
        account=order.account,
        max_price=limit,
        job_offer=packet,
        job_request=request,
        quote=quote,
        lifetime_s=JOB_OFFER_LIFETIME_MS / 1000,
        must_be_counted=order.preferences.min_assurance == "count-checked",
        witness=order.witness,
    )


def _affordable(max_price: int | None, prompt: int, bid: Bid) -> int:
    """Completion tokens that the limit pays for besides the whole prompt, so that no answer can pass it."""
    if max_price is None or bid.quote.price_out == 0:
        return bid.eligible.completion_room
    return max(0, max_price * PRICE_UNIT_TOKENS - prompt * bid.quote.price_in) // bid.quote.price_out
