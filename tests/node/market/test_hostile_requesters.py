"""Requesters that cheat, flood or stop reading: the executor loses no evidence, no room and no memory to them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio

from ryvion_node.engine.fake import Script, fake_model
from ryvion_node.executor.workshop import Chains
from ryvion_node.ledger.fake import FakeLedger
from ryvion_node.ledger.records import NO_ENVELOPE
from ryvion_node.market.filters import Eligible, PromptLength
from ryvion_node.market.selection import Bid
from ryvion_node.market.terms import Randomness, draw_up
from ryvion_node.p2p.channel import JobChannel
from ryvion_protocol.constants import MARKET_PROTOCOL
from ryvion_protocol.job import job_id_of
from ryvion_protocol.messages import (
    Acceptance,
    AuditEnvelope,
    Cancel,
    Delta,
    Error,
    Finished,
    JobOffer,
    Quote,
    QuoteRequest,
    Receipt,
    Refusal,
    Withdraw,
)
from ryvion_protocol.packet import Packet, pack
from ryvion_protocol.schema import JobId
from tests.node.market.marketplace import (
    ANSWER,
    NETWORK,
    Marketplace,
    SellerPlan,
    clock_ms,
    identity,
    marketplace,
    order,
)

pytestmark = pytest.mark.virtual_time


async def ask(market: Marketplace, nonce: int = 0) -> tuple[JobChannel, Packet]:
    """Ask the first seller for a quote, by hand."""
    key = market.sellers[0].identity.public_key
    channel = JobChannel(await market.network.open_stream(key, MARKET_PROTOCOL), "requester")
    request = QuoteRequest(NETWORK, nonce.to_bytes(16, "big"), "tiny", b"", "chat", 4, 50, (), 0, 3000)
    await channel.send(pack(request))
    return channel, await channel.receive()


async def place(market: Marketplace, **changes: object) -> tuple[JobChannel, JobId]:
    """Order a job of the first seller by hand; `changes` replace fields of the JobOffer."""
    channel, quote = await ask(market)
    assert isinstance(quote.message, Quote)
    offer = market.sellers[0].offer.message
    bid = Bid(Eligible(offer, offer.models[0], PromptLength(4, counted=True)), quote.message)  # type: ignore[arg-type,union-attr]
    randomness = Randomness(bytes(16), bytes(16), 1)
    terms = draw_up(order(), bid, quote, market.buyer_identity, NETWORK, clock_ms(), randomness)
    assert isinstance(terms.job_offer.message, JobOffer)
    ordered = pack(replace(terms.job_offer.message, **changes), market.buyer_identity)  # type: ignore[arg-type]
    await channel.send(ordered, terms.job_request)
    return channel, job_id_of(ordered)


async def read_on(channel: JobChannel) -> list[Packet]:
    """Everything up to the AuditEnvelope or an Error."""
    packets = [await channel.receive()]
    while not isinstance(packets[-1].message, AuditEnvelope | Error):
        packets.append(await channel.receive())
    return packets


VERDICTS = {
    "by another key": lambda verdict: replace(verdict, requester_key=identity(99).public_key),
    "on another job": lambda verdict: replace(verdict, job_id=JobId("0" * 64)),
    "on another envelope": lambda verdict: replace(verdict, envelope_hash=bytes(32)),
    "to fewer units": lambda verdict: replace(verdict, agreed_units=verdict.agreed_units - 1),
}


@pytest.mark.parametrize("name", [*VERDICTS, "honest"])
async def test_only_a_verdict_on_this_very_envelope_by_this_requester_is_recorded(name: str) -> None:
    async with marketplace(SellerPlan(1)) as market:
        channel, job_id = await place(market)
        *_, receipt, envelope = await read_on(channel)
        assert isinstance(receipt.message, Receipt)
        honest = Acceptance(
            job_id, market.buyer_identity.public_key, envelope.hash, receipt.message.metering_units, True, ""
        )
        told = VERDICTS.get(name, lambda verdict: verdict)(honest)
        await channel.send(pack(told, identity(99) if name == "by another key" else market.buyer_identity))
        await trio.sleep(1)
        record = await market.sellers[0].ledger.job(job_id, "sold")
        assert record is not None
        assert record.state == ("accepted" if name == "honest" else "delivered")


async def test_cancel_that_meets_a_blocked_frame_is_still_answered_with_a_receipt() -> None:
    word = "x" * 32_000
    plan = SellerPlan(1, script=lambda r: Script(" ".join([word] * 40), token_s=0.05))
    async with marketplace(plan) as market:
        channel, _ = await place(market)
        await trio.sleep(2)  # nothing is read: the stream's 256 KiB are full and a frame is half sent
        await channel.send(pack(Cancel("why")))
        *answer, finished, _, envelope = await read_on(channel)
        text = "".join(packet.message.text for packet in answer if isinstance(packet.message, Delta))
        assert isinstance(finished.message, Finished)
        assert isinstance(envelope.message, AuditEnvelope)
        assert finished.message.reason == "cancelled"
        assert finished.message.completion_tokens == len(text.split()) < 40


async def test_job_ends_with_its_order_and_bills_what_was_delivered() -> None:
    plan = SellerPlan(1, script=lambda r: Script(ANSWER, token_s=4.0))
    async with marketplace(plan) as market:
        channel, _ = await place(market, expires_ms=clock_ms() + 10_000)
        *answer, finished, receipt, envelope = await read_on(channel)
        assert isinstance(finished.message, Finished)
        assert isinstance(receipt.message, Receipt)
        assert isinstance(envelope.message, AuditEnvelope)
        text = "".join(packet.message.text for packet in answer if isinstance(packet.message, Delta))
        assert (text, finished.message.reason, envelope.message.status) == ("one two", "length", "completed")
        assert receipt.message.metering_units == finished.message.prompt_tokens + 2


async def test_order_whose_time_is_up_before_its_turn_fails_without_a_bill() -> None:
    plan = SellerPlan(1, model=fake_model("tiny", slots=1), script=lambda r: Script("a", hangs=True), max_queue=1)
    async with marketplace(plan) as market, market.buyer.buy(order()):
        channel, job_id = await place(market, expires_ms=clock_ms() + 5_000)
        (error,) = await read_on(channel)
        assert isinstance(error.message, Error)
        record = await market.sellers[0].ledger.job(job_id, "sold")
        assert record is not None
        assert record.state == "failed"


async def test_order_that_could_cost_more_than_it_pays_is_refused_before_any_work() -> None:
    async with marketplace(SellerPlan(1)) as market:
        channel, _ = await place(market, max_price=1)
        (error,) = await read_on(channel)
        assert isinstance(error.message, Error)
        assert error.message.code == "limits"
        assert market.sellers[0].engine.requests == []


async def test_order_of_no_tokens_fails_without_a_bill() -> None:
    async with marketplace(SellerPlan(1)) as market:
        channel, job_id = await place(market, max_completion_tokens=0)
        (error,) = await read_on(channel)
        assert isinstance(error.message, Error)
        assert error.message.code == "unsupported"
        record = await market.sellers[0].ledger.job(job_id, "sold")
        assert record is not None
        assert record.state == "failed"
        assert market.sellers[0].engine.requests == []


async def test_quotes_alone_never_take_all_the_room_from_others() -> None:
    async with marketplace(SellerPlan(1, max_queue=2)) as market:
        answers = [(await ask(market, nonce))[1].message for nonce in range(12)]
        assert {type(answer) for answer in answers} == {Quote, Refusal}
        stranger = identity(50)
        network = market.internet.node(stranger.public_key)
        await market.nursery.start(network.run)
        channel = JobChannel(
            await network.open_stream(market.sellers[0].identity.public_key, MARKET_PROTOCOL), "requester"
        )
        await channel.send(pack(QuoteRequest(NETWORK, bytes(16), "tiny", b"", "chat", 4, 4, (), 0, 3000)))
        assert isinstance((await channel.receive()).message, Quote)


async def test_ordered_jobs_do_not_count_against_the_quotes_of_their_requester() -> None:
    plan = SellerPlan(1, model=fake_model("tiny", slots=12), script=lambda r: Script("a", hangs=True))
    async with marketplace(plan) as market:
        for _ in range(10):
            await place(market)
            await trio.sleep(0.1)
        assert market.sellers[0].seller.free_slots("tiny") == 2


async def test_chains_of_many_requesters_are_bounded_and_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ryvion_node.executor.workshop.MAX_CHAINS", 2)
    chains = Chains(FakeLedger(clock=clock_ms), identity(1).public_key)
    envelope = pack(Withdraw(NETWORK, identity(1).public_key, 1, 1), identity(1))  # any packet has a hash
    keys = [identity(seed).public_key for seed in (2, 3, 4)]
    for key in keys:
        await chains.load(key)
        chains.extend(key, envelope)
    for key, last in zip(keys, (NO_ENVELOPE, envelope.hash, envelope.hash), strict=True):
        await chains.load(key)
        assert chains.last(key) == last
