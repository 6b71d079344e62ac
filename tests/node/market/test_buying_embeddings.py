"""Vectors bought and sold in memory: the main path, what is billed of a cut one, and sellers that lie about them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import pytest
import trio

from ryvion_node.engine.fake import count_embedded, fake_model, fake_vector
from ryvion_node.executor.embedding import lots
from ryvion_node.market.interface import Done, EmbeddingOrder, MarketError, Outcome, Taken, VectorsPiece
from ryvion_node.p2p.channel import JobChannel
from ryvion_node.p2p.interface import Stream, StreamBroken
from ryvion_protocol.agreement import NO_SAMPLING
from ryvion_protocol.any_message import Message
from ryvion_protocol.constants import MARKET_PROTOCOL
from ryvion_protocol.job import job_id_of
from ryvion_protocol.messages import (
    AuditEnvelope,
    ChatMessage,
    EmbedRequest,
    Error,
    Finished,
    Hardware,
    JobOffer,
    JobRequest,
    Quote,
    QuoteRequest,
    Started,
    Vectors,
)
from ryvion_protocol.packet import pack
from ryvion_protocol.receipt import ReceiptFields, issue_receipt
from ryvion_protocol.transcript import Transcript
from tests.node.market.marketplace import (
    NETWORK,
    Marketplace,
    SellerPlan,
    buy,
    clock_ms,
    marketplace,
    order,
)

pytestmark = pytest.mark.virtual_time

MODEL = fake_model("vectors", kind="embedding", dimensions=1024, context_tokens=8, features=("counted",))
TEXTS = ("a cat sleeps", "bonds fell", "rain")
TOKENS = sum(map(count_embedded, TEXTS))


def plan(**changes: Any) -> SellerPlan:
    return SellerPlan(**({"seed": 1, "model": MODEL} | changes))  # type: ignore[arg-type]


def texts(*wanted: str, **changes: Any) -> EmbeddingOrder:
    return EmbeddingOrder("vectors", wanted or TEXTS, **changes)


async def embed(market: Marketplace, wanted: EmbeddingOrder | None = None) -> tuple[bytes, Outcome]:
    """Run an order to its end, on one executor."""
    values, outcome = b"", None
    async with market.buyer.embed(wanted or texts()) as job:
        async for event in job.events():
            match event:
                case VectorsPiece(dimensions=dimensions):
                    assert dimensions == MODEL.dimensions
                    values += event.values
                case Done():
                    outcome = event.outcome
                case Taken():
                    assert not values
    assert outcome is not None
    return values, outcome


async def test_vectors_come_with_a_receipt_that_passes_every_check() -> None:
    async with marketplace(plan()) as market:
        values, outcome = await embed(market)
        assert values == b"".join(fake_vector(text, 1024) for text in TEXTS)
        assert outcome.receipt.result_hash == sha256(values).digest()
        assert {check.outcome for check in outcome.checks} == {"passed"}
        assert (outcome.prompt_tokens, outcome.completion_tokens) == (TOKENS, 0)
        assert outcome.receipt.metering_units == TOKENS
        assert outcome.cost == -(-TOKENS * 50_000 // 1_000_000)
        await trio.sleep(1)
        for ledger, side in ((market.ledger, "bought"), (market.sellers[0].ledger, "sold")):
            job = await ledger.job(outcome.receipt.job_id, side)  # type: ignore[arg-type]
            assert job is not None
            assert (job.state, job.cost_microcredits) == ("accepted", outcome.cost)


async def test_many_texts_go_in_lots_and_frames() -> None:
    many = tuple(f"text {number}" for number in range(200))
    async with marketplace(plan()) as market:
        values, outcome = await embed(market, texts(*many))
        assert values == b"".join(fake_vector(text, 1024) for text in many)
        assert [len(lot) for lot in market.sellers[0].engine.embedded] == [64, 64, 64, 8]
        assert outcome.accepted


def test_lots_are_short_enough_to_come_often() -> None:
    texts = ("a" * 10, "b" * 10, "c" * 30, "d", "e")
    assert list(lots(texts, 20)) == [texts[:2], texts[2:3], texts[3:]]
    assert list(lots(texts, 0)) == [(text,) for text in texts]
    assert [len(lot) for lot in lots("x" * 130, 1000)] == [64, 64, 2]


async def test_without_the_tokenizer_units_are_bounded() -> None:
    async with marketplace(plan(), counts=False) as market:
        _, outcome = await embed(market)
        assert {check.name: check.outcome for check in outcome.checks}["units_counted"] == "bounded"
        assert outcome.accepted


async def test_a_client_that_leaves_pays_for_the_vectors_that_were_sent() -> None:
    many = tuple(f"text {number}" for number in range(200))
    async with marketplace(plan()) as market:
        market.sellers[0].engine.embed_s = 1.0
        async with market.buyer.embed(texts(*many)) as job:
            job_id = job.placement.job_id
            async for event in job.events():
                if isinstance(event, VectorsPiece):
                    break
        await trio.sleep(3)
        bought = await market.ledger.job(job_id, "bought")
        assert bought is not None
        assert bought.state == "accepted"
        # One lot of 64 texts of four tokens had been sent.
        assert bought.cost_microcredits == -(-64 * 4 * 50_000 // 1_000_000)
        assert len(market.sellers[0].engine.embedded) < 4
        assert market.sellers[0].seller.free_slots("vectors") == 4


async def test_a_chat_model_makes_no_vectors_and_an_embedding_model_does_not_chat() -> None:
    async with marketplace(plan(), SellerPlan(2)) as market:
        with pytest.raises(
            MarketError, match="is a model of kind embedding, wanted is chat; on offer now: tiny"
        ) as caught:
            await buy(market, order(model="vectors"))
        assert caught.value.code == "model_not_found"
        with pytest.raises(MarketError, match="on offer now: vectors"):
            await embed(market, EmbeddingOrder("tiny", TEXTS))


async def test_the_choice_of_a_seller_of_vectors_is_explained() -> None:
    async with marketplace(plan(), plan(seed=2, price_in=100_000)) as market:
        route = await market.buyer.route(texts())
        assert route.winner == market.sellers[0].identity.public_key
        assert {candidate.outcome for candidate in route.candidates} == {"won", "bid"}
        assert "cheapest" in route.explanation


async def test_a_text_longer_than_the_context_is_refused_by_its_code() -> None:
    async with marketplace(plan()) as market:
        with pytest.raises(MarketError) as caught:
            await embed(market, texts("fine", "one two three four five six seven"))
        assert caught.value.code == "context_length_exceeded"


async def test_a_price_limit_holds_for_embeddings() -> None:
    async with marketplace(plan(price_in=10**12)) as market:
        with pytest.raises(MarketError) as caught:
            await embed(market, texts(max_price=5))
        assert caught.value.code == "price_limit"
    async with marketplace(plan(price_out=10**12)) as market:
        assert (await embed(market, texts(max_price=5)))[1].accepted


async def test_a_place_is_a_hard_filter_for_embeddings() -> None:
    async with marketplace(plan()) as market:
        with pytest.raises(MarketError) as caught:
            await embed(market, texts(jurisdictions=("JP",)))
        assert caught.value.code == "jurisdiction_not_allowed"


# --- liars --------------------------------------------------------------------------------------------------


def numbers(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


ONE = numbers(1.0, 0.0)


@dataclass(frozen=True)
class Lie:
    """What a seller sends for three texts, and says of it."""

    frames: Sequence[tuple[int, int, int, bytes]] = ((0, 0, 2, 3 * ONE),)
    """Number, first text, dimensions, values."""
    reason: str = "stop"
    prompt_units: int = TOKENS
    completion_units: int = 0
    hashed: bytes | None = None
    metering_units: int | None = None


def lies(market: Marketplace, lie: Lie) -> None:
    """Let the first seller serve this."""
    me = market.sellers[0].identity

    async def serve(stream: Stream) -> None:
        channel = JobChannel(stream, "executor")
        asked = await channel.receive()
        assert isinstance(asked.message, QuoteRequest)
        now = clock_ms()
        bid = Quote(asked.hash, me.public_key, "vectors", MODEL.digest, 8, 1, 1, "DE", 0, 1, 1, now, now + 10_000)
        quote = pack(bid, me)
        try:
            await channel.send(quote)
            ordered = await channel.receive()
            await channel.receive()
            offer = ordered.message
            assert isinstance(offer, JobOffer)
            job_id = job_id_of(ordered)
            await channel.send(pack(Started(job_id, TOKENS, Hardware("gpu", 1, 0, "cuda"), "DE", "", now)))
            transcript, sent = Transcript(job_id), b""
            for frame in lie.frames:
                packet = pack(Vectors(*frame))
                transcript.add(packet.raw)
                sent += frame[3]
                await channel.send(packet)
            units = lie.prompt_units + lie.completion_units if lie.metering_units is None else lie.metering_units
            result_hash = sha256(sent if lie.hashed is None else lie.hashed).digest()
            fields = ReceiptFields(job_id, me.public_key, result_hash, units)
            envelope = AuditEnvelope(
                job_id=job_id,
                executor_key=me.public_key,
                requester_key=offer.requester_key,
                receipt_digest=fields.digest(),
                quote_hash=quote.hash,
                transcript_hash=transcript.digest,
                status="completed",
                prompt_units=lie.prompt_units,
                completion_units=lie.completion_units,
                model=offer.model,
                model_digest=offer.digest,
                jurisdiction="DE",
                chunk_hashes=(),
                chunk_root=b"",
                started_ms=now,
                first_token_ms=now,
                finished_ms=clock_ms(),
                previous_envelope=bytes(32),
            )
            await channel.send(
                pack(Finished(lie.reason, lie.prompt_units, lie.completion_units)),
                pack(issue_receipt(fields, me)),
                pack(envelope, me),
            )
            await channel.receive()
        except StreamBroken:
            return

    market.sellers[0].network.serve(MARKET_PROTOCOL, serve)


async def run(lie: Lie, *, counts: bool = True) -> Outcome | MarketError:
    async with marketplace(plan(), counts=counts) as market:
        lies(market, lie)
        try:
            async with market.buyer.embed(texts()) as job:
                async for event in job.events():
                    if isinstance(event, Done):
                        return event.outcome
        except MarketError as exc:
            return exc
    raise AssertionError("no end came")


async def test_the_honest_version_of_the_liar_is_accepted() -> None:
    outcome = await run(Lie())
    assert isinstance(outcome, Outcome)
    assert outcome.accepted


@pytest.mark.parametrize(
    ("lie", "code"),
    [
        (Lie(frames=((0, 0, 2, 2 * ONE),)), "vectors_missing"),
        (Lie(frames=()), "vectors_missing"),
        (Lie(frames=((0, 0, 2, 2 * ONE),), reason="length"), "vectors_missing"),
        (Lie(reason="tool_calls"), "vectors_missing"),
        (Lie(frames=((0, 0, 2, 4 * ONE),)), "vectors_order"),
        (Lie(frames=((0, 0, 2, 2 * ONE), (1, 2, 1, numbers(1.0)))), "vectors_order"),
        (Lie(frames=((0, 0, 2, 2 * ONE), (2, 2, 2, ONE))), "vectors_order"),
        (Lie(frames=((0, 0, 2, 2 * ONE), (1, 1, 2, ONE))), "vectors_order"),
    ],
    ids=[
        "one short",
        "none at all",
        "cut short without a Cancel",
        "a tool call",
        "one too many",
        "other dimensions",
        "a gap",
        "one twice",
    ],
)
async def test_vectors_that_are_no_answer_break_the_job(lie: Lie, code: str) -> None:
    failure = await run(lie)
    assert isinstance(failure, MarketError)
    assert failure.code == "node_failed"
    assert code in str(failure)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
async def test_numbers_that_are_none_break_the_job(bad: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-04-37: such a message cannot even be packed by us, so the liar is let through here."""
    with monkeypatch.context() as unchecked:
        unchecked.setattr("ryvion_protocol.packet.check_payload", lambda message: None)
        raw = pack(Vectors(0, 0, 2, 2 * ONE + numbers(0.0, bad))).raw
    async with marketplace(plan()) as market:
        me = market.sellers[0].identity

        async def serve(stream: Stream) -> None:
            channel = JobChannel(stream, "executor")
            asked = await channel.receive()
            now = clock_ms()
            bid = Quote(asked.hash, me.public_key, "vectors", MODEL.digest, 8, 1, 1, "DE", 0, 1, 1, now, now + 9_000)
            await channel.send(pack(bid, me))
            ordered = await channel.receive()
            await channel.receive()
            await channel.send(
                pack(Started(job_id_of(ordered), TOKENS, Hardware("gpu", 1, 0, "cuda"), "DE", "", clock_ms()))
            )
            await stream.send(len(raw).to_bytes(4, "big") + raw)
            await trio.sleep_forever()

        market.sellers[0].network.serve(MARKET_PROTOCOL, serve)
        with pytest.raises(MarketError, match="vectors"):
            await embed(market)


