"""The requester's checks of a finished job, each with its own result (spec 04, "What the requester checks").

All pure: what was agreed, what came, and our own hashes, counts and clock go in; ten verdicts come out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from ryvion_protocol.constants import MAX_CLOCK_SKEW_MS, MAX_COUNT_SLACK, MAX_TEXT_MARKS
from ryvion_protocol.errors import PayloadInvalid, ProtocolError, SignatureInvalid, StateError
from ryvion_protocol.job import JobState, job_id_of
from ryvion_protocol.messages import CHAT, EMBEDDING, AuditEnvelope, Finished, JobOffer, Quote, Receipt
from ryvion_protocol.money import cost_microcredits, metering_units
from ryvion_protocol.packet import Packet
from ryvion_protocol.receipt import fields_of, verify_receipt
from ryvion_protocol.rules import STATUS_OF_REASON

Outcome = Literal["passed", "failed", "bounded"]
"""bounded: not counted, only held against an upper bound, because the tokenizer is not at hand."""
CHECK_NAMES: Final = (
    "frames",
    "signature",
    "job",
    "state",
    "result_hash",
    "transcript_hash",
    "envelope",
    "units_within_limit",
    "units_counted",
    "time_window",
)
_COMPLETE_STATES: Final = ("enveloped", "enveloped_cancelled")


@dataclass(frozen=True, slots=True)
class Check:
    """One check: `name` is stable and names the rule, `detail` is one sentence with the figures."""

    name: str
    outcome: Outcome
    detail: str


@dataclass(frozen=True, slots=True)
class JobEvidence:
    """Everything the requester holds when a job is over, well or badly; times are Unix ms by its own clock."""

    job_offer: Packet
    quote: Packet
    state: JobState
    """Of the requester's job machine, when the last message had come."""
    frames: int
    """Received on this stream."""
    frame_bytes: int
    result_hash: bytes
    """Our own, over the answer that came."""
    transcript_hash: bytes
    """Our own, over the Delta or Vectors frames that came."""
    text_bytes: int
    """UTF-8 bytes of all billable texts that came; of an embedding the bytes of its vectors."""
    billable_texts: int
    """How many there are: content, reasoning, and name and arguments of each call, as far as not empty. An embedding has
    none."""
    own_prompt_units: int | None
    """Our own count; None without the model's tokenizer."""
    own_completion_units: int | None
    """Sum of the canonical token counts of the billable texts that came, not capped."""
    finished: Finished | None
    """None when the job ended before it came; so with the next two."""
    receipt: Receipt | None
    envelope: Packet | None
    offered_ms: int
    """When the JobOffer was sent."""
    ended_ms: int
    """When the last message had come."""
    fault: ProtocolError | None = None
    """What ended the job, when the peer broke the protocol."""
    chunk_root: bytes = b""
    """Of the request: Merkle root of the passages in the prompt."""
    kind: str = CHAT
    embedded_bytes: int = 0
    """UTF-8 bytes of the texts whose vectors came."""
    embedded_texts: int = 0
    """How many these are."""
    must_be_counted: bool = False
    """The caller wants no job settled that was only held against a bound."""


def check_finished_job(evidence: JobEvidence, clock_skew_ms: int = MAX_CLOCK_SKEW_MS) -> tuple[Check, ...]:
    """Judge a job; the checks come in the order of CHECK_NAMES. Of a job that broke, only what can be judged comes."""
    parts = _parts(evidence)
    if parts is None:
        return _incomplete(evidence)
    return (
        Check("frames", "passed", f"{evidence.frames} frames of {evidence.frame_bytes} bytes, all within their caps."),
        _signature(parts),
        _job(evidence, parts),
        _state(evidence, parts),
        _result_hash(evidence, parts),
        _transcript_hash(evidence, parts),
        _envelope(evidence, parts),
        _units_within_limit(evidence, parts),
        _units_counted(evidence, parts),
        _time_window(evidence, parts, clock_skew_ms),
    )


def all_passed(checks: Sequence[Check]) -> bool:
    """May the job be accepted? A bounded check does not stand against it."""
    return all(check.outcome != "failed" for check in checks)


def first_failure(checks: Sequence[Check]) -> str:
    """The name of the first failed check, as `Acceptance.reason` wants it; empty when none failed."""
    return next((check.name for check in checks if check.outcome == "failed"), "")


@dataclass(frozen=True, slots=True)
class _Parts:
    """The messages of a job that came to its end."""

    order: JobOffer
    job_id: str
    quote: Quote
    finished: Finished
    receipt: Receipt
    envelope: AuditEnvelope


def _parts(evidence: JobEvidence) -> _Parts | None:
    order, quote = evidence.job_offer.message, evidence.quote.message
    if not isinstance(order, JobOffer) or not isinstance(quote, Quote):
        raise TypeError("evidence holds a JobOffer and a Quote")
    envelope = None if evidence.envelope is None else evidence.envelope.message
    if evidence.finished is None or evidence.receipt is None or not isinstance(envelope, AuditEnvelope):
        return None
    if evidence.fault is not None:
        return None
    job_id = job_id_of(evidence.job_offer)
    return _Parts(order, job_id, quote, evidence.finished, evidence.receipt, envelope)


