"""However sellers break and whenever clients leave: nobody spends more than allowed, nothing stays held, both books agree."""

from __future__ import annotations

from dataclasses import dataclass

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from ryvion_node.engine.fake import Script, fake_model
from ryvion_node.engine.interface import EngineError
from ryvion_node.engine.scripted import Vanished
from ryvion_node.ledger.records import JobRecord
from ryvion_node.ledger.spending import Allowance
from ryvion_node.market.interface import Account, ChatOrder, MarketError
from ryvion_node.proxy.choices import buy_choices
from ryvion_node.proxy.orders import orders_of_choices
from ryvion_node.proxy.whole import WholeChoice
from tests.node.market.marketplace import ANSWER, Marketplace, SellerPlan, marketplace, order

FAULTS = ("busy", "worker_crashed", "context_overflow", "template_failed", "grammar_invalid", "unsupported")
KEY = "key-1"

faults = st.sampled_from(FAULTS).map(lambda code: EngineError(code, "not now")) | st.builds(Vanished)  # type: ignore[arg-type]
scripts = (
    st.builds(Script, st.just(ANSWER), token_s=st.sampled_from((0.0, 0.01, 0.3)), prompt_s=st.sampled_from((0.0, 30.0)))
    | faults.map(lambda fault: Script("", error=fault))
    | faults.map(lambda fault: Script("one two", token_s=0.05, linger_s=0.5, error=fault))
)


@dataclass(frozen=True, slots=True)
class Selling:
    """A seller: prices, slots, queue, and what becomes of its jobs in turn."""

    price_in: int
    price_out: int
    slots: int
    queue: int
    scripts: tuple[Script, ...]


@dataclass(frozen=True, slots=True)
class Buying:
    """A client: its choices, how long an answer it asks for, and when it leaves."""

    choices: int
    tokens: int | None
    leaves_s: float


sellers = st.builds(
    Selling,
    st.sampled_from((0, 50_000, 10**6)),
    st.sampled_from((0, 200_000, 10**9)),
    st.integers(1, 4),
    st.integers(0, 3),
    st.lists(scripts, min_size=1, max_size=4).map(tuple),
)
clients = st.builds(
    Buying, st.integers(1, 4), st.sampled_from((6, 50, None)), st.floats(0.0, 0.5) | st.sampled_from((1.0, 1000.0))
)
limits = st.none() | st.sampled_from((0, 10, 9_000, 60_000))


@settings(max_examples=40, deadline=None)
@given(
    selling=st.lists(sellers, min_size=1, max_size=3),
    buying=st.lists(clients, min_size=1, max_size=4),
    limit=limits,
    allowance=st.builds(Allowance, hour=limits, total=limits),
    counts=st.booleans(),
    delay_s=st.sampled_from((0.0, 0.003, 0.02)),
)
def test_any_market(
    selling: list[Selling],
    buying: list[Buying],
    limit: int | None,
    allowance: Allowance,
    counts: bool,
    delay_s: float,
) -> None:
    async def run() -> None:
        async with marketplace(*map(plan, range(1, 9), selling), counts=counts) as market:
            market.internet.delay_s = delay_s
            async with trio.open_nursery() as nursery:
                for number, client in enumerate(buying):
                    account = Account(KEY, f"answer-{number}", allowance)
                    wanted = order(max_price=limit, max_completion_tokens=client.tokens, account=account)
                    nursery.start_soon(buy, market, wanted, client)
            await trio.sleep(1000)
            await check_books(market, len(buying), limit, allowance)
            assert not market.buyer._floor.bidding._open_quotes._windows
            for seller in market.sellers:
                assert seller.seller.free_slots("tiny") == seller.engine.models()[0].slots

    trio.run(run, clock=MockClock(autojump_threshold=0))


def plan(seed: int, selling: Selling) -> SellerPlan:
    jobs = iter(selling.scripts * 1000)
    model = fake_model("tiny", slots=selling.slots)
    return SellerPlan(
        seed,
        price_in=selling.price_in,
        price_out=selling.price_out,
        model=model,
        max_queue=selling.queue,
        script=lambda _: next(jobs),
    )


async def buy(market: Marketplace, wanted: ChatOrder, client: Buying) -> None:
    orders = orders_of_choices([wanted], client.choices)
    with trio.move_on_after(client.leaves_s):
        failure = await buy_choices(market.buyer, orders, [WholeChoice({}) for _ in orders])
        assert failure is None or isinstance(failure, MarketError)


async def check_books(market: Marketplace, answers: int, limit: int | None, allowance: Allowance) -> None:
    spent = await market.ledger.spending(KEY)
    assert spent.running == 0
    for most in (allowance.hour, allowance.total):
        assert most is None or spent.total <= most
    bought: dict[str, JobRecord] = {}
    for number in range(answers):
        jobs = await market.ledger.by_completion_id(f"answer-{number}")
        assert limit is None or sum(job.cost_microcredits for job in jobs) <= limit
        bought |= {job.job_id: job for job in jobs}
    for seller in market.sellers:
        for (job_id, _), entry in seller.ledger._jobs.items():
            assert entry.record.cost_microcredits == bought[job_id].cost_microcredits
