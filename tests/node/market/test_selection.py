"""The pure decisions: filters, whom to ask, who wins."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ryvion_node.market.filters import Eligible, PromptLength, PromptLengths, shortlist
from ryvion_node.market.selection import Bid, ask_order, choose, explain_bids
from ryvion_protocol.messages import Hardware, ModelOffer, Offer, Quote
from ryvion_protocol.schema import NodeKey
from tests.node.market.marketplace import order

NOW = 1_800_000_000_000
DIGEST = b"\x07" * 32


def eligible(number: int, price: int = 100, speed: int = 50_000, free: int = 1, jurisdiction: str = "DE") -> Eligible:
    model = ModelOffer("tiny", DIGEST, "Q8_0", "chat", 512, price, price, 4, free, speed)
    key = NodeKey(bytes([number]) * 32)
    hardware = Hardware("gpu", 1, 0, "cuda")
    offer = Offer("test", key, 1, NOW, NOW + 1, "test", hardware, jurisdiction, "", (model,), ())
    return Eligible(offer, model, PromptLength(10, counted=True))


def bid(number: int, price: int = 100, first_token_ms: int = 100, speed: int = 50_000) -> Bid:
    e = eligible(number, price, speed)
    quote = Quote(bytes(32), e.key, "tiny", DIGEST, 512, price, price, "DE", 0, first_token_ms, speed, NOW, NOW + 1)
    return Bid(e, quote)


def test_a_price_near_zero_does_not_win_against_everything() -> None:
    free_but_slow = bid(1, price=0, first_token_ms=60_000, speed=100)
    fair = bid(2, price=1_000_000, first_token_ms=50, speed=80_000)
    also_fair = bid(3, price=1_100_000, first_token_ms=60, speed=75_000)
    scored, _ = choose([free_but_slow, fair, also_fair], order())
    assert scored[0][0] is fair


def test_equal_bids_are_decided_alike_by_everyone() -> None:
    scored, why = choose([bid(2), bid(1)], order())
    assert scored[0][0].quote.node_key == bytes([1]) * 32
    assert scored[0][1] == scored[1][1]
    assert "balance" in why


@given(
    st.lists(
        st.tuples(st.integers(0, 2**53 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**53 - 1)),
        min_size=1,
        max_size=8,
    )
)
def test_scores_are_bounded_and_the_cheapest_of_equals_wins(rows: list[tuple[int, int, int]]) -> None:
    bids = [bid(n + 1, *row) for n, row in enumerate(rows)]
    scored, why = choose(bids, order())
    assert all(0 <= score <= 1 for _, score in scored)
    assert why
    lines = explain_bids(scored, order(), why)
    assert [line.outcome for line in lines] == ["won"] + ["bid"] * (len(rows) - 1)


@given(st.integers(0, 2**40), st.integers(1, 2**40))
def test_cheaper_wins_all_else_equal(price: int, more: int) -> None:
    scored, _ = choose([bid(1, price + more), bid(2, price)], order())
    cheap = next(score for b, score in scored if b.quote.node_key == bytes([2]) * 32)
    dear = next(score for b, score in scored if b.quote.node_key == bytes([1]) * 32)
    assert cheap >= dear


def test_exploration_gives_the_last_place_to_somebody_else() -> None:
    everyone = [eligible(n, price=100 * n) for n in range(1, 7)]
    usual = ask_order(everyone, order(), frozenset(), 3, explore=0.0)
    lucky = ask_order(everyone, order(), frozenset(), 3, explore=0.99)
    assert [e.key[0] for e in usual[:3]] == [1, 2, 3]
    assert [e.key[0] for e in lucky[:3]] == [1, 2, 6]
    assert sorted(e.key for e in lucky) == sorted(e.key for e in everyone)


def test_cooling_and_full_executors_are_asked_last() -> None:
    first, second, third = eligible(1, price=1), eligible(2, price=2, free=0), eligible(3, price=3)
    asked = ask_order([first, second, third], order(), frozenset({first.key}), 1, explore=0.0)
    assert [e.key[0] for e in asked] == [3, 2, 1]


def test_own_offer_is_never_a_candidate() -> None:
    mine = eligible(1)
    short = shortlist([mine.offer], order(), mine.key, PromptLengths(10, {}))
    assert short.eligible == ()
    assert short.fallen_out == ()


def test_uncounted_prompt_is_not_taken_for_its_upper_bound() -> None:
    e = eligible(1)
    prompts = PromptLengths(2_000, {})
    short = shortlist([e.offer], order(), NodeKey(bytes(32)), prompts)
    assert len(short.eligible) == 1
    assert short.eligible[0].prompt_limit == 511
    assert 0 < short.eligible[0].completion_room <= 512
