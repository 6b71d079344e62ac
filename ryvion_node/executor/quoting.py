"""The executor's bid: a pure decision from what is asked and what there is (spec 04)."""

from __future__ import annotations

from dataclasses import dataclass

from ryvion_node.engine.interface import EngineModel
from ryvion_node.executor.constants import HELD_RETRY_MS, TYPICAL_JOB_TOKENS
from ryvion_protocol.constants import QUOTE_LIFETIME_MS
from ryvion_protocol.messages import CHAT, EMBEDDING, Quote, QuoteRequest, Refusal
from ryvion_protocol.money import cost_microcredits
from ryvion_protocol.schema import NodeKey, as_note


@dataclass(frozen=True, slots=True)
class Shop:
    """What the executor sells, and how."""

    network: str
    node_key: NodeKey
    jurisdiction: str
    price_in: int
    price_out: int
    models: tuple[EngineModel, ...]


def fitting_model(shop: Shop, request: QuoteRequest) -> EngineModel | None:
    """The model asked for by name, digest or both, when it is of that kind."""
    for model in shop.models:
        named = request.model in ("", model.name)
        if (
            named
            and request.digest in (b"", model.digest)
            and model.kind == request.kind
            and request.kind in (CHAT, EMBEDDING)
            and (request.model or request.digest)
        ):
            return model
    return None


def refusal_of(shop: Shop, request: QuoteRequest, model: EngineModel | None) -> Refusal | None:
    """The first reason not to bid, or None."""
    if request.network != shop.network:
        return Refusal("limits", f"this node belongs to the network '{shop.network}'", 0)
    if model is None:
        return Refusal("model_gone", "this node does not serve that model", 0)
    lacking = sorted(set(request.features).difference(model.features))
    if lacking:
        return Refusal("feature", as_note(f"this model lacks: {', '.join(lacking)}"), 0)
    if request.jurisdictions and shop.jurisdiction not in request.jurisdictions:
        return Refusal("jurisdiction", f"this node is in {shop.jurisdiction}", 0)
    embeds = model.kind == EMBEDDING
    # Each text of an embedding has the context for itself.
    if not embeds and request.prompt_tokens_max + 1 > model.context_tokens:
        return Refusal("limits", f"the context holds {model.context_tokens} tokens", 0)
    completion = 0 if embeds else 1
    least = cost_microcredits(request.prompt_tokens_max, completion, shop.price_in, shop.price_out, model.kind)
    if request.max_price and least > request.max_price:
        return Refusal("price", f"the prompt alone costs up to {least} micro-credits here", 0)
    return None


def busy(model: EngineModel, *, full: bool) -> Refusal:
    """No slot, no room in the queue: try again when one job will have ended. Or the peer holds enough quotes."""
    if not full:
        return Refusal("busy", "you hold as many quotes as one may: order or cancel them first", HELD_RETRY_MS)
    return Refusal("busy", "all slots and the queue are full", min(60_000, _job_ms(model)))


def quote_for(
    shop: Shop, request: QuoteRequest, request_hash: bytes, model: EngineModel, queue_depth: int, now_ms: int
) -> Quote:
    """A binding bid with an honest expectation of the first token."""
    prompt_ms = request.prompt_tokens_max * 1_000_000 // max(model.prompt_millitokens_per_s, 1)
    token_ms = 1_000_000 // max(speed_of(model), 1)
    waiting_ms = queue_depth * _job_ms(model) // max(model.slots, 1)
    return Quote(
        request_hash=request_hash,
        node_key=shop.node_key,
        model=model.name,
        digest=model.digest,
        context_tokens=model.context_tokens,
        price_in=shop.price_in,
        price_out=shop.price_out,
        jurisdiction=shop.jurisdiction,
        queue_depth=queue_depth,
        first_token_ms=min(model.load_ms + prompt_ms + token_ms + waiting_ms, 2**32 - 1),
        millitokens_per_s=speed_of(model),
        issued_ms=now_ms,
        expires_ms=now_ms + QUOTE_LIFETIME_MS,
    )


def speed_of(model: EngineModel) -> int:
    """In 1/1000 token per second: of writing, or of reading where there is nothing to write."""
    return model.prompt_millitokens_per_s if model.kind == EMBEDDING else model.millitokens_per_s


def _job_ms(model: EngineModel) -> int:
    return TYPICAL_JOB_TOKENS * 1_000_000 // max(speed_of(model), 1)