def _incomplete(evidence: JobEvidence) -> tuple[Check, ...]:
    """Verdicts on a job that broke: its frames, and the check that the break belongs to."""
    fault = evidence.fault
    intact = f"{evidence.frames} frames of {evidence.frame_bytes} bytes, all within their caps."
    frames = Check("frames", "passed", intact)
    if fault is not None:
        broken = Check(_check_of(fault), "failed", f"The peer broke the protocol ({fault.code}): {fault}.")
        return (broken,) if broken.name == "frames" else (frames, broken)
    parts = (("Finished", evidence.finished), ("Receipt", evidence.receipt), ("AuditEnvelope", evidence.envelope))
    missing = ", ".join(name for name, part in parts if part is None)
    return (frames, Check("state", "failed", f"The job broke in state {evidence.state}, without {missing}."))


def _check_of(fault: ProtocolError) -> str:
    if isinstance(fault, SignatureInvalid):
        return "signature"
    return "state" if isinstance(fault, StateError) else "frames"


def _signature(parts: _Parts) -> Check:
    """The envelope's own signature was checked when it was unpacked, under the key that it names."""
    executor = parts.order.executor_key
    for what, key in (("receipt", parts.receipt.node_key), ("envelope", parts.envelope.executor_key)):
        if key != executor:
            detail = f"The {what} is signed by {key.hex()[:16]}, the job was given to {executor.hex()[:16]}."
            return Check("signature", "failed", detail)
    try:
        verify_receipt(parts.receipt)
    except ProtocolError as exc:
        return Check("signature", "failed", f"The receipt's signature by {executor.hex()[:16]} is invalid: {exc}.")
    return Check("signature", "passed", f"Receipt and envelope are signed by {executor.hex()[:16]}.")


def _job(evidence: JobEvidence, parts: _Parts) -> Check:
    order, envelope = parts.order, parts.envelope
    agreed: tuple[tuple[str, str | bytes, str | bytes], ...] = (
        ("receipt's job id", parts.job_id, parts.receipt.job_id),
        ("envelope's job id", parts.job_id, envelope.job_id),
        ("requester", order.requester_key, envelope.requester_key),
        ("quote hash", order.quote_hash, envelope.quote_hash),
        ("model", order.model, envelope.model),
        ("model digest", order.digest, envelope.model_digest),
        ("jurisdiction", parts.quote.jurisdiction, envelope.jurisdiction),
        ("root of the passages", evidence.chunk_root, envelope.chunk_root),
    )
    for what, wanted, found in agreed:
        if wanted != found:
            return Check("job", "failed", f"The {what} is {_shown(found)}, agreed was {_shown(wanted)}.")
    return Check(
        "job", "passed", f"Job {parts.job_id[:16]} on {order.model} in {envelope.jurisdiction}, as agreed in the quote."
    )


def _state(evidence: JobEvidence, parts: _Parts) -> Check:
    if evidence.state not in _COMPLETE_STATES:
        return Check("state", "failed", f"The job stands in state {evidence.state}, not at its end.")
    return Check("state", "passed", f"All messages came in order; it ended with {parts.finished.reason}.")


def _result_hash(evidence: JobEvidence, parts: _Parts) -> Check:
    ours, theirs = evidence.result_hash, parts.receipt.result_hash
    if ours != theirs:
        detail = f"The receipt says {_shown(theirs)}, our {evidence.text_bytes} bytes hash to {_shown(ours)}."
        return Check("result_hash", "failed", detail)
    return Check("result_hash", "passed", f"Our {evidence.text_bytes} bytes hash to {_shown(ours)} as well.")


def _transcript_hash(evidence: JobEvidence, parts: _Parts) -> Check:
    ours, theirs = evidence.transcript_hash, parts.envelope.transcript_hash
    if ours != theirs:
        detail = f"The envelope says {_shown(theirs)}, the frames that came hash to {_shown(ours)}."
        return Check("transcript_hash", "failed", detail)
    return Check("transcript_hash", "passed", f"The frames that came hash to {_shown(ours)} as well.")


