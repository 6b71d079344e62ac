"""Executors that lie about their work, and peers that send garbage: who catches it, and that nothing is settled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256

import pytest
import trio

from ryvion_node.engine.fake import fake_model
from ryvion_node.market.interface import MarketError
from ryvion_node.p2p.channel import JobChannel
from ryvion_node.p2p.interface import Stream, StreamBroken
from ryvion_protocol.constants import MARKET_PROTOCOL
from ryvion_protocol.framing import frame
from ryvion_protocol.job import job_id_of
from ryvion_protocol.messages import (
    AuditEnvelope,
    Cancel,
    Delta,
    Finished,
    Hardware,
    JobOffer,
    Quote,
    QuoteRequest,
    Receipt,
    Refusal,
    Started,
)
from ryvion_protocol.packet import Packet, pack
from ryvion_protocol.receipt import ReceiptFields, issue_receipt
from ryvion_protocol.schema import JobId
from ryvion_protocol.signing import SigningIdentity
from ryvion_protocol.transcript import Transcript
from tests.node.market.marketplace import SellerPlan, buy, clock_ms, identity, marketplace

pytestmark = pytest.mark.virtual_time

TEXT = "one two three"
PROMPT_TOKENS = 4  # by the fake's rule: to begin, the role, two words


@dataclass
class Lie:
    """What a lying executor changes in otherwise honest work."""

    receipt_fields: Callable[[ReceiptFields], ReceiptFields] = lambda fields: fields
    receipt: Callable[[Receipt], Receipt] = lambda receipt: receipt
    envelope: Callable[[AuditEnvelope], AuditEnvelope] = lambda envelope: envelope
    finished: Callable[[Finished], Finished] = lambda finished: finished
    receipt_signer: SigningIdentity | None = None
    envelope_signer: SigningIdentity | None = None


class Liar:
    """An executor that follows the protocol but for its lie."""

    def __init__(self, me: SigningIdentity, lie: Lie) -> None:
        self._me = me
        self._lie = lie

    async def serve(self, stream: Stream) -> None:
        channel = JobChannel(stream, "executor")
        asked = await channel.receive()
        assert isinstance(asked.message, QuoteRequest)
        model = fake_model("tiny")
        now = clock_ms()
        bid = Quote(
            asked.hash,
            self._me.public_key,
            "tiny",
            model.digest,
            512,
            50_000,
            200_000,
            "DE",
            0,
            1,
            50_000,
            now,
            now + 10_000,
        )
        quote = pack(bid, self._me)
        await channel.send(quote)
        try:
            ordered = await channel.receive()
            await channel.receive()
        except StreamBroken:
            return
        assert isinstance(ordered.message, JobOffer)
        await self._work(channel, ordered, ordered.message, quote)

    async def _work(self, channel: JobChannel, ordered: Packet, offer: JobOffer, quote: Packet) -> None:
        job_id = job_id_of(ordered)
        started_ms = clock_ms()
        await channel.send(pack(Started(job_id, PROMPT_TOKENS, Hardware("gpu", 1, 0, "cuda"), "DE", "", started_ms)))
        delta = pack(Delta(0, 0, TEXT, (1, 2, 3)))
        transcript = Transcript(job_id)
        transcript.add(delta.raw)
        await channel.send(delta)
        lie = self._lie
        honest = ReceiptFields(job_id, self._me.public_key, sha256(TEXT.encode()).digest(), PROMPT_TOKENS + 3)
        fields = lie.receipt_fields(honest)
        signer = lie.receipt_signer or self._me
        receipt = lie.receipt(issue_receipt(replace(fields, node_key=signer.public_key), signer))
        envelope = AuditEnvelope(
            job_id=job_id,
            executor_key=self._me.public_key,
            requester_key=offer.requester_key,
            receipt_digest=fields.digest(),
            quote_hash=quote.hash,
            transcript_hash=transcript.digest,
            status="completed",
            prompt_units=PROMPT_TOKENS,
            completion_units=fields.metering_units - PROMPT_TOKENS,
            model=offer.model,
            model_digest=offer.digest,
            jurisdiction="DE",
            chunk_hashes=(),
            chunk_root=b"",
            started_ms=started_ms,
            first_token_ms=started_ms,
            finished_ms=clock_ms(),
            previous_envelope=bytes(32),
        )
        envelope_signer = lie.envelope_signer or self._me
        told = replace(lie.envelope(envelope), executor_key=envelope_signer.public_key)
        finished = lie.finished(Finished("stop", PROMPT_TOKENS, envelope.completion_units))
        await channel.send(pack(finished), pack(receipt), pack(told, envelope_signer))
        try:
            while True:
                await channel.receive()
        except StreamBroken:
            return


def flipped(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


LIES = {
    "over-counts": (Lie(receipt_fields=lambda f: replace(f, metering_units=f.metering_units + 5)), "units_counted"),
    "bills far over the order": (
        Lie(receipt_fields=lambda f: replace(f, metering_units=900_000)),
        "units_within_limit",
    ),
    "another result hash": (Lie(receipt_fields=lambda f: replace(f, result_hash=bytes(32))), "result_hash"),
    "receipt for another job": (Lie(receipt_fields=lambda f: replace(f, job_id=JobId("0" * 64))), "job"),
    "broken signature": (Lie(receipt=lambda r: replace(r, signature=flipped(r.signature))), "signature"),
    "receipt by another key": (Lie(receipt_signer=identity(99)), "signature"),
    "envelope by another key": (Lie(envelope_signer=identity(99)), "signature"),
    "units changed after signing": (Lie(receipt=lambda r: replace(r, metering_units=1)), "signature"),
    "another model": (Lie(envelope=lambda e: replace(e, model_digest=bytes(32))), "job"),
    "another jurisdiction": (Lie(envelope=lambda e: replace(e, jurisdiction="US")), "job"),
    "another transcript": (Lie(envelope=lambda e: replace(e, transcript_hash=bytes(32))), "transcript_hash"),
    "envelope of another receipt": (Lie(envelope=lambda e: replace(e, receipt_digest=bytes(32))), "envelope"),
    "says cancelled": (Lie(envelope=lambda e: replace(e, status="cancelled")), "envelope"),
    "finished in the far future": (
        Lie(envelope=lambda e: replace(e, finished_ms=e.finished_ms + 3_600_000)),
        "time_window",
    ),
}


@pytest.mark.parametrize("name", LIES)
async def test_lie_is_caught_by_its_check_and_nothing_is_settled(name: str) -> None:
    lie, caught_by = LIES[name]
    async with marketplace(SellerPlan(1)) as market:
        seller = market.sellers[0]
        seller.network.serve(MARKET_PROTOCOL, Liar(seller.identity, lie).serve)
        bought = await buy(market)
        outcome = bought.outcome
        assert outcome is not None
        assert caught_by in [check.name for check in outcome.checks if check.outcome == "failed"]
        assert not outcome.accepted
        assert outcome.cost == 0
        record = await market.ledger.job(market_job(bought.placement), "bought")
        assert record is not None
        assert record.state == "disputed"
        assert record.cost_microcredits == 0
        assert (await market.ledger.totals()).spent_microcredits == 0


def market_job(placement: object) -> JobId:
    assert placement is not None
    return placement.job_id  # type: ignore[attr-defined,no-any-return]


async def test_honest_work_passes_the_same_path() -> None:
    async with marketplace(SellerPlan(1)) as market:
        seller = market.sellers[0]
        seller.network.serve(MARKET_PROTOCOL, Liar(seller.identity, Lie()).serve)
        bought = await buy(market)
        assert bought.outcome is not None
        assert [check for check in bought.outcome.checks if check.outcome != "passed"] == []


def request_packet() -> Packet:
    return pack(QuoteRequest("test", bytes(16), "tiny", b"", "chat", 4, 4, (), 0, 3000))


GARBAGE = {
    "random bytes": b"\xffgarbage" * 9,
    "oversized frame": (2**31).to_bytes(4, "big") + b"x",
    "empty frame": bytes(4),
    "truncated frame": frame(request_packet().raw)[:-3],
    "non-canonical": frame(b"\x93\xd9\x0d" + request_packet().raw[2:]),
    "another type": frame(pack(Cancel("why")).raw),
    "unsigned quote": frame(pack(Refusal("busy", "", 0)).raw),
}


@pytest.mark.parametrize("name", GARBAGE)
async def test_garbage_on_the_market_stream_harms_no_seller(name: str) -> None:
    async with marketplace(SellerPlan(1)) as market:
        seller = market.sellers[0]
        stream = await market.network.open_stream(seller.identity.public_key, MARKET_PROTOCOL)
        await stream.send(GARBAGE[name])
        await stream.close()
        bought = await buy(market)
        assert bought.outcome is not None
        assert bought.outcome.accepted


@pytest.mark.parametrize("name", GARBAGE)
async def test_garbage_from_a_seller_is_one_more_reason_to_ask_the_next(name: str) -> None:
    async def rubbish(stream: Stream) -> None:
        await stream.send(GARBAGE[name])
        await stream.close()

    async with marketplace(SellerPlan(1, price_out=1), SellerPlan(2)) as market:
        market.sellers[0].network.serve(MARKET_PROTOCOL, rubbish)
        bought = await buy(market)
        assert bought.placement is not None
        assert bought.placement.node_key == market.sellers[1].identity.public_key


async def test_job_offer_must_be_the_peers_own_and_for_this_quote() -> None:
    async with marketplace(SellerPlan(1)) as market:
        seller = market.sellers[0]
        channel = JobChannel(await market.network.open_stream(seller.identity.public_key, MARKET_PROTOCOL), "requester")
        await channel.send(request_packet())
        quote = await channel.receive()
        assert isinstance(quote.message, Quote)
        stranger = identity(77)
        from ryvion_node.market.filters import Eligible, PromptLength
        from ryvion_node.market.selection import Bid
        from ryvion_node.market.terms import Randomness, draw_up
        from tests.node.market.marketplace import NETWORK, order

        offer = market.book.live(clock_ms())[0]
        bid = Bid(Eligible(offer, offer.models[0], PromptLength(4, counted=True)), quote.message)
        terms = draw_up(order(), bid, quote, stranger, NETWORK, clock_ms(), Randomness(bytes(16), bytes(16), 1))
        await channel.send(terms.job_offer, terms.job_request)
        answer = await channel.receive()
        assert answer.message.code == "signature_invalid"  # type: ignore[union-attr]
        await trio.sleep(1)
        assert seller.engine.requests == []


async def test_seller_that_hangs_up_after_the_order_is_replaced() -> None:
    async def hang_up(stream: Stream) -> None:
        channel = JobChannel(stream, "executor")
        asked = await channel.receive()
        assert isinstance(asked.message, QuoteRequest)
        model, now = fake_model("tiny"), clock_ms()
        me = identity(1)
        bid = Quote(asked.hash, me.public_key, "tiny", model.digest, 512, 1, 1, "DE", 0, 1, 50_000, now, now + 10_000)
        await channel.send(pack(bid, me))
        await channel.receive()

    async with marketplace(SellerPlan(1, price_out=1), SellerPlan(2)) as market:
        market.sellers[0].network.serve(MARKET_PROTOCOL, hang_up)
        bought = await buy(market)
        assert bought.placement is not None
        assert bought.placement.node_key == market.sellers[1].identity.public_key


async def test_everyone_hanging_up_is_a_clear_error() -> None:
    async def hang_up(stream: Stream) -> None:
        await stream.receive()

    async with marketplace(SellerPlan(1)) as market:
        market.sellers[0].network.serve(MARKET_PROTOCOL, hang_up)
        with pytest.raises(MarketError) as caught:
            await buy(market)
        assert caught.value.code == "no_capacity"


async def test_another_file_under_a_known_name_is_never_bought() -> None:
    genuine = fake_model("tiny")
    impostor = fake_model("tiny", digest=b"\x66" * 32)
    async with marketplace(
        SellerPlan(1, price_out=1, model=impostor), SellerPlan(2), known_digests={"tiny": genuine.digest}
    ) as market:
        bought = await buy(market)
        assert bought.placement is not None
        assert bought.placement.digest == genuine.digest
        filtered = [c.reason for c in bought.placement.route.candidates if c.outcome == "filtered"]
        assert len(filtered) == 1
        assert filtered[0].startswith("sells another file under this name (666666666666")
    async with marketplace(SellerPlan(1, model=impostor), known_digests={"tiny": genuine.digest}) as market:
        with pytest.raises(MarketError, match="nobody serves the file") as caught:
            await buy(market)
        assert caught.value.code == "model_not_found"