@pytest.mark.parametrize(
    ("lie", "check"),
    [
        (Lie(prompt_units=TOKENS - 1), "units_counted"),
        (Lie(prompt_units=TOKENS + 1), "units_within_limit"),
        (Lie(completion_units=1), "units_within_limit"),
        (Lie(hashed=b"other"), "result_hash"),
        (Lie(metering_units=0), "envelope"),
        (Lie(metering_units=TOKENS + 1), "envelope"),
    ],
    ids=["too few", "too many", "a completion", "other vectors", "a gift", "more than its envelope"],
)
async def test_a_false_bill_is_not_settled(lie: Lie, check: str) -> None:
    outcome = await run(lie)
    assert isinstance(outcome, Outcome)
    assert not outcome.accepted
    assert outcome.cost == 0
    assert next(c.name for c in outcome.checks if c.outcome == "failed") == check


async def test_a_bill_beyond_all_bytes_fails_without_the_tokenizer() -> None:
    bound = sum(len(text.encode()) + 3 for text in TEXTS)
    assert isinstance(accepted := await run(Lie(prompt_units=bound), counts=False), Outcome)
    assert accepted.accepted
    assert isinstance(refused := await run(Lie(prompt_units=bound + 1), counts=False), Outcome)
    assert not refused.accepted


