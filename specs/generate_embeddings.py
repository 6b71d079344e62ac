"""Vectors of spec 04: the embedding job. `python -m specs.generate_embeddings [--check]`."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace

from ryvion_protocol.any_message import Message
from ryvion_protocol.messages import EmbedRequest, JobOffer, JobRequest, QuoteRequest, Sampling, Vectors
from ryvion_protocol.packet import pack
from specs.embedding_samples import EMBED_QUOTE_REQUEST, EMBED_REQUEST, VECTORS, embedding_evidence, sample_embedding
from specs.generate_checks import judged
from specs.generate_jobs import OPENING, REPORT, cost, sequence
from specs.generate_requests import taken_alone
from specs.samples import JOB_REQUEST, REQUESTER, message_of, sample_job
from specs.vector_form import JsonValue, Vector, main, refused_alone

JOB = sample_embedding()
EVIDENCE = embedding_evidence(JOB)


def vectors() -> Sequence[Vector]:
    """All vectors of the family, in the order of the file."""
    return [*_sequences(), *_alone(), *_kinds(), *_results(), *_costs(), *_checks()]


def _sequences() -> list[Vector]:
    opening = (*OPENING[:3], "requester embed-request")
    running = (*opening, "executor started", "executor vectors")
    return [
        sequence("sequence-embedding", "R-04-1", "From question to acceptance.", (*running, *REPORT), "ended"),
        sequence(
            "sequence-embedding-cancelled",
            "R-04-21",
            "Vectors that were under way when the requester cancelled.",
            (*running, "requester cancel", "executor vectors", *REPORT),
            "ended",
        ),
        sequence(
            "sequence-embedding-cancelled-early",
            "R-04-21",
            "Cancelled before it started.",
            (*opening, "requester cancel", *REPORT),
            "ended",
        ),
        sequence("sequence-embedding-delta", "R-04-1", "Text from an embedding.", (*running, "executor delta")),
        sequence(
            "sequence-chat-vectors",
            "R-04-1",
            "Vectors from a chat.",
            (*OPENING, "executor started", "executor vectors"),
        ),
        sequence("sequence-both-requests", "R-04-1", "A JobRequest as well.", (*opening, "requester job-request")),
    ]


def _alone() -> list[Vector]:
    one = VECTORS[0]
    nan, infinite = struct.pack("<2f", 0.5, float("nan")), struct.pack("<2f", float("inf"), 0.5)
    broken: tuple[tuple[str, str, Message], ...] = (
        ("vectors-half", "Three numbers of two dimensions.", replace(one, values=one.values[:12])),
        ("vectors-odd-bytes", "Seven bytes.", replace(one, dimensions=1, values=one.values[:7])),
        ("vectors-nan", "A number that is none.", replace(one, values=nan)),
        ("vectors-infinite", "An infinite number.", replace(one, values=infinite)),
    )
    return [
        taken_alone("embed-request", "R-04-35", EMBED_REQUEST),
        taken_alone("vectors-two", "R-04-37", one),
        *(refused_alone(name, "R-04-37", comment, message, None, "vectors") for name, comment, message in broken),
    ]


def _kinds() -> list[Vector]:
    order = message_of(JobOffer, JOB.job_offer)
    chat = sample_job()

    def kind(
        name: str,
        requirement: str,
        comment: str,
        request: JobRequest | EmbedRequest,
        order: JobOffer = order,
        asked: QuoteRequest = EMBED_QUOTE_REQUEST,
        code: str = "",
    ) -> Vector:
        given: dict[str, JsonValue] = {
            "job_offer": pack(order, REQUESTER).raw.hex(),
            "quote_request": pack(asked).raw.hex(),
        }
        layer = "payload-invalid" if code else "ok"
        return Vector(name, (requirement,), comment, "job-kind", pack(request).raw, ("requester",), given, layer, code)

    chat_asked, chat_order = message_of(QuoteRequest, chat.quote_request), message_of(JobOffer, chat.job_offer)
    rules = replace(order, sampling=Sampling(0, 1_000_000, 42))
    return [
        kind("kind-embedding", "R-04-35", "Texts after a quote for an embedding.", EMBED_REQUEST),
        kind("kind-chat", "R-04-35", "A chat after a quote for a chat.", JOB_REQUEST, chat_order, chat_asked),
        kind("kind-chat-for-embedding", "R-04-35", "A chat on an embedding model.", JOB_REQUEST, code="kind"),
        kind(
            "kind-embedding-for-chat",
            "R-04-35",
            "Texts to a chat model.",
            EMBED_REQUEST,
            chat_order,
            chat_asked,
            "kind",
        ),
        kind("kind-seeded", "R-04-36", "An embedding with a seed.", EMBED_REQUEST, rules, code="embedding_order"),
        kind(
            "kind-completion",
            "R-04-36",
            "An embedding with a completion.",
            EMBED_REQUEST,
            replace(order, max_completion_tokens=1),
            code="embedding_order",
        ),
    ]


def _results() -> list[Vector]:
    first, second = VECTORS

    def result(
        name: str, requirements: str, comment: str, frames: Sequence[Vectors], reason: str = "stop", code: str = ""
    ) -> Vector:
        given: dict[str, JsonValue] = {
            "texts": 3,
            "frames": [pack(vectors).raw.hex() for vectors in frames],
            "reason": reason,
        }
        layer = "payload-invalid" if code else "ok"
        gives: dict[str, JsonValue] = {} if code else {"vectors": sum(one.count for one in frames)}
        if name == "result-vectors":
            gives = {"result_hash": JOB.result_hash.hex(), "vectors": 3}
        return Vector(name, tuple(requirements.split()), comment, "vectors", b"", (), given, layer, code, gives)

    order, missing = "vectors_order", "vectors_missing"
    return [
        result("result-vectors", "R-02-14 R-04-14 R-04-38", "Three vectors in two messages.", VECTORS),
        result("result-vectors-cut", "R-04-39", "The order's time was up.", (first,), "length"),
        result("vectors-missing", "R-04-39", "Two of three, and nothing more.", (first,), code=missing),
        result("vectors-tool-calls", "R-04-39", "Vectors that call a tool.", VECTORS, "tool_calls", missing),
        result("vectors-gap", "R-04-38", "One message is missing.", (first, replace(second, seq=2)), code=order),
        result("vectors-skipped", "R-04-38", "A text was left out.", (replace(first, first=1),), code=order),
        result(
            "vectors-other-dimensions",
            "R-04-38",
            "Two dimensions, then one.",
            (first, replace(second, dimensions=1)),
            code=order,
        ),
        result(
            "vectors-too-many", "R-04-38", "A fourth vector.", (*VECTORS, replace(second, seq=2, first=3)), code=order
        ),
    ]


def _costs() -> list[Vector]:
    return [
        cost(
            "cost-embedding", "R-04-40", "A prompt is all there is.", (1000, 0, 1_000_000, 5), 1000, 1000, "embedding"
        ),
        cost("cost-embedding-nothing", "R-04-17", "Nothing was delivered.", (0, 0, 1_000_000, 5), 0, 0, "embedding"),
    ]


def _checks() -> list[Vector]:
    cut = embedding_evidence(sample_embedding(VECTORS[:1], "cancelled", "cancelled", 13))
    uncounted = replace(EVIDENCE, own_prompt_units=None, own_completion_units=None)
    return [
        judged("checks-embedding", ("R-04-40", "R-02-10", "R-02-14"), "The sample embedding.", EVIDENCE),
        judged("checks-embedding-cancelled", ("R-04-40",), "Two of three texts are billed.", cut),
        judged("checks-embedding-bounded", ("R-04-24",), "Without the tokenizer.", uncounted),
        judged(
            "checks-embedding-bound-reached",
            ("R-04-24",),
            "18 tokens in 9 bytes of 3 texts: marks and a space each.",
            replace(uncounted, embedded_bytes=9),
        ),
        judged(
            "checks-embedding-impossible",
            ("R-04-24",),
            "18 tokens in 8 bytes of 3 texts.",
            replace(uncounted, embedded_bytes=8),
            "units_counted",
        ),
        judged(
            "checks-embedding-miscounted",
            ("R-04-40",),
            "We count one less.",
            replace(EVIDENCE, own_prompt_units=17),
            "units_counted",
        ),
        judged(
            "checks-embedding-undelivered",
            ("R-04-40",),
            "Billed are three texts, two were delivered.",
            replace(embedding_evidence(sample_embedding(VECTORS[:1], "cancelled", "cancelled")), own_prompt_units=13),
            "units_counted",
        ),
        judged(
            "checks-embedding-completion",
            ("R-04-40",),
            "A completion of one token.",
            embedding_evidence(sample_embedding(completion_tokens=1)),
            "units_within_limit",
        ),
        judged(
            "checks-embedding-other-result",
            ("R-02-14",),
            "We got other vectors.",
            replace(EVIDENCE, result_hash=bytes(32)),
            "result_hash",
        ),
        judged(
            "checks-embedding-as-chat",
            ("R-02-10",),
            "A chat without completion that bills its prompt.",
            replace(EVIDENCE, kind="chat"),
            "envelope",
        ),
    ]


if __name__ == "__main__":
    main("04", "embeddings", vectors)
