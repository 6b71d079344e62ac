"""Vectors of spec 04: the job stream, its agreement and billing. `python -m specs.generate_jobs [--check]`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ryvion_protocol.any_message import Message
from ryvion_protocol.messages import (
    Acceptance,
    Finished,
    JobOffer,
    JobRequest,
    Quote,
    QuoteRequest,
    Started,
)
from ryvion_protocol.packet import Packet, pack
from ryvion_protocol.schema import JobId
from ryvion_protocol.signing import SigningIdentity
from ryvion_protocol.transcript import Transcript
from specs.samples import CALL_ANSWER, EXECUTOR, NOW_MS, REQUESTER, STRANGER, message_of, sample_job
from specs.vector_form import JsonValue, Vector, main, refused_alone

JOB = sample_job()


def vectors() -> Sequence[Vector]:
    """All vectors of the family, in the order of the file."""
    return [*_sequences(), *_alone(), *_agreement(), *_deltas(), *_costs()]


# --- the state table ----------------------------------------------------------------------------------------

OPENING = ("requester quote-request", "executor quote", "requester job-offer", "requester job-request")
REPORT = ("executor finished", "executor receipt", "executor audit-envelope", "requester acceptance")


def _sequences() -> list[Vector]:
    running = (*OPENING, "executor started", "executor delta")
    return [
        sequence("sequence-whole-job", "R-04-1", "A job from question to acceptance.", (*running, *REPORT), "ended"),
        sequence("sequence-refused", "R-04-1", "Refused.", (OPENING[0], "executor refusal"), "ended"),
        sequence("sequence-no-delta", "R-04-1", "An empty answer.", (*OPENING, "executor started", *REPORT), "ended"),
        sequence("sequence-lost-bid", "R-04-1", "Another bid won.", (*OPENING[:2], "requester cancel"), "ended"),
        sequence("sequence-error", "R-04-1", "The executor fails.", (*running, "executor error"), "ended"),
        sequence(
            "sequence-cancel-early",
            "R-04-21",
            "Cancelled before it started: the executor may skip Started.",
            (*OPENING, "requester cancel", *REPORT),
            "ended",
        ),
        sequence(
            "sequence-cancel-crossing",
            "R-04-21",
            "Started and deltas that were under way when the requester cancelled.",
            (*OPENING, "requester cancel", "executor started", "executor delta", "executor delta", *REPORT),
            "ended",
        ),
        sequence(
            "sequence-cancel-late",
            "R-04-21",
            "A Cancel that crosses the receipt.",
            (*running, *REPORT[:2], "requester cancel", *REPORT[2:]),
            "ended",
        ),
        *(
            sequence(f"sequence-{name}", "R-04-1", comment, messages)
            for name, comment, messages in (
                ("quote-unasked", "A Quote before any question.", ("executor quote",)),
                ("own-quote", "The requester sends a Quote.", (OPENING[0], "requester quote")),
                ("offer-unquoted", "An order before the quote.", (OPENING[0], "requester job-offer")),
                ("delta-early", "A Delta before Started.", (*OPENING, "executor delta")),
                ("started-twice", "Started twice.", (*running, "executor started")),
                ("delta-late", "A Delta after Finished.", (*running, "executor finished", "executor delta")),
                ("receipt-early", "A Receipt before Finished.", (*running, "executor receipt")),
                ("finished-early", "Finished without Started.", (*OPENING, "executor finished")),
                ("cancel-twice", "A second Cancel.", (*running, "requester cancel", "requester cancel")),
                ("acceptance-early", "A verdict before the envelope.", (*running, *REPORT[:2], REPORT[3])),
                ("after-end", "Anything after the end.", (*running, *REPORT, "requester error")),
                ("two-jobs", "A second job on the stream.", (*running, *REPORT, OPENING[0])),
            )
        ),
    ]


def sequence(name: str, requirement: str, comment: str, messages: Sequence[str], state: str = "") -> Vector:
    """A vector of messages that lead to `state`, or to an error."""
    given: dict[str, JsonValue] = {"messages": [list(step.split()) for step in messages]}
    if state:
        return Vector(name, (requirement,), comment, "job-sequence", b"", (), given, gives={"state": state})
    return Vector(name, (requirement,), comment, "job-sequence", b"", (), given, "state-error", "unexpected_message")


# --- one message alone --------------------------------------------------------------------------------------


def _alone() -> list[Vector]:
    request, quote, order, acceptance = (
        message_of(QuoteRequest, JOB.quote_request),
        message_of(Quote, JOB.quote),
        message_of(JobOffer, JOB.job_offer),
        message_of(Acceptance, JOB.acceptance),
    )
    job_request, started = message_of(JobRequest, JOB.job_request), message_of(Started, JOB.started)
    pirate = replace(job_request, messages=(replace(job_request.messages[0], role="pirate"),))
    cases: tuple[tuple[str, str, str, Message, SigningIdentity | None, str], ...] = (
        ("request-nothing", "R-04-3", "No model.", replace(request, model=""), None, "quote_request_model"),
        (
            "quote-lifetime",
            "R-04-4",
            "Held for 10.001 s.",
            replace(quote, expires_ms=quote.issued_ms + 10_001),
            EXECUTOR,
            "lifetime",
        ),
        (
            "order-lifetime",
            "R-04-7",
            "Valid for 600.001 s.",
            replace(order, expires_ms=order.issued_ms + 600_001),
            REQUESTER,
            "lifetime",
        ),
        ("order-version", "R-04-7", "Version 2.", replace(order, version=2), REQUESTER, "version"),
        ("role-unknown", "R-04-10", "A role that does not exist.", pirate, None, "role"),
        ("finish-reason", "R-04-15", "An unknown reason.", Finished("bored", 1, 1), None, "finish_reason"),
        (
            "request-features",
            "R-03-13",
            "Features fall.",
            replace(request, features=("top_k", "min_p")),
            None,
            "features",
        ),
        ("started-cached", "R-04-32", "24 of 23 tokens.", replace(started, cached_tokens=24), None, "cached_tokens"),
        ("finished-reasoning", "R-04-33", "2 of 1 token.", Finished("stop", 1, 1, 2), None, "reasoning_tokens"),
        (
            "delta-logprobs",
            "R-04-30",
            "Two for three tokens.",
            replace(CALL_ANSWER[0], tokens=(17, 99, 18)),
            None,
            "delta_logprobs",
        ),
        (
            "accepted-with-reason",
            "R-04-20",
            "Accepted, but why?",
            replace(acceptance, reason="job"),
            REQUESTER,
            "acceptance_reason",
        ),
        (
            "disputed-silently",
            "R-04-20",
            "Disputed without a reason.",
            replace(acceptance, accepted=False),
            REQUESTER,
            "acceptance_reason",
        ),
    )
    good = Vector(
        "job-id",
        ("R-04-2",),
        "The job id of the sample JobOffer.",
        "job-id",
        JOB.job_offer.raw,
        ("requester",),
        gives={"job_id": JOB.job_id},
    )
    return [good, *(refused_alone(*case) for case in cases)]


# --- agreeing on a job --------------------------------------------------------------------------------------


def _agreement() -> list[Vector]:
    quote, order = message_of(Quote, JOB.quote), message_of(JobOffer, JOB.job_offer)
    other_request = pack(replace(message_of(QuoteRequest, JOB.quote_request), nonce=bytes(16)))
    late, early = quote.expires_ms + 120_000, quote.issued_ms - 120_001
    started = message_of(Started, JOB.started)
    by_digest = pack(replace(message_of(QuoteRequest, JOB.quote_request), digest=bytes(32)))
    return [
        _quoted("quote-ok", "R-04-5", "The sample quote.", quote),
        _quoted(
            "quote-other-request",
            "R-04-5",
            "For another request.",
            replace(quote, request_hash=other_request.hash),
            "request_hash",
        ),
        _quoted("quote-other-model", "R-04-5", "For another model.", replace(quote, model="tinyllama"), "model"),
        _quoted(
            "quote-other-file",
            "R-04-5",
            "For another file of the same name.",
            replace(quote, request_hash=by_digest.hash),
            "model",
            request=by_digest,
        ),
        _quoted(
            "quote-other-place",
            "R-04-5",
            "From a place not asked for.",
            replace(quote, jurisdiction="US"),
            "jurisdiction",
        ),
        _quoted("quote-expired", "R-04-5", "Expired 120 s ago.", quote, "expired", now_ms=late),
        _quoted("quote-early", "R-04-5", "From the future.", quote, "issued_in_future", now_ms=early),
        _quoted(
            "quote-other-peer",
            "R-04-6 R-01-7",
            "A quote of another node, relayed.",
            quote,
            "signature_invalid",
            peer=STRANGER,
        ),
        _ordered("order-ok", "R-04-8", "The sample order.", order),
        _ordered(
            "order-other-peer",
            "R-04-6 R-01-7",
            "An order of another node, relayed.",
            order,
            "signature_invalid",
            peer=STRANGER,
        ),
        _ordered(
            "order-other-executor",
            "R-04-8",
            "For another node.",
            replace(order, executor_key=STRANGER.public_key),
            "executor_key",
        ),
        _ordered("order-other-network", "R-04-8", "For another network.", replace(order, network="test"), "network"),
        _ordered(
            "order-other-quote", "R-04-8", "On another quote.", replace(order, quote_hash=bytes(32)), "quote_hash"
        ),
        _ordered("order-other-model", "R-04-8", "For another model.", replace(order, digest=bytes(32)), "model"),
        _ordered(
            "order-more-tokens",
            "R-04-8",
            "65 tokens, 64 were quoted.",
            replace(order, max_completion_tokens=65),
            "limits",
        ),
        _ordered("order-longer-prompt", "R-04-8", "A longer prompt.", replace(order, max_prompt_tokens=24), "limits"),
        _ordered(
            "order-underpaid",
            "R-04-8",
            "Its tokens may cost 28 micro-credits.",
            replace(order, max_price=27),
            "limits",
        ),
        _ordered("order-late", "R-04-8", "The quote expired now.", order, "quote_expired", now_ms=quote.expires_ms),
        _ordered(
            "order-from-future",
            "R-04-8",
            "Issued 120.001 s after our clock.",
            replace(order, issued_ms=NOW_MS + 120_013, expires_ms=NOW_MS + 600_000),
            "issued_in_future",
        ),
        _ordered(
            "order-expired",
            "R-04-8",
            "Expired 120 s ago.",
            replace(order, issued_ms=NOW_MS - 300_000, expires_ms=NOW_MS - 119_988),
            "expired",
        ),
        _pair("job-request-ok", "R-04-9", "What was committed to.", "job-request", JOB.job_request.raw),
        _pair(
            "job-request-other",
            "R-04-9",
            "Another salt.",
            "job-request",
            pack(replace(message_of(JobRequest, JOB.job_request), salt=bytes(16))).raw,
            "request_commitment",
        ),
        _pair("started-ok", "R-04-11", "The sample job starts.", "started", JOB.started.raw),
        _pair(
            "started-other-job",
            "R-04-11",
            "Another job.",
            "started",
            pack(replace(started, job_id=JobId("00" * 32))).raw,
            "job_id",
        ),
        _pair(
            "started-elsewhere",
            "R-04-11",
            "Elsewhere.",
            "started",
            pack(replace(started, jurisdiction="DE")).raw,
            "jurisdiction",
        ),
        _pair(
            "started-long-prompt",
            "R-04-11",
            "A longer prompt.",
            "started",
            pack(replace(started, prompt_tokens=24)).raw,
            "limits",
        ),
    ]


def _quoted(
    name: str,
    requirement: str,
    comment: str,
    quote: Quote,
    code: str = "",
    *,
    now_ms: int = NOW_MS + 6,
    peer: SigningIdentity = EXECUTOR,
    request: Packet = JOB.quote_request,
) -> Vector:
    given: dict[str, JsonValue] = {
        "quote_request": request.raw.hex(),
        "peer": peer.public_key.hex(),
        "now_ms": now_ms,
    }
    raw = pack(quote, EXECUTOR).raw
    return Vector(name, tuple(requirement.split()), comment, "quote", raw, ("executor",), given, _layer(code), code)


def _ordered(
    name: str,
    requirement: str,
    comment: str,
    order: JobOffer,
    code: str = "",
    *,
    now_ms: int = NOW_MS + 12,
    peer: SigningIdentity = REQUESTER,
) -> Vector:
    given: dict[str, JsonValue] = {
        "quote_request": JOB.quote_request.raw.hex(),
        "quote": JOB.quote.raw.hex(),
        "peer": peer.public_key.hex(),
        "now_ms": now_ms,
    }
    raw = pack(order, REQUESTER).raw
    return Vector(
        name, tuple(requirement.split()), comment, "job-offer", raw, ("requester",), given, _layer(code), code
    )


def _pair(name: str, requirement: str, comment: str, operation: str, raw: bytes, code: str = "") -> Vector:
    given: dict[str, JsonValue] = {"job_offer": JOB.job_offer.raw.hex(), "quote": JOB.quote.raw.hex()}
    return Vector(name, (requirement,), comment, operation, raw, ("requester",), given, _layer(code), code)


def _layer(code: str) -> str:
    if not code:
        return "ok"
    return "signature-invalid" if code == "signature_invalid" else "payload-invalid"


# --- the answer and its price -------------------------------------------------------------------------------


def _deltas() -> list[Vector]:
    frames = [delta.raw for delta in JOB.deltas]
    heads = []
    transcript = Transcript(JOB.job_id)
    for raw in (None, *frames):
        if raw is not None:
            transcript.add(raw)
        heads.append(transcript.digest.hex())

    def order(name: str, comment: str, *deltas: Sequence[int], code: str = "") -> Vector:
        given: dict[str, JsonValue] = {"deltas": [list(delta) for delta in deltas]}
        return Vector(name, ("R-04-12",), comment, "delta-order", b"", (), given, _layer(code), code)

    return [
        Vector(
            "transcript",
            ("R-04-13",),
            "The chain over the sample job's deltas, from h_0 on.",
            "transcript",
            b"",
            given={"job_id": JOB.job_id, "frames": [raw.hex() for raw in frames]},
            gives={"heads": heads},
        ),
        order("deltas-in-order", "0, 1, 2.", (0, 0), (1, 0), (2, 0)),
        order("deltas-gap", "One is missing.", (0, 0), (2, 0), code="delta_order"),
        order("deltas-twice", "One comes twice.", (0, 0), (0, 0), code="delta_order"),
        order("deltas-from-one", "They start at 1.", (1, 0), code="delta_order"),
        order("deltas-choice", "A second choice.", (0, 1), code="delta_order"),
    ]


def cost(
    name: str,
    requirement: str,
    comment: str,
    numbers: Sequence[int],
    units: int,
    price: int,
    kind: str = "",
) -> Vector:
    """A vector of what a job costs; a chat unless `kind` says otherwise."""
    names = ("prompt_units", "completion_units", "price_in", "price_out")
    given: dict[str, JsonValue] = dict(zip(names, numbers, strict=True))
    if kind:
        given["kind"] = kind
    gives: dict[str, JsonValue] = {"metering_units": units, "cost_microcredits": price}
    return Vector(name, (requirement,), comment, "cost", b"", (), given, gives=gives)


def _costs() -> list[Vector]:
    return [
        cost("cost-exact", "R-04-18", "No fraction.", (1000, 500, 1_000_000, 2_000_000), 1500, 2000),
        cost(
            "cost-fraction", "R-04-18", "0.9 + 0.9 micro-credits are rounded up once.", (9, 9, 100_000, 100_000), 18, 2
        ),
        cost("cost-least", "R-04-18", "The smallest fraction costs 1.", (1, 1, 0, 1), 2, 1),
        cost("cost-free", "R-04-18", "A free model.", (1000, 500, 0, 0), 1500, 0),
        cost("cost-nothing-produced", "R-04-17", "A prompt without an answer.", (1000, 0, 1_000_000, 1_000_000), 0, 0),
        cost(
            "cost-large",
            "R-04-18",
            "Beyond 64 bits on the way.",
            (2**32 - 1, 2**32 - 1, 2**52, 2**52),
            2**33 - 2,
            -(-(2**33 - 2) * 2**52 // 10**6),
        ),
    ]


if __name__ == "__main__":
    main("04", "jobs", vectors)
