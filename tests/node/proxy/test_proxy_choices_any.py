"""Any number of choices in any market: every job ends, none waits for ever, and no failure is wrapped."""

from __future__ import annotations

from dataclasses import dataclass, replace

import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from ryvion_node.market.fake import FakeMarket, Hold, Script
from ryvion_node.market.interface import ChatOrder, MarketError, Outcome, Piece, Placement
from ryvion_node.proxy.choices import buy_choices
from ryvion_node.proxy.orders import orders_of_choices
from ryvion_protocol.messages import ChatMessage

ORDER = ChatOrder("m", (ChatMessage("user", "hi", ""),), None, seed=0)

REFUSALS = (
    MarketError("no_capacity", "full"),
    MarketError("budget_held", "held"),
    MarketError("price_limit", "too dear"),
    RuntimeError("our own"),
)
pauses = st.builds(Hold, seconds=st.integers(0, 3).map(float))
steps = st.lists(st.just(Piece("x")) | pauses, max_size=3).map(tuple)
breaks = st.sampled_from((MarketError("node_failed", "gone"), ValueError("our own")))
scripts = st.builds(
    lambda before, refused, said, broken: Script(
        before=(*before, *([refused] if refused else ())), steps=(*said, *([broken] if broken else ()))
    ),
    st.lists(pauses, max_size=1),
    st.none() | st.sampled_from(REFUSALS),
    steps,
    st.none() | breaks,
)


@dataclass(slots=True)
class Seen:
    """A ChoiceSink that checks the order of what it is told."""

    market: FakeMarket
    pieces: int = 0
    placement: Placement | None = None
    is_taken: bool = False
    outcome: Outcome | None = None

    async def placed(self, placement: Placement) -> None:
        assert self.placement is None
        self.placement = placement

    async def taken(self, placement: Placement) -> None:
        assert self.placement is not None
        assert not self.is_taken
        self.is_taken = True

    async def piece(self, piece: Piece) -> None:
        assert self.is_taken
        self.pieces += 1

    async def ended(self, outcome: Outcome) -> None:
        assert self.outcome is None
        self.outcome = outcome


@given(st.lists(scripts, min_size=1, max_size=6), st.none() | st.integers(1, 4))
def test_any_market(plays: list[Script], slots: int | None) -> None:
    async def buy() -> None:
        market = FakeMarket({"m": Script(by_seed=tuple(plays))}, slots=slots)
        orders = orders_of_choices([ORDER], len(plays))
        seen = [Seen(market) for _ in orders]
        with trio.fail_after(1000):
            failure = await buy_choices(market, orders, seen)
        assert market.open_jobs == market.slots_taken == 0
        assert len(market.orders) <= 3 * len(orders)
        failing = [step for play in plays for step in (*play.before, *play.steps) if isinstance(step, Exception)]
        if not failing:
            assert failure is None
            assert [one.pieces for one in seen] == [sum(isinstance(s, Piece) for s in play.steps) for play in plays]
            assert all(one.outcome is not None for one in seen)
        else:
            assert any(failure is one for one in failing) or str(failure) == "all slots are taken"
        if seen[0].placement is None:
            assert all(one.placement is None for one in seen)

    trio.run(buy, clock=MockClock(autojump_threshold=0))


@given(st.integers(0, 2**64 - 1), st.none() | st.integers(0, 10**12), st.integers(1, 4), st.integers(1, 8))
def test_orders_of_choices_differ_in_their_seeds_and_share_the_price(
    seed: int, max_price: int | None, prompts: int, choices: int
) -> None:
    orders = orders_of_choices([replace(ORDER, seed=seed, max_price=max_price)] * prompts, choices)
    assert [order.seed for order in orders] == [(seed + choice) % 2**64 for choice in range(choices)] * prompts
    shares = [order.max_price for order in orders]
    if max_price is None:
        assert set(shares) == {None}
    else:
        assert max_price - len(orders) < sum(share or 0 for share in shares) <= max_price
