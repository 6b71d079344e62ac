"""Whom a caller wants to buy from: what falls out and why, who wins, and that sellers cannot talk their way past it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from ryvion_node.engine.fake import FakeCounter, Script, fake_model
from ryvion_node.engine.interface import EngineError
from ryvion_node.market.filters import Eligible, PromptLength, PromptLengths, refuse, shortlist
from ryvion_node.market.interface import MarketError
from ryvion_node.market.selection import Bid, ask_order, bid_cost, choose
from ryvion_node.p2p.channel import JobChannel
from ryvion_node.p2p.interface import Stream, StreamBroken
from ryvion_node.p2p.peer_id import peer_id_of
from ryvion_node.preferences import ASSURANCES, Preferences
from ryvion_protocol.constants import MARKET_PROTOCOL
from ryvion_protocol.messages import Hardware, ModelOffer, Offer, Quote, QuoteRequest
from ryvion_protocol.packet import pack
from ryvion_protocol.schema import NodeKey
from tests.node.market.marketplace import ANSWER, SellerPlan, buy, clock_ms, identity, marketplace, order

virtual_time = pytest.mark.virtual_time

NOW = 1_800_000_000_000
ME = NodeKey(bytes(32))
NODES = [NodeKey(bytes([number]) * 32) for number in (1, 2, 3, 4)]
FILES = [bytes([number]) * 32 for number in (0xA, 0xB)]


def offer(
    number: int,
    *,
    price: int = 100,
    speed: int = 50_000,
    digest: bytes = FILES[0],
    quantisation: str = "Q8_0",
    features: tuple[str, ...] = ("counted",),
    jurisdiction: str = "DE",
    context: int = 512,
) -> Offer:
    model = ModelOffer("tiny", digest, quantisation, "chat", context, price, price, 4, 1, speed, features)
    hardware = Hardware("gpu", 1, 0, "cuda")
    return Offer("test", NODES[number], 1, NOW, NOW + 1, "test", hardware, jurisdiction, "", (model,), ())


COUNTED = PromptLengths(10, {FILES[0]: 10})
"""The tokenizer of the first file is at hand, that of the second is not."""
OFFERS = (
    offer(0),
    offer(1, quantisation="q4_k_m"),
    offer(2, digest=FILES[1], quantisation="F16"),
    offer(3, features=()),
)
UNMET = [
    (Preferences(allow=frozenset(NODES[:1])), [0], "allow: it is not among"),
    (Preferences(deny=frozenset(NODES[1:])), [0], "deny: it is among"),
    (Preferences(digests=frozenset(FILES[1:])), [2], "digest: its file 0a0a0a0a0a0a is not 0b0b0b0b0b0b"),
    (Preferences(quantisations=frozenset({"Q4_K_M"})), [1], "quantisation: Q8_0 is not Q4_K_M"),
    (Preferences(quantisations=frozenset({"Q4_K_M", "F16"})), [1, 2], "quantisation: Q8_0 is not one of F16, Q4_K_M"),
    (Preferences(min_assurance="count-checked"), [0, 1], "does not promise to count"),
    (Preferences(min_assurance="count-checked"), [0, 1], "tokenizer of its file 0b0b0b0b0b0b is not at hand"),
    (Preferences(allow=frozenset()), [], "by request and key together no node may run this"),
    (Preferences(digests=frozenset()), [], "that request and key both allow: there is none"),
    (Preferences(sort="price", max_price=0), [0, 1, 2, 3], ""),
]


@pytest.mark.parametrize(("preferences", "left", "reason"), UNMET)
def test_who_does_not_meet_a_preference_falls_out_with_the_reason(
    preferences: Preferences, left: list[int], reason: str
) -> None:
    short = shortlist(OFFERS, order(preferences=preferences), ME, COUNTED)
    assert [e.key for e in short.eligible] == [NODES[number] for number in left]
    assert len(short.filtered) == len(OFFERS) - len(left)
    assert not reason or any(reason in line.reason for line in short.filtered)


def some(values: list[NodeKey] | list[bytes] | list[str]) -> st.SearchStrategy[frozenset[object] | None]:
    return st.none() | st.frozensets(st.sampled_from(values))


@given(
    st.builds(
        Preferences,
        allow=some(NODES),
        deny=st.frozensets(st.sampled_from(NODES)),
        digests=some(FILES),
        quantisations=some(["Q8_0", "Q4_K_M", "F16"]),
        min_assurance=st.sampled_from(ASSURANCES),
    )
)
def test_exactly_those_are_left_that_meet_them_all(preferences: Preferences) -> None:
    wanted = order(preferences=preferences)
    short = shortlist(OFFERS, wanted, ME, COUNTED)
    meets = [
        (preferences.allow is None or one.node_key in preferences.allow)
        and one.node_key not in preferences.deny
        and (preferences.digests is None or one.models[0].digest in preferences.digests)
        and (preferences.quantisations is None or one.models[0].quantisation.upper() in preferences.quantisations)
        and (preferences.min_assurance == "signed" or number < 2)
        for number, one in enumerate(OFFERS)
    ]
    assert {e.key for e in short.eligible} == {NODES[number] for number, met in enumerate(meets) if met}
    if not short.eligible:
        assert refuse(wanted, OFFERS, short).code == "preferences_not_met"


def refusal(preferences: Preferences, *offers: Offer, **changes: object) -> MarketError:
    wanted = order(preferences=preferences, **changes)
    short = shortlist(offers, wanted, ME, COUNTED)
    assert not short.eligible
    return refuse(wanted, offers, short)


def test_nobody_left_names_the_preference_and_what_is_on_offer() -> None:
    error = refusal(Preferences(quantisations=frozenset({"Q2_K"})), *OFFERS)
    assert (error.code, error.preference) == ("preferences_not_met", "quantisation")
    assert "on offer: quantisations F16, Q8_0, q4_k_m" in str(error)
    error = refusal(Preferences(digests=frozenset({bytes(32)})), *OFFERS)
    assert error.preference == "digest"
    assert all(file.hex() in str(error) for file in FILES)
    error = refusal(Preferences(allow=frozenset({ME})), *OFFERS)
    assert error.preference == "allow"
    assert all(peer_id_of(node) in str(error) for node in NODES)
    error = refusal(Preferences(deny=frozenset(NODES[:2]), min_assurance="count-checked"), *OFFERS)
    assert (error.preference, error.retry_after_ms) == (None, None)
    assert "(deny, min_assurance)" in str(error)


def test_a_large_market_makes_no_endless_error() -> None:
    many = [replace(offer(0), node_key=NodeKey(number.to_bytes(32, "big"))) for number in range(1, 500)]
    error = refusal(Preferences(allow=frozenset({ME})), *many)
    assert "and 491 more" in str(error)
    assert len(str(error)) < 1000


def test_what_would_help_is_told_by_those_that_come_closest() -> None:
    denied = Preferences(deny=frozenset({NODES[0]}))
    assert refusal(denied, offer(0), offer(1, context=3)).code == "context_length_exceeded"
    assert refusal(denied, offer(0), offer(1, price=10**9), max_price=5).code == "price_limit"
    lacking = refusal(denied, offer(0, features=("logprobs",)), offer(1), logprobs=2)
    assert (lacking.code, lacking.features) == ("unsupported", ("logprobs",))
    assert "deny" in str(lacking)
    elsewhere = refusal(denied, offer(0), offer(1, jurisdiction="US"), jurisdictions=("DE",))
    assert (elsewhere.code, elsewhere.preference) == ("preferences_not_met", "deny")


def bid(number: int, price: int = 100, first_token_ms: int = 100, speed: int = 50_000) -> Bid:
    offered = offer(number, price=price, speed=speed)
    quote = Quote(
        bytes(32), NODES[number], "tiny", FILES[0], 512, price, price, "DE", 0, first_token_ms, speed, NOW, NOW + 1
    )
    return Bid(Eligible(offered, offered.models[0], PromptLength(10, counted=True)), quote)


CHEAP = bid(0, price=900_000, first_token_ms=60_000, speed=100)
QUICK = bid(1, price=9_000_000, first_token_ms=10, speed=90_000)
PLAIN = bid(2, price=1_000_000, first_token_ms=50, speed=80_000)


@pytest.mark.parametrize(("sort", "winner"), [("price", CHEAP), ("latency", QUICK), ("balanced", PLAIN), (None, PLAIN)])
def test_bids_are_ranked_as_asked(sort: str | None, winner: Bid) -> None:
    wanted = order(preferences=Preferences(sort=sort))  # type: ignore[arg-type]
    scored, why = choose([CHEAP, QUICK, PLAIN], wanted)
    assert scored[0][0] is winner
    assert f"{sort or 'balanced'} score" in why
    assert [score for _, score in scored] == sorted((score for _, score in scored), reverse=True)


def test_between_equals_the_rest_decides() -> None:
    slow, fast = bid(0, speed=10_000), bid(1, speed=20_000)
    scored, why = choose([slow, fast], order(preferences=Preferences(sort="price")))
    assert scored[0][0] is fast
    assert "fastest" in why
    dear, cheap = bid(0, price=2_000_000), bid(1, price=1_000_000)
    scored, why = choose([dear, cheap], order(preferences=Preferences(sort="latency")))
    assert scored[0][0] is cheap
    twins, why = choose([bid(1), bid(0)], order(preferences=Preferences(sort="price")))
    assert twins[0][0].quote.node_key == NODES[0]
    assert "as cheap as the next" in why


FIGURES = st.tuples(st.integers(0, 2**53 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**53 - 1))


@given(st.lists(FIGURES, min_size=1, max_size=4), st.sampled_from(["price", "latency"]))
def test_nobody_beats_the_cheapest_or_the_soonest(rows: list[tuple[int, int, int]], sort: str) -> None:
    bids = [bid(number, *row) for number, row in enumerate(rows)]
    scored, why = choose(bids, order(preferences=Preferences(sort=sort)))  # type: ignore[arg-type]
    first = scored[0][0].quote
    assert why
    assert all(0 <= score <= 1 for _, score in scored)
    if sort == "price":
        assert bid_cost(scored[0][0], 50) == min(bid_cost(one, 50) for one in bids)
    else:
        done_s = [wait / 1000 + 50 * 1000 / max(speed, 1) for _, wait, speed in rows]
        assert first.first_token_ms / 1000 + 50 * 1000 / max(first.millitokens_per_s, 1) == min(done_s)


def test_those_are_asked_that_may_win() -> None:
    everyone = [bid(0, price=300_000), bid(1, price=200_000, speed=1), bid(2, price=900_000, speed=90_000)]
    for sort, best in (("price", 1), ("latency", 2)):
        wanted = order(preferences=Preferences(sort=sort))  # type: ignore[arg-type]
        asked = ask_order([one.eligible for one in everyone], wanted, frozenset(), 1, explore=0.0)
        assert asked[0].key == NODES[best]


# --- in a market ------------------------------------------------------------------------------------------

KEYS = [identity(seed).public_key for seed in (1, 2, 3)]
PLANS = (
    SellerPlan(1, price_out=1_000, model=fake_model("tiny", millitokens_per_s=1_000)),
    SellerPlan(2, price_out=2_000_000, model=fake_model("tiny", millitokens_per_s=90_000, quantisation="F16")),
)


@virtual_time
@pytest.mark.parametrize(
    ("preferences", "winner"),
    [
        (Preferences(sort="price"), 0),
        (Preferences(sort="latency"), 1),
        (Preferences(allow=frozenset(KEYS[1:])), 1),
        (Preferences(deny=frozenset({KEYS[0]})), 1),
        (Preferences(quantisations=frozenset({"F16"})), 1),
        (Preferences(sort="latency", deny=frozenset({KEYS[1]})), 0),
    ],
)
async def test_preferences_decide_who_runs_the_job(preferences: Preferences, winner: int) -> None:
    async with marketplace(*PLANS) as market:
        bought = await buy(market, order(preferences=preferences))
        assert bought.placement is not None and bought.placement.node_key == KEYS[winner]
        assert bought.placement.route.sort == preferences.ranking
        route = await market.buyer.route(order(preferences=preferences))
        assert (route.winner, route.sort) == (KEYS[winner], preferences.ranking)


@virtual_time
@pytest.mark.parametrize(("sort", "winner"), [("balanced", 1), ("price", 0)])
async def test_who_wants_the_lowest_price_waits_a_little_for_it(sort: str, winner: int) -> None:
    async with marketplace(*PLANS) as market:
        cheap = market.sellers[0]

        async def late(stream: Stream) -> None:
            await trio.sleep(0.2)
            await cheap.seller.serve(stream)

        cheap.network.serve(MARKET_PROTOCOL, late)
        bought = await buy(market, order(preferences=Preferences(sort=sort)))  # type: ignore[arg-type]
        assert bought.placement is not None and bought.placement.node_key == KEYS[winner]


@virtual_time
async def test_a_job_that_breaks_goes_to_nobody_else_than_may_have_it() -> None:
    broken = SellerPlan(1, price_out=1_000, script=lambda r: Script("", error=EngineError("worker_crashed", "died")))
    async with marketplace(broken, *PLANS[1:]) as market:
        assert (await buy(market)).text == ANSWER
        with pytest.raises(MarketError) as caught:
            await buy(market, order(preferences=Preferences(allow=frozenset({KEYS[0]}))))
        assert caught.value.code == "node_failed"
        assert len(market.sellers[1].engine.requests) == 1


@virtual_time
async def test_nobody_is_asked_when_nobody_is_wanted() -> None:
    async with marketplace(*PLANS) as market:
        nobody = order(preferences=Preferences(allow=frozenset({KEYS[2]})))
        with pytest.raises(MarketError, match="allow") as caught:
            await buy(market, nobody)
        assert caught.value.code == "preferences_not_met"
        route = await market.buyer.route(nobody)
        assert (route.winner, {line.outcome for line in route.candidates}) == (None, {"filtered"})


def quotes_another_file(honest: SellerPlan) -> tuple[SellerPlan, bytes]:
    """A seller that offers F16, and quotes what it really runs."""
    offered = replace(honest, model=fake_model("tiny", quantisation="F16", digest=FILES[1]))
    return offered, fake_model("tiny").digest


@virtual_time
@pytest.mark.parametrize(
    "preferences", [Preferences(quantisations=frozenset({"F16"})), Preferences(digests=frozenset(FILES[1:]))]
)
async def test_an_offer_of_one_file_that_is_quoted_as_another_wins_nothing(preferences: Preferences) -> None:
    plan, real = quotes_another_file(SellerPlan(1, price_out=1))
    async with marketplace(plan, replace(plan, seed=2, price_out=500_000)) as market:

        async def bait(stream: Stream) -> None:
            channel = JobChannel(stream, "executor")
            asked = await channel.receive()
            assert isinstance(asked.message, QuoteRequest)
            assert asked.message.digest == FILES[1]
            now = clock_ms()
            said = Quote(asked.hash, KEYS[0], "tiny", real, 512, 1, 1, "DE", 0, 1, 50_000, now, now + 10_000)
            await channel.send(pack(said, identity(1)))
            with pytest.raises(StreamBroken):
                await channel.receive()

        market.sellers[0].network.serve(MARKET_PROTOCOL, bait)
        bought = await buy(market, order(preferences=preferences))
        assert bought.placement is not None
        assert (bought.placement.node_key, bought.placement.digest) == (KEYS[1], FILES[1])
        (liar,) = [line for line in bought.placement.route.candidates if line.node_key == KEYS[0]]
        assert (liar.outcome, "another model file" in liar.reason) == ("refused", True)


COUNT_CHECKED = Preferences(min_assurance="count-checked")


@virtual_time
async def test_count_checked_buys_only_what_can_be_counted() -> None:
    async with marketplace(SellerPlan(1)) as market:
        bought = await buy(market, order(preferences=COUNT_CHECKED))
        assert bought.outcome is not None
        assert {check.outcome for check in bought.outcome.checks} == {"passed"}
    other_engine = fake_model("tiny", features=())
    for counts, plan in ((False, SellerPlan(1)), (True, SellerPlan(1, model=other_engine))):
        async with marketplace(plan, counts=counts) as market:
            assert (await buy(market)).text == ANSWER
            with pytest.raises(MarketError, match="count-checked") as caught:
                await buy(market, order(preferences=COUNT_CHECKED))
            assert (caught.value.code, caught.value.preference) == ("preferences_not_met", "min_assurance")


@virtual_time
@pytest.mark.parametrize(("preferences", "accepted"), [(Preferences(), True), (COUNT_CHECKED, False)])
async def test_what_could_not_be_counted_after_all_is_not_settled(
    preferences: Preferences, accepted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> int:
        raise EngineError("worker_crashed", "the meter died")

    monkeypatch.setattr(FakeCounter, "count_texts", broken)
    async with marketplace(SellerPlan(1)) as market:
        bought = await buy(market, order(preferences=preferences))
        assert bought.outcome is not None
        (counted,) = [check for check in bought.outcome.checks if check.name == "units_counted"]
        assert (bought.outcome.accepted, counted.outcome) == (accepted, "bounded" if accepted else "failed")
        assert accepted == (bought.outcome.cost > 0)
        assert accepted or "could not be made" in counted.detail


@virtual_time
async def test_a_model_that_is_known_by_its_file_is_still_bought_by_that_file_alone() -> None:
    async with marketplace(SellerPlan(1), known_digests={"tiny": FILES[0]}) as market:
        with pytest.raises(MarketError) as caught:
            await buy(market, order(preferences=Preferences(digests=frozenset({fake_model("tiny").digest}))))
        assert caught.value.code == "model_not_found"
