"""Who is asked and who wins: pure decisions that explain themselves (no clock, no network, no randomness).

Hard limits fail closed: an offer that does not say what is asked for falls out, and the reason is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from ryvion_node.market.constants import EXPECTED_COMPLETION_TOKENS
from ryvion_node.market.interface import Candidate, EmbeddingOrder, MarketError, Order
from ryvion_node.market.wanted import needed_features
from ryvion_node.p2p.peer_id import peer_id_of
from ryvion_protocol.messages import EMBEDDING, ModelOffer, Offer, Quote
from ryvion_protocol.money import cost_microcredits
from ryvion_protocol.schema import NodeKey

OTHER_FILE = "sells another file under this name"
LACKS = "lacks: "
"""Begins the reason of an offer without a feature that the order needs."""
PRICE_WEIGHT = 0.5
FIRST_TOKEN_WEIGHT = 0.25
SPEED_WEIGHT = 0.25


@dataclass(frozen=True, slots=True)
class PromptLength:
    """Tokens of a prompt on one model: our own count, or an upper bound where we lack the tokenizer."""

    tokens: int
    counted: bool


@dataclass(frozen=True, slots=True)
class PromptLengths:
    """One prompt on all models: an upper bound, and our own counts by model digest."""

    bound: int
    counts: Mapping[bytes, int]

    def on(self, model: ModelOffer) -> PromptLength:
        """Our count stands only where the executor promises to count alike (spec 03, `counted`)."""
        count = self.counts.get(model.digest) if "counted" in model.features else None
        return PromptLength(self.bound if count is None else count, counted=count is not None)


@dataclass(frozen=True, slots=True)
class Eligible:
    """An offer that passed every hard limit, with the model entry that fits and the prompt's length on it."""

    offer: Offer
    model: ModelOffer
    prompt: PromptLength

    @property
    def key(self) -> NodeKey:
        return self.offer.node_key

    @property
    def embeds(self) -> bool:
        return self.model.kind == EMBEDDING

    @property
    def prompt_limit(self) -> int:
        """Prompt tokens to ask and pay for at most; each text of an embedding has the context for itself."""
        if self.embeds:
            return self.prompt.tokens
        return min(self.prompt.tokens, self.model.context_tokens - 1)

    @property
    def completion_room(self) -> int:
        """Completion tokens that the context can hold after the prompt."""
        if self.embeds:
            return 0
        return self.model.context_tokens - least_tokens(self.prompt)


@dataclass(frozen=True, slots=True)
class Shortlist:
    """Outcome of the filters."""

    eligible: tuple[Eligible, ...]
    filtered: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class Bid:
    """A quote in hand."""

    eligible: Eligible
    quote: Quote


def most_completion(order: Order) -> int | None:
    """Tokens that the order asks for at most."""
    return 0 if isinstance(order, EmbeddingOrder) else order.max_completion_tokens


def expected_completion(order: Order) -> int:
    """Tokens that bids are compared at."""
    most = most_completion(order)
    return EXPECTED_COMPLETION_TOKENS if most is None else min(most, EXPECTED_COMPLETION_TOKENS)


def candidate(offer: Offer, model: ModelOffer | None, outcome: str, reason: str) -> Candidate:
    """One line of the explanation, from an offer."""
    return Candidate(
        node_key=offer.node_key,
        peer_id=peer_id_of(offer.node_key),
        hardware=offer.hardware,
        jurisdiction=offer.jurisdiction,
        location=offer.location,
        price_in=model.price_in if model else 0,
        price_out=model.price_out if model else 0,
        outcome=outcome,  # type: ignore[arg-type]  # one of Candidate's literals; callers pass constants
        reason=reason,
    )


def shortlist(
    offers: Sequence[Offer],
    order: Order,
    own_key: NodeKey,
    prompts: PromptLengths,
    digest: bytes | None = None,
) -> Shortlist:
    """Apply the hard limits. `digest`: the only file that counts."""
    needed = needed_features(order)
    eligible: list[Eligible] = []
    filtered: list[Candidate] = []
    for offer in offers:
        model = next((m for m in offer.models if m.name == order.model and m.kind == order.kind), None)
        if offer.node_key == own_key or model is None:
            continue
        prompt = prompts.on(model)
        reason = _falls_out(offer, model, order, prompt, digest) or _lacks(model, needed)
        if reason is None:
            eligible.append(Eligible(offer, model, prompt))
        else:
            filtered.append(candidate(offer, model, "filtered", reason))
    return Shortlist(tuple(eligible), tuple(filtered))


