"""What an order asks of whoever runs it, in the words of the wire (pure; spec 04)."""

from __future__ import annotations

from ryvion_node.market.constants import EXPECTED_COMPLETION_TOKENS
from ryvion_node.market.interface import ANY_TEXT, NO_TOOLS, ChatOrder, EmbeddingOrder, Order
from ryvion_protocol import features
from ryvion_protocol.agreement import NO_SAMPLING
from ryvion_protocol.merkle import merkle_root
from ryvion_protocol.messages import EmbedRequest, JobRequest, Sampling
from ryvion_protocol.zigzag import zigzag


def needed_features(order: Order) -> tuple[str, ...]:
    """What an executor must be able to do for this order, in rising order (spec 03, "Features")."""
    if isinstance(order, EmbeddingOrder):
        return order.features
    follow = features.needed_features(sampling_of(order, 0), job_request(order, bytes(16)))
    return tuple(sorted({*follow, *order.features}))


def wants_grammar(order: Order) -> bool:
    """May an executor have to hold the answer, or calls in it, to a grammar?"""
    return isinstance(order, ChatOrder) and (order.output != ANY_TEXT or order.tools != NO_TOOLS)


def most_completion(order: Order) -> int | None:
    """Tokens that the order asks for at most."""
    return 0 if isinstance(order, EmbeddingOrder) else order.max_completion_tokens


def expected_completion(order: Order) -> int:
    """Tokens that bids are compared at."""
    most = most_completion(order)
    return EXPECTED_COMPLETION_TOKENS if most is None else min(most, EXPECTED_COMPLETION_TOKENS)


def request_of(order: Order, salt: bytes) -> JobRequest | EmbedRequest:
    """What follows the JobOffer."""
    if isinstance(order, EmbeddingOrder):
        return EmbedRequest(salt, order.texts)
    return job_request(order, salt)


def job_request(order: ChatOrder, salt: bytes) -> JobRequest:
    """The prompt, and what the answer must be."""
    return JobRequest(
        salt=salt,
        messages=order.messages,
        stop=order.stop,
        chunk_hashes=order.chunk_hashes,
        chunk_root=merkle_root(order.chunk_hashes),
        tools=order.tools,
        output=order.output,
        logit_bias=order.logit_bias,
        logprobs=order.logprobs is not None,
        top_logprobs=order.logprobs or 0,
    )


def sampling_of(order: Order, seed: int) -> Sampling:
    """How tokens are chosen; `seed` when the order fixes none."""
    if isinstance(order, EmbeddingOrder):
        return NO_SAMPLING
    return Sampling(
        temperature_millionths=_millionths(order.temperature),
        top_p_millionths=max(1, _millionths(order.top_p)),
        seed=seed if order.seed is None else order.seed,
        top_k=order.top_k,
        min_p_millionths=_millionths(order.min_p),
        presence_penalty=zigzag(_millionths(order.presence_penalty)),
        frequency_penalty=zigzag(_millionths(order.frequency_penalty)),
        repetition_penalty_millionths=_millionths(order.repetition_penalty),
    )


def _millionths(number: float) -> int:
    return round(number * 1_000_000)