def _envelope(evidence: JobEvidence, parts: _Parts) -> Check:
    """Do envelope, receipt and Finished tell the same story?"""
    envelope, finished, receipt = parts.envelope, parts.finished, parts.receipt
    billed = billed_units(envelope, evidence.kind)
    digest = _digest_of(receipt)
    if digest is None or envelope.receipt_digest != digest:
        return Check(
            "envelope", "failed", f"It names receipt {_shown(envelope.receipt_digest)}, not the one that came."
        )
    if envelope.status != STATUS_OF_REASON.get(finished.reason):
        return Check("envelope", "failed", f"It says {envelope.status}, the job ended with {finished.reason}.")
    counts = (envelope.prompt_units, envelope.completion_units)
    said = (finished.prompt_tokens, finished.completion_tokens)
    if counts != said:
        detail = f"It counts {counts[0]} + {counts[1]} tokens, Finished said {said[0]} + {said[1]}."
        return Check("envelope", "failed", detail)
    if receipt.metering_units != billed:
        detail = f"The receipt bills {receipt.metering_units} units, the envelope makes that {billed}."
        return Check("envelope", "failed", detail)
    return Check("envelope", "passed", f"It names this receipt, is {envelope.status}, and bills {billed} units.")


def billed_units(envelope: AuditEnvelope, kind: str = CHAT) -> int:
    """The units that the receipt of such an envelope must bill: a failed job bills nothing."""
    if envelope.status == "failed":
        return 0
    return metering_units(envelope.prompt_units, envelope.completion_units, kind)


def _units_within_limit(evidence: JobEvidence, parts: _Parts) -> Check:
    order, quote, envelope = parts.order, parts.quote, parts.envelope
    prompt, completion = envelope.prompt_units, envelope.completion_units
    cost = 0
    if billed_units(envelope, evidence.kind) > 0:
        cost = cost_microcredits(prompt, completion, quote.price_in, quote.price_out, evidence.kind)
    for what, found, most in (
        ("prompt tokens", prompt, order.max_prompt_tokens),
        ("completion tokens", completion, order.max_completion_tokens),
        ("micro-credits", cost, order.max_price or cost),
    ):
        if found > most:
            return Check("units_within_limit", "failed", f"{found} {what}, ordered were at most {most}.")
    return Check(
        "units_within_limit",
        "passed",
        f"{prompt} of {order.max_prompt_tokens} prompt and {completion} of {order.max_completion_tokens} completion "
        f"tokens for {cost} micro-credits.",
    )


def _units_counted(evidence: JobEvidence, parts: _Parts) -> Check:
    envelope = parts.envelope
    if parts.receipt.metering_units == 0:
        return Check("units_counted", "passed", "Nothing is billed, so there is nothing to count.")
    own_completion = evidence.own_completion_units
    if own_completion is not None:
        # A text can have a few canonical tokens more than were sampled: what was ordered is the most that is billed.
        own_completion = min(own_completion, parts.order.max_completion_tokens)
    most_prompt, most_completion = _most_units(evidence, parts)
    outcome: Outcome = "passed"
    told: list[str] = []
    for what, billed, own, bound in (
        ("prompt", envelope.prompt_units, evidence.own_prompt_units, most_prompt),
        ("completion", envelope.completion_units, own_completion, most_completion),
    ):
        if own is not None:
            if billed != own:
                return Check("units_counted", "failed", f"{billed} {what} tokens are billed, we count {own}.")
            told.append(f"{billed} {what} tokens, counted")
            continue
        if billed > bound:
            detail = f"{billed} {what} tokens are billed, more than {bound} are impossible here."
            return Check("units_counted", "failed", detail)
        if evidence.must_be_counted:
            detail = f"{billed} {what} tokens are billed; a count of our own was demanded, and could not be made."
            return Check("units_counted", "failed", detail)
        outcome = "bounded"
        told.append(f"{billed} {what} tokens, at most {bound} possible")
    return Check("units_counted", outcome, f"{'; '.join(told)}.")


def _most_units(evidence: JobEvidence, parts: _Parts) -> tuple[int, int]:
    """Prompt and completion units that are possible at most, for who has no tokenizer."""
    ordered = parts.order.max_prompt_tokens
    if evidence.kind == EMBEDDING:
        return min(ordered, evidence.embedded_bytes + MAX_TEXT_MARKS * evidence.embedded_texts), 0
    return ordered, evidence.text_bytes + MAX_COUNT_SLACK * evidence.billable_texts


def _time_window(evidence: JobEvidence, parts: _Parts, skew_ms: int) -> Check:
    envelope = parts.envelope
    for what, too_far_ms in (
        ("started {} ms before it was ordered", evidence.offered_ms - envelope.started_ms),
        ("finished {} ms after its envelope came", envelope.finished_ms - evidence.ended_ms),
        ("finished {} ms after the order expired", envelope.finished_ms - parts.order.expires_ms),
    ):
        if too_far_ms > skew_ms:
            return Check("time_window", "failed", f"It {what.format(too_far_ms)}, {skew_ms} ms of skew are allowed.")
    took_ms = envelope.finished_ms - envelope.started_ms
    return Check("time_window", "passed", f"It took {took_ms} ms, between our order and its envelope.")


def _digest_of(receipt: Receipt) -> bytes | None:
    try:
        return fields_of(receipt).digest()
    except PayloadInvalid:
        return None


def _shown(value: str | bytes) -> str:
    return value.hex()[:16] if isinstance(value, bytes) else value[:64]
