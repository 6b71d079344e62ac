"""One whole embedding job between the sample nodes, as the vectors and tests of spec 04 use it."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from ryvion_protocol.agreement import NO_SAMPLING
from ryvion_protocol.checks import JobEvidence, billed_units
from ryvion_protocol.job import job_id_of
from ryvion_protocol.messages import (
    EMBEDDING,
    Acceptance,
    AuditEnvelope,
    EmbedRequest,
    Finished,
    JobOffer,
    Quote,
    Started,
    Vectors,
)
from ryvion_protocol.packet import Packet, pack
from ryvion_protocol.receipt import ReceiptFields, issue_receipt
from ryvion_protocol.transcript import Transcript, VectorsResult
from specs.samples import (
    EXECUTOR,
    NOW_MS,
    OFFER,
    QUOTE_REQUEST,
    REQUESTER,
    SampleJob,
    evidence_of,
    message_of,
    order_for,
    quote_for,
)

TEXTS: Final = ("A cat sleeps.", "Un chat dort.", "Bonds fell.")
TOKENS: Final = (6, 7, 5)
"""Of each text."""
EMBED_REQUEST: Final = EmbedRequest(salt=bytes.fromhex("5c" * 16), texts=TEXTS)
EMBED_QUOTE_REQUEST: Final = replace(
    QUOTE_REQUEST, model="ryvion-embed-tiny", kind=EMBEDDING, prompt_tokens_max=18, completion_tokens_max=0
)
VECTORS: Final = (
    Vectors(0, 0, 2, struct.pack("<4f", 0.6, 0.8, 0.8, 0.6)),
    Vectors(1, 2, 2, struct.pack("<2f", -1.0, 0.0)),
)


def sample_embedding(
    answer: Sequence[Vectors] = VECTORS,
    reason: str = "stop",
    status: str = "completed",
    prompt_tokens: int = sum(TOKENS),
    completion_tokens: int = 0,
) -> SampleJob:
    """Play a whole embedding job; every byte is fixed by the arguments."""
    quote_request = pack(EMBED_QUOTE_REQUEST)
    quote = pack(replace(quote_for(quote_request), model="ryvion-embed-tiny"), EXECUTOR)
    request = pack(EMBED_REQUEST)
    job_offer = pack(_order(quote, request), REQUESTER)
    job_id = job_id_of(job_offer)
    transcript, result = Transcript(job_id), VectorsResult(len(TEXTS))
    frames = tuple(map(pack, answer))
    for vectors, frame in zip(answer, frames, strict=True):
        transcript.add(frame.raw)
        result.add(vectors)
    told = message_of(Quote, quote)
    envelope = AuditEnvelope(
        job_id=job_id,
        executor_key=EXECUTOR.public_key,
        requester_key=REQUESTER.public_key,
        receipt_digest=bytes(32),
        quote_hash=quote.hash,
        transcript_hash=transcript.digest,
        status=status,
        prompt_units=prompt_tokens,
        completion_units=completion_tokens,
        model=told.model,
        model_digest=told.digest,
        jurisdiction="CA",
        chunk_hashes=(),
        chunk_root=b"",
        started_ms=NOW_MS + 20,
        first_token_ms=NOW_MS + 30 if answer else 0,
        finished_ms=NOW_MS + 40,
        previous_envelope=bytes(32),
    )
    fields = ReceiptFields(job_id, EXECUTOR.public_key, result.digest, billed_units(envelope, EMBEDDING))
    sealed = pack(replace(envelope, receipt_digest=fields.digest()), EXECUTOR)
    verdict = Acceptance(job_id, REQUESTER.public_key, sealed.hash, fields.metering_units, accepted=True, reason="")
    return SampleJob(
        quote_request=quote_request,
        quote=quote,
        job_offer=job_offer,
        job_request=request,
        started=pack(Started(job_id, sum(TOKENS), OFFER.hardware, "CA", "Montreal", NOW_MS + 20)),
        deltas=frames,
        finished=pack(Finished(reason, prompt_tokens, completion_tokens)),
        receipt=pack(issue_receipt(fields, EXECUTOR)),
        envelope=sealed,
        acceptance=pack(verdict, REQUESTER),
        transcript_hash=transcript.digest,
        result_hash=result.digest,
        text_bytes=result.value_bytes,
        billable_texts=0,
    )


def _order(quote: Packet, request: Packet) -> JobOffer:
    return replace(
        order_for(quote, request),
        model="ryvion-embed-tiny",
        sampling=NO_SAMPLING,
        max_prompt_tokens=18,
        max_completion_tokens=0,
        max_price=2,
    )


def embedding_evidence(job: SampleJob) -> JobEvidence:
    """What the requester holds when that job ended well."""
    count = sum(message_of(Vectors, frame).count for frame in job.deltas)
    return replace(
        evidence_of(job),
        kind=EMBEDDING,
        own_completion_units=0,
        embedded_bytes=sum(len(text.encode()) for text in TEXTS[:count]),
        embedded_texts=count,
    )