# --- requesters at the wire ---------------------------------------------------------------------------------


async def placed(market: Marketplace, kind: str, request: JobRequest | EmbedRequest, completion: int = 0) -> Message:
    """Order this for one second, and return what the seller says first."""
    seller, me = market.sellers[0].identity.public_key, market.buyer_identity
    channel = JobChannel(await market.network.open_stream(seller, MARKET_PROTOCOL), "requester")
    await channel.send(pack(QuoteRequest(NETWORK, bytes(16), "vectors", b"", kind, 50, 5, (), 0, 1000)))
    quote = await channel.receive()
    assert isinstance(quote.message, Quote)
    content, now = pack(request), clock_ms()
    offer = JobOffer(
        version=1,
        network=NETWORK,
        requester_key=me.public_key,
        executor_key=seller,
        nonce=bytes(16),
        quote_hash=quote.hash,
        model="vectors",
        digest=MODEL.digest,
        request_commitment=content.hash,
        sampling=NO_SAMPLING,
        max_prompt_tokens=50,
        max_completion_tokens=completion,
        max_price=0,
        issued_ms=now,
        expires_ms=now + 1000,
    )
    await channel.send(pack(offer, me), content)
    return (await channel.receive()).message


@pytest.mark.parametrize(
    ("kind", "chat", "completion", "code"),
    [("embedding", True, 0, "kind"), ("chat", False, 5, "kind"), ("embedding", False, 5, "embedding_order")],
)
async def test_a_seller_refuses_a_request_of_another_kind_than_it_quoted(
    kind: str, chat: bool, completion: int, code: str
) -> None:
    """R-04-35, R-04-36."""
    async with marketplace(plan(model=replace(MODEL, kind=kind, context_tokens=100))) as market:  # type: ignore[arg-type]
        request: JobRequest | EmbedRequest = EmbedRequest(bytes(16), TEXTS)
        if chat:
            request = JobRequest(bytes(16), (ChatMessage("user", "hello", ""),), (), ())
        answer = await placed(market, kind, request, completion)
        assert isinstance(answer, Error)
        assert answer.code == code


async def test_an_order_whose_time_is_up_before_its_turn_is_told_so() -> None:
    async with marketplace(plan(model=replace(MODEL, slots=1), max_queue=1)) as market:
        market.sellers[0].engine.embed_s = 8.0
        market.nursery.start_soon(embed, market)
        await trio.sleep(1)
        answer = await placed(market, "embedding", EmbedRequest(bytes(16), TEXTS))
        assert isinstance(answer, Error)
        assert answer.code == "worker_stalled"
