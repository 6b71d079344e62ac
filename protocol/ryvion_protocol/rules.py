"""What must hold between the fields of one message; checked on the way out and on the way in (specs 02-04)."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final, TypeVar

from ryvion_protocol import constants as limits
from ryvion_protocol.any_message import Message
from ryvion_protocol.errors import PayloadInvalid
from ryvion_protocol.merkle import merkle_root
from ryvion_protocol.messages import (
    Acceptance,
    AuditEnvelope,
    ChatMessage,
    Delta,
    EmbedRequest,
    Finished,
    JobOffer,
    JobRequest,
    Offer,
    OutputFormat,
    Quote,
    QuoteRequest,
    Started,
    ToolUse,
    Vectors,
)

V = TypeVar("V", int, str)
STATUS_OF_REASON: Final = {
    "stop": "completed",
    "length": "completed",
    "tool_calls": "completed",
    "cancelled": "cancelled",
    "error": "failed",
}
"""Which envelope status goes with which finish reason."""
FINISH_REASONS: Final = tuple(STATUS_OF_REASON)
ROLES: Final = ("system", "user", "assistant", "tool")
TOOL_CHOICES: Final = ("auto", "none", "required", "named")
OUTPUT_KINDS: Final = {"text": False, "json_object": False, "json_schema": True, "regex": True, "lark": True}
"""Which kinds of output come with a grammar."""


def check_payload(message: Message) -> None:
    """Raise PayloadInvalid when the fields of a message contradict each other."""
    rule = _RULES.get(type(message))
    if rule is not None:
        rule(message)


def _require(holds: bool, code: str, message: str) -> None:
    if not holds:
        raise PayloadInvalid(code, message)


def _lifetime(issued_ms: int, expires_ms: int, longest_ms: int) -> None:
    _require(expires_ms > issued_ms, "lifetime", f"it expires {issued_ms - expires_ms} ms before it was issued")
    lifetime_ms = expires_ms - issued_ms
    _require(lifetime_ms <= longest_ms, "lifetime", f"valid for {lifetime_ms} ms, at most {longest_ms} are allowed")


def _features(features: Sequence[str]) -> None:
    _require(_rises(features), "features", "features are not in rising order, or one stands twice")


def _rises(values: Sequence[V]) -> bool:
    """Is each value above the one before it?"""
    return all(before < after for before, after in pairwise(values))


def _offer(offer: Offer) -> None:
    _lifetime(offer.issued_ms, offer.expires_ms, limits.OFFER_LIFETIME_MS)
    for model in offer.models:
        _require(
            model.slots_free <= model.slots_total,
            "offer_slots",
            f"{model.slots_free} of {model.slots_total} slots of {model.name} are free",
        )
        _features(model.features)
    _require(
        len({model.name for model in offer.models}) == len(offer.models), "offer_models", "a model name stands twice"
    )


def _quote_request(request: QuoteRequest) -> None:
    _require(bool(request.model or request.digest), "quote_request_model", "neither model name nor digest is given")
    _features(request.features)


def _quote(quote: Quote) -> None:
    _lifetime(quote.issued_ms, quote.expires_ms, limits.QUOTE_LIFETIME_MS)


def _job_offer(offer: JobOffer) -> None:
    _require(
        offer.version == limits.PROTOCOL_VERSION,
        "version",
        f"version {offer.version}, only {limits.PROTOCOL_VERSION} is known",
    )
    _lifetime(offer.issued_ms, offer.expires_ms, limits.JOB_OFFER_LIFETIME_MS)


def _job_request(request: JobRequest) -> None:
    for message in request.messages:
        _turn(message)
    _tool_use(request.tools)
    _output(request.output)
    rises = _rises([bias.token for bias in request.logit_bias])
    _require(rises, "logit_bias", "tokens are not in rising order, or one stands twice")
    wanted = request.top_logprobs
    _require(request.logprobs or not wanted, "logprobs", f"{wanted} alternatives wanted, but no log-probabilities")
    _chunks(request)


def _chunks(message: JobRequest | EmbedRequest | AuditEnvelope) -> None:
    root = merkle_root(message.chunk_hashes)
    _require(message.chunk_root == root, "chunk_root", "it is not the Merkle root of the chunk hashes")


def _turn(turn: ChatMessage) -> None:
    _require(turn.role in ROLES, "role", f"role {turn.role} is none of {', '.join(ROLES)}")
    _require(turn.role == "assistant" or not turn.tool_calls, "tool_turn", f"a {turn.role} turn makes no tool calls")
    _require(all(call.id for call in turn.tool_calls), "tool_turn", "a tool call has no id")
    answers = turn.tool_call_id != ""
    _require(answers == (turn.role == "tool"), "tool_turn", "a tool turn, and no other, names the call that it answers")


def _tool_use(use: ToolUse) -> None:
    names = [tool.name for tool in use.tools]
    _require(use.choice in TOOL_CHOICES, "tool_use", f"tool choice {use.choice} is none of {', '.join(TOOL_CHOICES)}")
    _require(len(set(names)) == len(names), "tool_use", "a tool's name stands twice")
    _require(bool(names) or use.choice == "auto", "tool_use", f"tool choice {use.choice}, but there are no tools")
    _require((use.choice == "named") == (use.name != ""), "tool_use", "a name is given exactly for the choice named")
    _require(use.name == "" or use.name in names, "tool_use", f"{use.name} is none of the tools")


def _output(output: OutputFormat) -> None:
    known = OUTPUT_KINDS.get(output.kind)
    _require(known is not None, "output_format", f"output {output.kind} is none of {', '.join(OUTPUT_KINDS)}")
    _require(
        known == (output.grammar != ""), "output_format", "a grammar is given exactly for json_schema, regex and lark"
    )


def _started(started: Started) -> None:
    cached, read = started.cached_tokens, started.prompt_tokens
    _require(cached <= read, "cached_tokens", f"{cached} of {read} prompt tokens were cached")


def _delta(delta: Delta) -> None:
    told, tokens = len(delta.logprobs), len(delta.tokens)
    _require(
        not told or not tokens or told == tokens, "delta_logprobs", f"{told} log-probabilities for {tokens} tokens"
    )


def _vectors(vectors: Vectors) -> None:
    size = 4 * vectors.dimensions
    _require(
        len(vectors.values) % size == 0, "vectors", f"{len(vectors.values)} bytes are no whole vectors of {size} bytes"
    )
    numbers = struct.unpack(f"<{len(vectors.values) // 4}f", vectors.values)
    _require(all(map(math.isfinite, numbers)), "vectors", "a number is infinite or none")


def _finished(finished: Finished) -> None:
    _require(finished.reason in FINISH_REASONS, "finish_reason", f"{finished.reason} is no finish reason")
    thought, all_tokens = finished.reasoning_tokens, finished.completion_tokens
    _require(thought <= all_tokens, "reasoning_tokens", f"{thought} of {all_tokens} tokens are reasoning")


def _audit_envelope(envelope: AuditEnvelope) -> None:
    _require(envelope.status in STATUS_OF_REASON.values(), "envelope_status", f"{envelope.status} is no status")
    _require(
        envelope.started_ms <= envelope.finished_ms,
        "envelope_times",
        f"it finished {envelope.started_ms - envelope.finished_ms} ms before it started",
    )
    _require(
        envelope.first_token_ms == 0 or envelope.started_ms <= envelope.first_token_ms <= envelope.finished_ms,
        "envelope_times",
        "the first token came outside the job's time",
    )
    _chunks(envelope)


def _acceptance(acceptance: Acceptance) -> None:
    _require(
        acceptance.accepted == (acceptance.reason == ""), "acceptance_reason", "a reason is given exactly for a dispute"
    )


_RULES: Final[dict[type, Callable[..., None]]] = {
    Offer: _offer,
    QuoteRequest: _quote_request,
    Quote: _quote,
    JobOffer: _job_offer,
    JobRequest: _job_request,
    EmbedRequest: _chunks,
    Started: _started,
    Delta: _delta,
    Vectors: _vectors,
    Finished: _finished,
    AuditEnvelope: _audit_envelope,
    Acceptance: _acceptance,
}
