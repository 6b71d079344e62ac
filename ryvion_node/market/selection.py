"""Who of the eligible is asked first, and who wins: pure decisions that explain themselves (no clock, network, randomness)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Final

from ryvion_node.market.constants import SLOW_FIRST_TOKEN_S
from ryvion_node.market.filters import Eligible, candidate
from ryvion_node.market.interface import Candidate, Order
from ryvion_node.market.wanted import expected_completion
from ryvion_node.preferences import Sort
from ryvion_protocol.messages import Quote
from ryvion_protocol.money import cost_microcredits
from ryvion_protocol.schema import NodeKey

PRICE_WEIGHT: Final = 0.5
FIRST_TOKEN_WEIGHT: Final = 0.25
SPEED_WEIGHT: Final = 0.25
_MERITS: Final[dict[Sort, str]] = {
    "balanced": "best balance of price, first token and speed",
    "price": "as cheap as the next, so the balance decides",
    "latency": "done as soon as the next, so the balance decides",
}
"""Of a winner that is best at nothing by itself."""


@dataclass(frozen=True, slots=True)
class Bid:
    """A quote in hand."""

    eligible: Eligible
    quote: Quote


@dataclass(frozen=True, slots=True)
class _Figures:
    """What a bid or an offer promises for the expected answer; an offer says nothing of its first token."""

    cost: float
    wait_s: float
    decode_s: float

    @property
    def done_s(self) -> float:
        return self.wait_s + self.decode_s


def _typical(figures: Sequence[_Figures]) -> _Figures:
    if not figures:
        return _Figures(0, 0, 0)
    return _Figures(
        median(one.cost for one in figures),
        median(one.wait_s for one in figures),
        median(one.decode_s for one in figures),
    )


def ask_order(
    eligible: Sequence[Eligible], order: Order, cooling: frozenset[NodeKey], count: int, explore: float
) -> list[Eligible]:
    """Whom to ask for quotes, best first by their offers; those cooling down after a broken job come last.

    `explore` in [0, 1) picks who gets the last of `count` places among those the ranking leaves out, so that
    newcomers are asked now and then.
    """
    completion, sort = expected_completion(order), order.preferences.ranking
    promised = {
        e.key: _Figures(
            cost_microcredits(e.prompt_limit, completion, e.model.price_in, e.model.price_out, e.model.kind),
            0,
            _decode_s(completion, e.model.millitokens_per_s),
        )
        for e in eligible
    }
    typical = _typical([*promised.values()])

    def rank(e: Eligible) -> tuple[bool, bool, float, float, bytes]:
        first, then = _rank(promised[e.key], typical, sort)
        return (e.key in cooling, e.model.slots_free == 0, first, then, e.key)

    ranked = sorted(eligible, key=rank)
    if len(ranked) > count > 1:
        lucky = count - 1 + int(explore * (len(ranked) - count + 1))
        ranked.insert(count - 1, ranked.pop(lucky))
    return ranked


def choose(bids: Sequence[Bid], order: Order) -> tuple[list[tuple[Bid, float]], str]:
    """Rank the bids in hand: [(bid, score)] with the best first, and why it won. Scores are in (0, 1], higher is better.

    By price the lowest cost wins outright, by latency the earliest end of the expected answer; only between equals does
    the balance decide, which is what decides else.
    """
    completion, sort = expected_completion(order), order.preferences.ranking
    figures = [
        _Figures(
            bid_cost(bid, completion),
            bid.quote.first_token_ms / 1000,
            _decode_s(completion, bid.quote.millitokens_per_s),
        )
        for bid in bids
    ]
    typical = _typical(figures)
    ranked = sorted(
        zip(bids, figures, strict=True), key=lambda item: (*_rank(item[1], typical, sort), item[0].quote.node_key)
    )
    scored = [(bid, 1.0 - _loss_by(one, typical, sort)) for bid, one in ranked]
    return scored, _why(ranked, scored, sort)


def _rank(one: _Figures, typical: _Figures, sort: Sort) -> tuple[float, float]:
    """What is compared first, and what decides between equals; less is better."""
    balance = _loss_by(one, typical, "balanced")
    match sort:
        case "balanced":
            return (one.wait_s > SLOW_FIRST_TOKEN_S, balance)
        case "price":
            return (one.cost, balance)
        case "latency":
            return (one.done_s, balance)


def _loss_by(one: _Figures, typical: _Figures, sort: Sort) -> float:
    """In [0, 1). Each part is a bounded loss x / (x + median), so that a price near zero cannot win on its own."""
    match sort:
        case "balanced":
            return (
                PRICE_WEIGHT * _loss(one.cost, typical.cost)
                + FIRST_TOKEN_WEIGHT * _loss(one.wait_s, typical.wait_s)
                + SPEED_WEIGHT * _loss(one.decode_s, typical.decode_s)
            )
        case "price":
            return _loss(one.cost, typical.cost)
        case "latency":
            return _loss(one.done_s, typical.done_s)


def bid_cost(bid: Bid, completion: int) -> int:
    """What the job would cost by this bid, in micro-credits."""
    eligible, quote = bid.eligible, bid.quote
    return cost_microcredits(eligible.prompt_limit, completion, quote.price_in, quote.price_out, eligible.model.kind)


def _why(ranked: Sequence[tuple[Bid, _Figures]], scored: Sequence[tuple[Bid, float]], sort: Sort) -> str:
    (best, figures), *others = ranked
    if not others:
        return f"the only bid: {figures.cost} micro-credits expected, first token in {best.quote.first_token_ms} ms"
    merits = []
    next_done_s = min(other.done_s for _, other in others)
    if sort == "latency" and figures.done_s < next_done_s:
        merits.append(f"done first ({figures.done_s:.2f} against {next_done_s:.2f} s expected)")
    next_cost = min(other.cost for _, other in others)
    if figures.cost < next_cost:
        merits.append(f"cheapest ({figures.cost} against {next_cost} micro-credits expected)")
    next_ms = min(bid.quote.first_token_ms for bid, _ in others)
    if best.quote.first_token_ms < next_ms:
        merits.append(f"first to answer ({best.quote.first_token_ms} against {next_ms} ms)")
    next_speed = max(bid.quote.millitokens_per_s for bid, _ in others)
    if best.quote.millitokens_per_s > next_speed:
        merits.append(f"fastest ({best.quote.millitokens_per_s / 1000:.0f} against {next_speed / 1000:.0f} tokens/s)")
    merit = ", ".join(merits) or _MERITS[sort]
    return f"{merit}; {sort} score {scored[0][1]:.2f} against {scored[1][1]:.2f} of {len(scored)} bids"


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
