"""Vectors of spec 04, "What the requester checks". `python -m specs.generate_checks [--check]`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256

from ryvion_protocol.checks import CHECK_NAMES, JobEvidence, check_finished_job, first_failure
from ryvion_protocol.merkle import merkle_root
from ryvion_protocol.messages import AuditEnvelope, JobOffer, Receipt
from ryvion_protocol.packet import pack
from ryvion_protocol.receipt import ReceiptFields, fields_of, issue_receipt
from specs.samples import CALL_ANSWER, CHUNK_HASHES, EXECUTOR, NOW_MS, STRANGER, evidence_of, message_of, sample_job
from specs.vector_form import JsonValue, Vector, main

JOB = sample_job()
EVIDENCE = evidence_of(JOB)


def vectors() -> Sequence[Vector]:
    """All vectors of the family, in the order of the file."""
    cancelled = evidence_of(sample_job(reason="cancelled", status="cancelled", completion_tokens=9))
    failed = evidence_of(sample_job(reason="error", status="failed"))
    empty = evidence_of(sample_job(answer=(), completion_tokens=0))
    uncounted = replace(EVIDENCE, own_prompt_units=None, own_completion_units=None)
    called = evidence_of(sample_job(answer=CALL_ANSWER, reason="tool_calls"))
    uncounted_call = replace(called, own_prompt_units=None, own_completion_units=None)
    capped = evidence_of(sample_job(reason="length", completion_tokens=64))
    envelope = message_of(AuditEnvelope, JOB.envelope)
    late = EVIDENCE.ended_ms + 120_001
    expired = message_of(JobOffer, JOB.job_offer).expires_ms + 120_001
    return [
        judged("checks-ok", ("R-04-19", "R-04-16"), "The sample job.", EVIDENCE),
        judged("checks-cancelled", ("R-04-19",), "Cancelled: what was delivered is billed.", cancelled),
        judged("checks-failed-job", ("R-04-17",), "An error: nothing is billed.", failed),
        judged("checks-empty", ("R-04-17",), "No completion token: nothing is billed.", empty),
        judged("checks-bounded", ("R-04-24",), "Without the tokenizer.", uncounted),
        judged("checks-calls", ("R-04-14", "R-04-16", "R-02-10"), "Thoughts and two calls.", called),
        judged("checks-calls-bounded", ("R-04-24",), "Without the tokenizer.", uncounted_call),
        judged(
            "checks-calls-miscounted",
            ("R-04-16",),
            "Thoughts, names and arguments have one token less.",
            replace(called, own_completion_units=10),
            "units_counted",
        ),
        judged(
            "checks-calls-other-result",
            ("R-04-14",),
            "The receipt is over the bare text of an answer that has calls.",
            replace(called, result_hash=sha256(b"").digest()),
            "result_hash",
        ),
        judged(
            "checks-count-capped",
            ("R-04-22",),
            "66 canonical tokens in 64 sampled ones: 64 are billed.",
            replace(capped, own_completion_units=66),
        ),
        judged(
            "checks-cut-off",
            ("R-04-23",),
            "The stream ended before the envelope.",
            replace(EVIDENCE, envelope=None, state="receipted"),
            "state",
        ),
        judged(
            "checks-other-signer",
            ("R-04-19", "R-02-12"),
            "Receipt and envelope of another node.",
            _forged(),
            "signature",
        ),
        judged("checks-wrong-signature", ("R-04-19",), "A receipt with one bit flipped.", _bit_flipped(), "signature"),
        judged("checks-other-model", ("R-04-19",), "Another model ran.", _changed(model_digest=bytes(32)), "job"),
        judged("checks-other-place", ("R-04-19",), "It ran elsewhere.", _changed(jurisdiction="US"), "job"),
        judged(
            "checks-other-passages",
            ("R-02-16",),
            "Over passages that were not in the prompt.",
            _changed(chunk_hashes=CHUNK_HASHES, chunk_root=merkle_root(CHUNK_HASHES)),
            "job",
        ),
        judged("checks-other-quote", ("R-04-19",), "On another quote.", _changed(quote_hash=bytes(32)), "job"),
        judged(
            "checks-not-at-end",
            ("R-04-19", "R-04-23"),
            "A message is missing.",
            replace(EVIDENCE, state="receipted"),
            "state",
        ),
        judged(
            "checks-other-result",
            ("R-04-14",),
            "We got other text.",
            replace(EVIDENCE, result_hash=bytes(32)),
            "result_hash",
        ),
        judged(
            "checks-other-transcript",
            ("R-04-13",),
            "We got other frames.",
            replace(EVIDENCE, transcript_hash=bytes(32)),
            "transcript_hash",
        ),
        judged(
            "checks-envelope-of-other",
            ("R-02-10",),
            "It names another receipt.",
            _changed(receipt_digest=bytes(32)),
            "envelope",
        ),
        judged("checks-status", ("R-02-10",), "Finished said stop.", _changed(status="cancelled"), "envelope"),
        judged("checks-counts-differ", ("R-02-10",), "Finished said 11.", _changed(completion_units=10), "envelope"),
        judged(
            "checks-overbilled",
            ("R-02-10",),
            "The receipt bills more than the envelope says.",
            _billing(99),
            "envelope",
        ),
        judged(
            "checks-over-limit",
            ("R-04-19",),
            "65 tokens, 64 were ordered.",
            evidence_of(sample_job(completion_tokens=65)),
            "units_within_limit",
        ),
        judged(
            "checks-miscounted",
            ("R-04-16",),
            "We count one less.",
            replace(EVIDENCE, own_completion_units=10),
            "units_counted",
        ),
        judged(
            "checks-prompt-miscounted",
            ("R-04-16",),
            "We count one less.",
            replace(EVIDENCE, own_prompt_units=22),
            "units_counted",
        ),
        judged(
            "checks-impossible",
            ("R-04-24",),
            "11 tokens in 9 bytes.",
            replace(uncounted, text_bytes=9),
            "units_counted",
        ),
        judged(
            "checks-bound-reached",
            ("R-04-24",),
            "11 tokens in 10 bytes: a leading space is possible.",
            replace(uncounted, text_bytes=10),
        ),
        judged(
            "checks-texts-impossible",
            ("R-04-24",),
            "11 tokens in 5 texts of 5 bytes together.",
            replace(uncounted_call, text_bytes=5, billable_texts=5),
            "units_counted",
        ),
        judged(
            "checks-texts-bound-reached",
            ("R-04-24",),
            "11 tokens in 5 texts of 6 bytes together: each may have a leading space.",
            replace(uncounted_call, text_bytes=6, billable_texts=5),
        ),
        judged(
            "checks-too-early",
            ("R-04-19",),
            "Before it was ordered.",
            _changed(started_ms=NOW_MS - 119_991),
            "time_window",
        ),
        judged(
            "checks-too-late",
            ("R-04-19",),
            "Finished after its envelope came.",
            _changed(started_ms=envelope.started_ms, finished_ms=late),
            "time_window",
        ),
        judged(
            "checks-after-expiry",
            ("R-04-19",),
            "Finished before its envelope came, but 120.001 s after the order expired.",
            replace(_changed(finished_ms=expired), ended_ms=expired),
            "time_window",
        ),
    ]


def judged(name: str, requirements: tuple[str, ...], comment: str, evidence: JobEvidence, failure: str = "") -> Vector:
    """A vector of this evidence, which fails the check `failure`, or none."""
    given: dict[str, JsonValue] = {
        "job_offer": evidence.job_offer.raw.hex(),
        "quote": evidence.quote.raw.hex(),
        "state": evidence.state,
        "frames": evidence.frames,
        "frame_bytes": evidence.frame_bytes,
        "result_hash": evidence.result_hash.hex(),
        "transcript_hash": evidence.transcript_hash.hex(),
        "text_bytes": evidence.text_bytes,
        "billable_texts": evidence.billable_texts,
        "own_prompt_units": evidence.own_prompt_units,
        "own_completion_units": evidence.own_completion_units,
        "finished": None if evidence.finished is None else pack(evidence.finished).raw.hex(),
        "receipt": None if evidence.receipt is None else pack(evidence.receipt).raw.hex(),
        "envelope": None if evidence.envelope is None else evidence.envelope.raw.hex(),
        "offered_ms": evidence.offered_ms,
        "ended_ms": evidence.ended_ms,
        "chunk_root": evidence.chunk_root.hex(),
        "kind": evidence.kind,
        "embedded_bytes": evidence.embedded_bytes,
        "embedded_texts": evidence.embedded_texts,
    }
    checks = check_finished_job(evidence)
    first = first_failure(checks)
    names = [check.name for check in checks]
    if first != failure or names != [name for name in CHECK_NAMES if name in names]:
        raise ValueError(f"{name} was to fail {failure or 'nothing'}, but fails {first or 'nothing'}")
    gives: dict[str, JsonValue] = {} if failure else {"outcomes": {check.name: check.outcome for check in checks}}
    expect = "payload-invalid" if failure else "ok"
    return Vector(name, requirements, comment, "checks", b"", ("executor", "requester"), given, expect, failure, gives)


def _changed(**changes: object) -> JobEvidence:
    """The sample job, with an envelope that says something else."""
    envelope = replace(message_of(AuditEnvelope, JOB.envelope), **changes)  # type: ignore[arg-type]
    return replace(EVIDENCE, envelope=pack(envelope, EXECUTOR))


def _billing(units: int) -> JobEvidence:
    """The sample job, with a well-signed receipt over too many units."""
    fields = ReceiptFields(JOB.job_id, EXECUTOR.public_key, JOB.result_hash, units)
    envelope = replace(message_of(AuditEnvelope, JOB.envelope), receipt_digest=fields.digest())
    return replace(EVIDENCE, receipt=issue_receipt(fields, EXECUTOR), envelope=pack(envelope, EXECUTOR))


def _forged() -> JobEvidence:
    """The sample job, reported by a stranger in its own name."""
    receipt = message_of(Receipt, JOB.receipt)
    fields = replace(fields_of(receipt), node_key=STRANGER.public_key)
    envelope = replace(
        message_of(AuditEnvelope, JOB.envelope), executor_key=STRANGER.public_key, receipt_digest=fields.digest()
    )
    return replace(EVIDENCE, receipt=issue_receipt(fields, STRANGER), envelope=pack(envelope, STRANGER))


def _bit_flipped() -> JobEvidence:
    receipt = message_of(Receipt, JOB.receipt)
    signature = bytes([receipt.signature[0] ^ 1]) + receipt.signature[1:]
    return replace(EVIDENCE, receipt=replace(receipt, signature=signature))


if __name__ == "__main__":
    main("04", "checks", vectors)
