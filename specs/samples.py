"""The deterministic messages that vectors, worked examples and tests are made of: one whole job between two nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from ryvion_protocol.checks import JobEvidence, billed_units
from ryvion_protocol.job import job_id_of
from ryvion_protocol.merkle import merkle_root
from ryvion_protocol.messages import (
    Acceptance,
    Alternative,
    AuditEnvelope,
    CallPiece,
    Cancel,
    ChatMessage,
    Delta,
    Error,
    Finished,
    Hardware,
    JobOffer,
    JobRequest,
    LogitBias,
    ModelOffer,
    Offer,
    OutputFormat,
    Quote,
    QuoteRequest,
    Receipt,
    Refusal,
    Sampling,
    Started,
    TokenLogprob,
    Tool,
    ToolCall,
    ToolUse,
    Withdraw,
)
from ryvion_protocol.packet import Packet, pack
from ryvion_protocol.receipt import ReceiptFields, issue_receipt
from ryvion_protocol.schema import JobId
from ryvion_protocol.signing import SigningIdentity
from ryvion_protocol.transcript import ResultBuilder, Transcript
from ryvion_protocol.zigzag import zigzag

M = TypeVar("M")
SEEDS: Final = {
    "executor": bytes(range(32)),
    "requester": bytes(range(1, 33)),
    "stranger": bytes(range(64, 96)),
}
EXECUTOR: Final = SigningIdentity(SEEDS["executor"])
REQUESTER: Final = SigningIdentity(SEEDS["requester"])
STRANGER: Final = SigningIdentity(SEEDS["stranger"])
IDENTITIES: Final = {"executor": EXECUTOR, "requester": REQUESTER, "stranger": STRANGER}

NOW_MS: Final = 1_767_225_600_000
"""2026-01-01T00:00:00Z, when the sample job begins."""
DIGEST: Final = bytes.fromhex("5e" * 32)
ANSWER: Final = ("The capital", " of France", " is Paris — ", "la Ville Lumière.")
PROMPT_TOKENS: Final = 23
COMPLETION_TOKENS: Final = 11

OFFER: Final = Offer(
    network="ryvion-main",
    node_key=EXECUTOR.public_key,
    seq=7,
    issued_ms=NOW_MS,
    expires_ms=NOW_MS + 120_000,
    software="ryvion-node/0.1.0",
    hardware=Hardware(name="AMD EPYC 7B13", count=1, memory_bytes=8_589_934_592, backend="cpu"),
    jurisdiction="CA",
    location="Montreal",
    models=(
        ModelOffer(
            name="ryvion-tiny",
            digest=DIGEST,
            quantisation="Q8_0",
            kind="chat",
            context_tokens=512,
            price_in=100_000,
            price_out=400_000,
            slots_total=4,
            slots_free=3,
            millitokens_per_s=850_000,
            features=("counted", "logprobs", "seeded", "top_k"),
        ),
    ),
    addresses=("/ip4/127.0.0.1/tcp/7987",),
)
WITHDRAW: Final = Withdraw(network="ryvion-main", node_key=EXECUTOR.public_key, seq=8, issued_ms=NOW_MS + 30_000)
QUOTE_REQUEST: Final = QuoteRequest(
    network="ryvion-main",
    nonce=bytes.fromhex("a1" * 16),
    model="ryvion-tiny",
    digest=b"",
    kind="chat",
    prompt_tokens_max=PROMPT_TOKENS,
    completion_tokens_max=64,
    jurisdictions=("CA", "DE"),
    max_price=0,
    patience_ms=3000,
)
CHUNK_HASHES: Final = (bytes.fromhex("c4" * 32),)
JOB_REQUEST: Final = JobRequest(
    salt=bytes.fromhex("5a" * 16),
    messages=(
        ChatMessage(role="system", content="Answer in one sentence.", name=""),
        ChatMessage(role="user", content="What is the capital of France?", name=""),
    ),
    stop=(),
    chunk_hashes=(),
)
WEATHER: Final = Tool(
    name="get_weather",
    description="The weather at a place.",
    parameters='{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}',
)
CALL_REQUEST: Final = JobRequest(
    salt=bytes.fromhex("5b" * 16),
    messages=(
        ChatMessage(role="user", content="Weather in Paris?", name="Ada"),
        ChatMessage(
            role="assistant",
            content="",
            name="",
            tool_calls=(ToolCall(id="call_a1", name="get_weather", arguments='{"city":"Paris"}'),),
        ),
        ChatMessage(role="tool", content="18 degrees, dry", name="", tool_call_id="call_a1"),
        ChatMessage(role="user", content="And in Montreal?", name="Ada"),
    ),
    stop=("\n\n",),
    chunk_hashes=CHUNK_HASHES,
    tools=ToolUse(tools=(WEATHER,), choice="named", name="get_weather", parallel=False),
    output=OutputFormat(kind="json_schema", grammar='{"type":"object"}'),
    logit_bias=(LogitBias(token=13, bias=zigzag(-100_000_000)), LogitBias(token=99, bias=zigzag(2_500_000))),
    logprobs=True,
    top_logprobs=2,
    chunk_root=merkle_root(CHUNK_HASHES),
)
"""Uses every field."""
CALL_SAMPLING: Final = Sampling(
    temperature_millionths=800_000,
    top_p_millionths=950_000,
    seed=2**64 - 1,
    top_k=40,
    min_p_millionths=50_000,
    presence_penalty=zigzag(500_000),
    frequency_penalty=zigzag(-250_000),
    repetition_penalty_millionths=1_100_000,
)
CALL_ANSWER: Final = (
    Delta(
        seq=0,
        choice=0,
        text="",
        tokens=(17, 99),
        reasoning="A place is named.",
        logprobs=(
            TokenLogprob(Alternative(b"A", 105_361), (Alternative(b"A", 105_361), Alternative(b"The", 2_302_585))),
            TokenLogprob(Alternative(b" place", 0), ()),
        ),
    ),
    Delta(0, 0, "", (18,), calls=(CallPiece(0, "call_b1", "get_weather", '{"city":"Mont'),)),
    Delta(0, 0, "", (19,), calls=(CallPiece(0, "", "", 'real"}'), CallPiece(1, "call_b2", "get_weather", "{}"))),
)
"""Thoughts and two calls; `sample_job` numbers the deltas."""
REFUSAL: Final = Refusal(code="busy", message="all 4 slots are taken", retry_after_ms=2000)
CANCEL: Final = Cancel(reason="client_gone")
ERROR: Final = Error(status=500, code="worker_crashed", message="the model's process died", retry_after_ms=0)


@dataclass(frozen=True, slots=True)
class SampleJob:
    """Every packet of one job, in the order they are sent."""

    quote_request: Packet
    quote: Packet
    job_offer: Packet
    job_request: Packet
    started: Packet
    deltas: tuple[Packet, ...]
    finished: Packet
    receipt: Packet
    envelope: Packet
    acceptance: Packet
    transcript_hash: bytes
    result_hash: bytes
    text_bytes: int
    billable_texts: int

    @property
    def job_id(self) -> JobId:
        return job_id_of(self.job_offer)

    @property
    def packets(self) -> tuple[Packet, ...]:
        return (
            *(self.quote_request, self.quote, self.job_offer, self.job_request, self.started),
            *self.deltas,
            *(self.finished, self.receipt, self.envelope, self.acceptance),
        )


def quote_for(request: Packet) -> Quote:
    """The sample executor's quote."""
    return Quote(
        request_hash=request.hash,
        node_key=EXECUTOR.public_key,
        model="ryvion-tiny",
        digest=DIGEST,
        context_tokens=512,
        price_in=100_000,
        price_out=400_000,
        jurisdiction="CA",
        queue_depth=0,
        first_token_ms=40,
        millitokens_per_s=850_000,
        issued_ms=NOW_MS + 5,
        expires_ms=NOW_MS + 10_005,
    )


