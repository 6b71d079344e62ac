"""The main path in memory: order, auction, stream, receipt, checks, ledgers; and what happens when it breaks."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import pytest
import trio

from ryvion_node.engine.fake import FakeCounter, Script, fake_model
from ryvion_node.engine.interface import EngineError, GenerationRequest, Sampling
from ryvion_node.market.constants import DEFAULT_RETRY_MS, MAX_REASONS_TOLD
from ryvion_node.market.interface import MarketError, Piece
from ryvion_node.p2p.interface import Stream
from ryvion_protocol.constants import MARKET_PROTOCOL
from tests.node.market.marketplace import ANSWER, SellerPlan, buy, marketplace, order

pytestmark = pytest.mark.virtual_time

SLOW = Script(ANSWER, token_s=1.0)


async def test_answer_comes_with_a_receipt_that_passes_every_check() -> None:
    async with marketplace(SellerPlan(1)) as market:
        bought = await buy(market)
        assert bought.text == ANSWER
        outcome = bought.outcome
        assert outcome is not None
        assert {check.outcome for check in outcome.checks} == {"passed"}
        assert outcome.accepted
        assert outcome.receipt.result_hash == sha256(ANSWER.encode()).digest()
        assert outcome.completion_tokens == 6
        assert outcome.receipt.metering_units == outcome.prompt_tokens + 6
        # 50,000 and 200,000 micro-credits per million tokens, rounded up once.
        assert outcome.cost == -(-(outcome.prompt_tokens * 50_000 + 6 * 200_000) // 1_000_000)
        await trio.sleep(1)
        job_id = outcome.receipt.job_id
        ours = await market.ledger.job(job_id, "bought")
        theirs = await market.sellers[0].ledger.job(job_id, "sold")
        assert ours is not None
        assert theirs is not None
        assert (ours.state, theirs.state) == ("accepted", "accepted")
        assert ours.cost_microcredits == theirs.cost_microcredits == outcome.cost


async def test_first_text_comes_at_once_and_the_rest_is_gathered() -> None:
    async with marketplace(SellerPlan(1, script=lambda r: Script("a b c d e f g h", token_s=0.01))) as market:
        bought = await buy(market)
        texts = [event.content for event in bought.events if isinstance(event, Piece)]
        assert texts[0] == "a"
        assert "".join(texts) == "a b c d e f g h"
        assert len(texts) < 8


async def test_nothing_is_lost_that_arrives_while_a_frame_is_under_way() -> None:
    plan = SellerPlan(1, script=lambda r: Script("a b c d e f g h", token_s=0.001))
    async with marketplace(plan) as market:
        market.internet.delay_s = 0.004
        for _ in range(5):
            assert (await buy(market)).text == "a b c d e f g h"


async def test_envelopes_of_a_pair_form_a_chain() -> None:
    async with marketplace(SellerPlan(1)) as market:
        first, second = await buy(market), await buy(market)
        assert first.outcome is not None
        assert second.outcome is not None
        assert _field(first.outcome.envelope, "previous_envelope") == "00" * 32
        assert _field(second.outcome.envelope, "previous_envelope") != "00" * 32


def _field(envelope: dict[str, object], name: str) -> object:
    fields = envelope["fields"]
    assert isinstance(fields, dict)
    return fields[name]


async def test_cheaper_of_two_equal_sellers_wins_and_says_why() -> None:
    dear = SellerPlan(2, jurisdiction="CA", price_in=150_000, price_out=600_000)
    async with marketplace(SellerPlan(1), dear) as market:
        bought = await buy(market)
        assert bought.placement is not None
        assert bought.placement.jurisdiction == "DE"
        outcomes = {c.jurisdiction: c.outcome for c in bought.placement.route.candidates}
        assert outcomes == {"DE": "won", "CA": "bid"}
        assert "cheapest" in bought.placement.route.explanation


async def test_jurisdiction_is_a_hard_filter() -> None:
    dear = SellerPlan(2, jurisdiction="CA", price_in=150_000, price_out=600_000)
    async with marketplace(SellerPlan(1), dear) as market:
        bought = await buy(market, order(jurisdictions=("CA",)))
        assert bought.placement is not None
        assert bought.placement.jurisdiction == "CA"
        filtered = [c for c in bought.placement.route.candidates if c.outcome == "filtered"]
        assert [c.reason for c in filtered] == ["jurisdiction DE is not CA"]
        with pytest.raises(MarketError, match="served in: CA, DE") as caught:
            await buy(market, order(jurisdictions=("JP",)))
        assert caught.value.code == "jurisdiction_not_allowed"


async def test_unknown_model_names_what_is_on_offer() -> None:
    async with marketplace(SellerPlan(1)) as market:
        with pytest.raises(MarketError, match="on offer now: tiny") as caught:
            await buy(market, order(model="gpt-9"))
        assert caught.value.code == "model_not_found"


async def test_empty_market_says_so() -> None:
    async with marketplace() as market:
        with pytest.raises(MarketError, match=r"no executor is in reach.*--bootstrap") as caught:
            await buy(market)
    # No model is unknown where nothing is known: clients try this again, and a node that has just started hears offers.
    assert (caught.value.code, caught.value.retry_after_ms) == ("no_capacity", DEFAULT_RETRY_MS)


async def test_names_that_are_close_are_told_before_all_others() -> None:
    models = [fake_model(f"other-{number}") for number in range(MAX_REASONS_TOLD)]
    plans = [SellerPlan(seed, model=model) for seed, model in enumerate([fake_model("ryvion-tiny"), *models], 1)]
    async with marketplace(*plans) as market:
        with pytest.raises(MarketError, match=r"on offer now: ryvion-tiny, other-0, .*, and 1 more"):
            await buy(market, order(model="ryvion-tinny"))


async def test_conversation_that_fits_nowhere_is_refused_before_any_quote() -> None:
    async with marketplace(SellerPlan(1, model=fake_model("tiny", context_tokens=4))) as market:
        with pytest.raises(MarketError) as caught:
            await buy(market)
        assert caught.value.code == "context_length_exceeded"


async def test_price_limit_is_a_hard_filter() -> None:
    async with marketplace(SellerPlan(1, price_out=10**12)) as market:
        with pytest.raises(MarketError, match="above the limit of 5") as caught:
            await buy(market, order(max_price=5))
        assert caught.value.code == "price_limit"


async def test_without_the_tokenizer_units_are_bounded_and_the_check_says_so() -> None:
    async with marketplace(SellerPlan(1), counts=False) as market:
        bought = await buy(market)
        assert bought.outcome is not None
        assert bought.outcome.accepted
        assert {c.name for c in bought.outcome.checks if c.outcome == "bounded"} == {"units_counted"}


async def test_executor_that_fails_before_the_first_token_is_replaced_unnoticed() -> None:
    broken = SellerPlan(1, price_out=1, script=lambda r: Script("", error=EngineError("worker_crashed", "it died")))
    async with marketplace(broken, SellerPlan(2)) as market:
        bought = await buy(market)
        assert bought.text == ANSWER
        assert bought.placement is not None
        assert bought.placement.node_key == market.sellers[1].identity.public_key
        lines = {c.node_key: c.reason for c in bought.placement.route.candidates}
        assert "worker_crashed" in lines[market.sellers[0].identity.public_key]


async def test_executor_too_slow_for_the_round_is_asked_again_when_the_winner_breaks() -> None:
    broken = SellerPlan(1, price_out=1, script=lambda r: Script("", error=EngineError("worker_crashed", "it died")))
    async with marketplace(broken, SellerPlan(2)) as market:
        slow = market.sellers[1]

        async def serve(stream: Stream) -> None:
            await trio.sleep(1)
            await slow.seller.serve(stream)

        slow.network.serve(MARKET_PROTOCOL, serve)
        bought = await buy(market)
        assert bought.text == ANSWER
        assert bought.placement is not None
        assert [line.outcome for line in bought.placement.route.candidates] == ["won", "refused"]


async def test_executor_killed_before_the_first_token_is_replaced_unnoticed() -> None:
    silent = SellerPlan(1, price_out=1, script=lambda r: Script("", hangs=True))
    async with marketplace(silent, SellerPlan(2)) as market:
        async with market.buyer.buy(order()) as job:
            assert job.placement.node_key == market.sellers[0].identity.public_key
            market.internet.kill(market.sellers[0].identity.public_key)
            texts = [event.content async for event in job.events() if isinstance(event, Piece)]
        assert "".join(texts) == ANSWER


async def test_stalling_executor_is_given_up_after_the_first_token_timeout() -> None:
    silent = SellerPlan(1, price_out=1, script=lambda r: Script("", hangs=True))
    async with marketplace(silent, SellerPlan(2)) as market:
        began = trio.current_time()
        bought = await buy(market)
        assert bought.text == ANSWER
        assert 10 <= trio.current_time() - began < 12


async def test_executor_killed_in_the_answer_is_an_error_never_a_stop() -> None:
    async with marketplace(SellerPlan(1, script=lambda r: SLOW), SellerPlan(2, price_out=10**6)) as market:
        seen = []
        with pytest.raises(MarketError, match="part of the answer") as caught:  # noqa: PT012
            async with market.buyer.buy(order()) as job:
                async for event in job.events():
                    seen.append(event)
                    if isinstance(event, Piece):
                        market.internet.kill(market.sellers[0].identity.public_key)
        assert caught.value.code == "node_failed"
        failed = await market.ledger.unfinished_jobs("bought")
        assert failed == ()


async def test_engine_failing_in_the_answer_is_an_error_and_bills_nothing() -> None:
    plan = SellerPlan(1, script=lambda r: Script("a b c", token_s=1.0, error=EngineError("worker_crashed", "it died")))
    async with marketplace(plan) as market:
        with pytest.raises(MarketError, match="worker_crashed"):
            await buy(market)
        totals = await market.ledger.totals()
        assert totals.spent_microcredits == 0


async def test_everyone_failing_names_the_last_failure() -> None:
    dead = Script("", error=EngineError("worker_crashed", "it died"))
    plans = [SellerPlan(seed, script=lambda r: dead) for seed in (1, 2, 3, 4)]
    async with marketplace(*plans) as market:
        with pytest.raises(MarketError, match="worker_crashed") as caught:
            await buy(market)
        assert caught.value.code == "node_failed"


async def test_leaving_stops_the_executor_and_settles_what_was_delivered() -> None:
    async with marketplace(SellerPlan(1, script=lambda r: SLOW)) as market:
        async with market.buyer.buy(order()) as job:
            async for event in job.events():
                if isinstance(event, Piece):
                    break
            job_id = job.placement.job_id
        await trio.sleep(0.5)
        engine = market.sellers[0].engine
        assert engine.cancelled == 1
        ours = await market.ledger.job(job_id, "bought")
        theirs = await market.sellers[0].ledger.job(job_id, "sold")
        assert ours is not None
        assert theirs is not None
        assert (ours.state, theirs.state) == ("accepted", "accepted")
        assert ours.completion_units == 1
        assert market.sellers[0].seller.free_slots("tiny") == 4


async def test_whoever_leaves_while_the_answer_is_counted_pays_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    count = FakeCounter.count_texts

    async def slowly(counter: FakeCounter, digest: bytes, texts: Sequence[str]) -> int:
        await trio.sleep(1)
        return await count(counter, digest, texts)

    monkeypatch.setattr(FakeCounter, "count_texts", slowly)
    async with marketplace(SellerPlan(1)) as market:
        text = ""
        with trio.move_on_after(0.5):
            async with market.buyer.buy(order()) as job:
                async for event in job.events():
                    text += event.content if isinstance(event, Piece) else ""
        assert text == ANSWER
        await trio.sleep(2)
        ours = await market.ledger.job(job.placement.job_id, "bought")
        theirs = await market.sellers[0].ledger.job(job.placement.job_id, "sold")
        assert ours is not None and theirs is not None
        assert (ours.state, theirs.state) == ("accepted", "accepted")
        assert ours.cost_microcredits == theirs.cost_microcredits > 0


async def test_requester_killed_while_streaming_stops_generation_and_leaves_the_evidence() -> None:
    async with marketplace(SellerPlan(1, script=lambda r: SLOW)) as market:
        job_id = None
        with pytest.raises(MarketError):  # noqa: PT012
            async with market.buyer.buy(order()) as job:
                job_id = job.placement.job_id
                async for event in job.events():
                    if isinstance(event, Piece):
                        market.internet.kill(market.buyer_identity.public_key)
        await trio.sleep(1)
        assert market.sellers[0].engine.cancelled == 1
        assert job_id is not None
        theirs = await market.sellers[0].ledger.job(job_id, "sold")
        assert theirs is not None
        assert theirs.state == "delivered"
        assert theirs.completion_units == 1


async def test_busy_seller_refuses_and_the_next_one_serves() -> None:
    small = fake_model("tiny", slots=1)
    async with marketplace(SellerPlan(1, model=small, script=lambda r: SLOW), SellerPlan(2, price_out=10**6)) as market:
        async with market.buyer.buy(order()) as first:
            assert first.placement.node_key == market.sellers[0].identity.public_key
            second = await buy(market)
        assert second.placement is not None
        assert second.placement.node_key == market.sellers[1].identity.public_key
        assert any(c.reason.startswith("busy") for c in second.placement.route.candidates)


async def test_all_busy_is_no_capacity_with_a_time_to_retry() -> None:
    small = fake_model("tiny", slots=1)
    async with marketplace(SellerPlan(1, model=small, script=lambda r: SLOW)) as market:
        async with market.buyer.buy(order()):
            with pytest.raises(MarketError, match="busy") as caught:
                await buy(market)
        assert caught.value.code == "no_capacity"
        assert caught.value.retry_after_ms is not None


async def test_queued_job_waits_for_a_slot() -> None:
    small = fake_model("tiny", slots=1)
    plan = SellerPlan(1, model=small, script=lambda r: Script(ANSWER, token_s=0.1), max_queue=4)
    async with marketplace(plan) as market, trio.open_nursery() as nursery:
        answers = []

        async def one() -> None:
            answers.append((await buy(market)).text)

        for _ in range(3):
            nursery.start_soon(one)
        await trio.sleep(30)
        assert answers == [ANSWER] * 3


async def test_sampling_and_limits_reach_the_engine_as_ordered() -> None:
    async with marketplace(SellerPlan(1)) as market:
        bought = await buy(market, order(temperature=0.25, top_p=0.5, seed=7, stop=("x",), max_completion_tokens=3))
        request: GenerationRequest = market.sellers[0].engine.requests[0]
        assert request.sampling == Sampling(0.25, 0.5, 7)
        assert request.stop == ("x",)
        assert request.max_tokens == 3
        assert bought.outcome is not None
        assert bought.outcome.finish_reason == "length"
        assert bought.text == "one two three"


async def test_route_explains_without_running_anything() -> None:
    async with marketplace(SellerPlan(1), SellerPlan(2, price_out=10**6)) as market:
        route = await market.buyer.route(order())
        assert route.winner == market.sellers[0].identity.public_key
        assert [c.outcome for c in route.candidates] == ["won", "bid"]
        await trio.sleep(1)
        assert market.sellers[0].engine.requests == []
        assert market.sellers[0].seller.free_slots("tiny") == 4


async def test_our_own_disagreeing_count_rejects_the_receipt_and_settles_nothing() -> None:
    async with marketplace(SellerPlan(1), counter_extra=1) as market:
        bought = await buy(market)
        assert bought.text == ANSWER
        assert bought.outcome is not None
        assert not bought.outcome.accepted
        assert bought.outcome.cost == 0
        assert [c.name for c in bought.outcome.checks if c.outcome == "failed"] == ["units_counted"]
        assert (await market.ledger.totals()).spent_microcredits == 0


async def test_full_ledger_stops_buying_before_anything_is_sent() -> None:
    async with marketplace(SellerPlan(1)) as market:
        market.ledger.fail_writes("disk full")
        with pytest.raises(MarketError, match="disk full"):
            await buy(market)
        assert market.sellers[0].engine.requests == []


async def test_seller_that_cannot_keep_its_books_delivers_nothing_and_the_next_one_serves() -> None:
    async with marketplace(SellerPlan(1, price_out=1), SellerPlan(2)) as market:
        market.sellers[0].ledger.fail_writes("disk full")
        bought = await buy(market)
        assert bought.placement is not None
        assert bought.placement.node_key == market.sellers[1].identity.public_key
        assert bought.text == ANSWER
        lines = {c.node_key: c.reason for c in bought.placement.route.candidates}
        assert "ledger_unavailable" in lines[market.sellers[0].identity.public_key]


async def test_slot_is_free_again_before_the_verdict_comes() -> None:
    small = fake_model("tiny", slots=1)
    async with marketplace(SellerPlan(1, model=small)) as market, market.buyer.buy(order()) as job:
        async for event in job.events():
            if isinstance(event, Piece) and event.content.endswith("six"):
                break
        await trio.sleep(0.2)
        assert market.sellers[0].seller.free_slots("tiny") == 1