def _falls_out(offer: Offer, model: ModelOffer, order: Order, prompt: PromptLength, digest: bytes | None) -> str | None:
    if digest is not None and model.digest != digest:
        return f"{OTHER_FILE} ({model.digest.hex()[:12]}, not {digest.hex()[:12]})"
    if order.jurisdictions and offer.jurisdiction not in order.jurisdictions:
        return f"jurisdiction {offer.jurisdiction} is not {_either(order.jurisdictions)}"
    least = least_tokens(prompt)
    if model.kind != EMBEDDING and least + 1 > model.context_tokens:
        return f"prompt of {least} tokens or more does not fit its context of {model.context_tokens}"
    if order.max_price is not None:
        completion = expected_completion(order)
        cost = cost_microcredits(prompt.tokens, completion, model.price_in, model.price_out, model.kind)
        if cost > order.max_price:
            return f"expected cost of {cost} micro-credits is above the limit of {order.max_price}"
    return None


def _lacks(model: ModelOffer, needed: Sequence[str]) -> str | None:
    missing = [feature for feature in needed if feature not in model.features]
    return f"{LACKS}{', '.join(missing)}" if missing else None


def least_tokens(prompt: PromptLength) -> int:
    """A length that the prompt surely has: text seldom has more than 8 bytes a token. The executor refuses the rest."""
    return prompt.tokens if prompt.counted else max(1, prompt.tokens // 8)


def _either(codes: Sequence[str]) -> str:
    return codes[0] if len(codes) == 1 else f"one of {', '.join(codes)}"


def refuse(order: Order, offers: Sequence[Offer], short: Shortlist) -> MarketError:
    """Why nobody at all is eligible, in the caller's words."""
    serving = [offer for offer in offers if any(m.name == order.model and m.kind == order.kind for m in offer.models)]
    if not serving:
        names = sorted({m.name for offer in offers for m in offer.models if m.kind == order.kind})
        on_offer = f"on offer now: {', '.join(names)}" if names else "no executor is in reach"
        others = {m.kind for offer in offers for m in offer.models if m.name == order.model}
        wrong = f"'{order.model}' is a model of kind {min(others)}, wanted is {order.kind}" if others else ""
        missing_model = wrong or f"no executor serves the model '{order.model}'"
        return MarketError("model_not_found", f"{missing_model}; {on_offer}")
    if order.jurisdictions and not any(offer.jurisdiction in order.jurisdictions for offer in serving):
        served = ", ".join(sorted({offer.jurisdiction for offer in serving}))
        wanted = _either(order.jurisdictions)
        return MarketError(
            "jurisdiction_not_allowed",
            f"no executor in {wanted} serves the model '{order.model}'; it is served in: {served}",
        )
    reasons = "; ".join(sorted({c.reason for c in short.filtered})) or "the only executor is this node itself"
    if short.filtered and all(c.reason.startswith(OTHER_FILE) for c in short.filtered):
        return MarketError("model_not_found", f"nobody serves the file that is known as '{order.model}': {reasons}")
    if short.filtered and all(c.reason.startswith(LACKS) for c in short.filtered):
        missing = tuple(sorted({name for c in short.filtered for name in c.reason.removeprefix(LACKS).split(", ")}))
        message = f"no executor of the model '{order.model}' can do what this request needs: {', '.join(missing)}"
        return MarketError("unsupported", message, features=missing)
    if any("context" in c.reason for c in short.filtered):
        return MarketError("context_length_exceeded", f"this conversation fits no executor: {reasons}")
    if any("limit" in c.reason for c in short.filtered):
        return MarketError("price_limit", f"no executor is within the price limit: {reasons}")
    return MarketError("no_capacity", f"no executor can take this job: {reasons}", retry_after_ms=10_000)


def ask_order(
    eligible: Sequence[Eligible], order: Order, cooling: frozenset[NodeKey], count: int, explore: float
) -> list[Eligible]:
    """Whom to ask for quotes, best first by their offers; those cooling down after a broken job come last.

    `explore` in [0, 1) picks who gets the last of `count` places among those the ranking leaves out, so that
    newcomers are asked now and then.
    """
    completion = expected_completion(order)

    def cost(e: Eligible) -> int:
        return cost_microcredits(e.prompt_limit, completion, e.model.price_in, e.model.price_out, e.model.kind)

    typical_cost = median([cost(e) for e in eligible]) if eligible else 0
    typical_s = median([_decode_s(completion, e.model.millitokens_per_s) for e in eligible]) if eligible else 0

    def rank(e: Eligible) -> tuple[bool, bool, float, bytes]:
        seconds = _decode_s(completion, e.model.millitokens_per_s)
        loss = PRICE_WEIGHT * _loss(cost(e), typical_cost) + SPEED_WEIGHT * _loss(seconds, typical_s)
        return (e.key in cooling, e.model.slots_free == 0, loss, e.key)

    ranked = sorted(eligible, key=rank)
    if len(ranked) > count > 1:
        lucky = count - 1 + int(explore * (len(ranked) - count + 1))
        ranked.insert(count - 1, ranked.pop(lucky))
    return ranked


def choose(bids: Sequence[Bid], order: Order) -> tuple[list[tuple[Bid, float]], str]:
    """Rank the bids in hand: [(bid, score)] with the best first, and why it won. Scores are in (0, 1], higher is better.

    Each part is a bounded loss x / (x + median), so that a price near zero cannot win on its own.
    """
    completion = expected_completion(order)
    costs = [bid_cost(bid, completion) for bid in bids]
    waits = [bid.quote.first_token_ms for bid in bids]
    times = [_decode_s(completion, bid.quote.millitokens_per_s) for bid in bids]
    typical = (median(costs), median(waits), median(times))
    scored = [
        (
            bid,
            1.0
            - PRICE_WEIGHT * _loss(cost, typical[0])
            - FIRST_TOKEN_WEIGHT * _loss(wait, typical[1])
            - SPEED_WEIGHT * _loss(time, typical[2]),
        )
        for bid, cost, wait, time in zip(bids, costs, waits, times, strict=True)
    ]
    scored.sort(key=lambda item: (-item[1], item[0].quote.node_key))
    return scored, _why(scored, completion)


def bid_cost(bid: Bid, completion: int) -> int:
    """What the job would cost by this bid, in micro-credits."""
    eligible, quote = bid.eligible, bid.quote
    return cost_microcredits(eligible.prompt_limit, completion, quote.price_in, quote.price_out, eligible.model.kind)


def _why(scored: Sequence[tuple[Bid, float]], completion: int) -> str:
    best, score = scored[0]
    cost = bid_cost(best, completion)
    if len(scored) == 1:
        return f"the only bid: {cost} micro-credits expected, first token in {best.quote.first_token_ms} ms"
    others = [bid for bid, _ in scored[1:]]
    merits = []
    if all(cost < bid_cost(other, completion) for other in others):
        merits.append(
            f"cheapest ({cost} against {min(bid_cost(o, completion) for o in others)} micro-credits expected)"
        )
    if all(best.quote.first_token_ms < other.quote.first_token_ms for other in others):
        next_ms = min(o.quote.first_token_ms for o in others)
        merits.append(f"first to answer ({best.quote.first_token_ms} against {next_ms} ms)")
    if all(best.quote.millitokens_per_s > other.quote.millitokens_per_s for other in others):
        next_speed = max(o.quote.millitokens_per_s for o in others)
        merits.append(f"fastest ({best.quote.millitokens_per_s / 1000:.0f} against {next_speed / 1000:.0f} tokens/s)")
    merit = ", ".join(merits) if merits else "best balance of price, first token and speed"
    return f"{merit}; score {score:.2f} against {scored[1][1]:.2f} of {len(scored)} bids"


def explain_bids(scored: Sequence[tuple[Bid, float]], order: Order, why: str) -> list[Candidate]:
    """The bids as lines of the explanation, winner first."""
    completion = expected_completion(order)
    lines = []
    for place, (bid, score) in enumerate(scored, start=1):
        outcome, reason = ("won", why) if place == 1 else ("bid", f"rank {place} of {len(scored)}")
        line = candidate(bid.eligible.offer, bid.eligible.model, outcome, reason)
        lines.append(
            replace(
                line,
                price_in=bid.quote.price_in,
                price_out=bid.quote.price_out,
                first_token_ms=bid.quote.first_token_ms,
                expected_cost=bid_cost(bid, completion),
                score=round(score, 4),
            )
        )
    return lines


def _decode_s(tokens: int, millitokens_per_s: int) -> float:
    return tokens * 1000 / max(millitokens_per_s, 1)


def _loss(value: float, typical: float) -> float:
    total = value + typical
    return value / total if total > 0 else 0.5