def order_for(quote: Packet, request: Packet) -> JobOffer:
    """The sample requester's order."""
    return JobOffer(
        version=1,
        network="ryvion-main",
        requester_key=REQUESTER.public_key,
        executor_key=EXECUTOR.public_key,
        nonce=bytes.fromhex("b2" * 16),
        quote_hash=quote.hash,
        model="ryvion-tiny",
        digest=DIGEST,
        request_commitment=request.hash,
        sampling=Sampling(temperature_millionths=700_000, top_p_millionths=1_000_000, seed=42),
        max_prompt_tokens=PROMPT_TOKENS,
        max_completion_tokens=64,
        max_price=28,
        issued_ms=NOW_MS + 10,
        expires_ms=NOW_MS + 600_010,
    )


def sample_job(
    answer: Sequence[str | Delta] = ANSWER,
    reason: str = "stop",
    status: str = "completed",
    completion_tokens: int = COMPLETION_TOKENS,
) -> SampleJob:
    """Play a whole job; every byte is fixed by the arguments."""
    quote_request = pack(QUOTE_REQUEST)
    quote = pack(quote_for(quote_request), EXECUTOR)
    job_request = pack(JOB_REQUEST)
    job_offer = pack(order_for(quote, job_request), REQUESTER)
    job_id = job_id_of(job_offer)
    started = pack(Started(job_id, PROMPT_TOKENS, OFFER.hardware, "CA", "Montreal", NOW_MS + 20))
    transcript, result = Transcript(job_id), ResultBuilder()
    messages = [
        Delta(seq, 0, part, (17 + seq, 99)) if isinstance(part, str) else replace(part, seq=seq)
        for seq, part in enumerate(answer)
    ]
    deltas = tuple(map(pack, messages))
    for message, delta in zip(messages, deltas, strict=True):
        transcript.add(delta.raw)
        result.add(message)
    envelope = AuditEnvelope(
        job_id=job_id,
        executor_key=EXECUTOR.public_key,
        requester_key=REQUESTER.public_key,
        receipt_digest=bytes(32),
        quote_hash=quote.hash,
        transcript_hash=transcript.digest,
        status=status,
        prompt_units=PROMPT_TOKENS,
        completion_units=completion_tokens,
        model="ryvion-tiny",
        model_digest=DIGEST,
        jurisdiction="CA",
        chunk_hashes=(),
        chunk_root=b"",
        started_ms=NOW_MS + 20,
        first_token_ms=NOW_MS + 60 if answer else 0,
        finished_ms=NOW_MS + 80,
        previous_envelope=bytes(32),
    )
    fields = ReceiptFields(job_id, EXECUTOR.public_key, result.digest, billed_units(envelope))
    sealed = pack(replace(envelope, receipt_digest=fields.digest()), EXECUTOR)
    verdict = Acceptance(job_id, REQUESTER.public_key, sealed.hash, fields.metering_units, accepted=True, reason="")
    return SampleJob(
        quote_request=quote_request,
        quote=quote,
        job_offer=job_offer,
        job_request=job_request,
        started=started,
        deltas=deltas,
        finished=pack(Finished(reason, PROMPT_TOKENS, completion_tokens)),
        receipt=pack(issue_receipt(fields, EXECUTOR)),
        envelope=sealed,
        acceptance=pack(verdict, REQUESTER),
        transcript_hash=transcript.digest,
        result_hash=result.digest,
        text_bytes=result.text_bytes,
        billable_texts=len(result.billable_texts()),
    )


def message_of(cls: type[M], packet: Packet) -> M:
    """The message of a packet whose class is known."""
    if not isinstance(packet.message, cls):
        raise TypeError(f"{cls.__name__} wanted, {type(packet.message).__name__} found")
    return packet.message


def evidence_of(job: SampleJob) -> JobEvidence:
    """What the requester holds when that job ended well."""
    finished = message_of(Finished, job.finished)
    received = (job.quote, job.started, *job.deltas, job.finished, job.receipt, job.envelope)
    return JobEvidence(
        job_offer=job.job_offer,
        quote=job.quote,
        state="enveloped",
        frames=len(received),
        frame_bytes=sum(len(packet.raw) for packet in received),
        result_hash=job.result_hash,
        transcript_hash=job.transcript_hash,
        text_bytes=job.text_bytes,
        billable_texts=job.billable_texts,
        own_prompt_units=finished.prompt_tokens,
        own_completion_units=finished.completion_tokens,
        finished=finished,
        receipt=message_of(Receipt, job.receipt),
        envelope=job.envelope,
        offered_ms=NOW_MS + 10,
        ended_ms=NOW_MS + 90,
    )
