"""Vectors of spec 04: what a job may ask for beside its prompt. `python -m specs.generate_requests [--check]`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ryvion_protocol.any_message import Message
from ryvion_protocol.messages import (
    ChatMessage,
    Finished,
    JobOffer,
    JobRequest,
    OutputFormat,
    QuoteRequest,
    Started,
    ToolCall,
)
from ryvion_protocol.packet import pack
from specs.samples import CALL_ANSWER, CALL_REQUEST, CALL_SAMPLING, REQUESTER, WEATHER, message_of, sample_job
from specs.vector_form import JsonValue, Vector, main, plain, refused_alone

JOB = sample_job()


def vectors() -> Sequence[Vector]:
    """All vectors of the family, in the order of the file."""
    return [*_whole(), *_wrong(), *_features()]


def _whole() -> list[Vector]:
    """Messages that use every field."""
    order = replace(message_of(JobOffer, JOB.job_offer), sampling=CALL_SAMPLING)
    whole: tuple[tuple[str, str, Message], ...] = (
        ("job-offer-sampling", "R-00-18", order),
        ("job-request-tools", "R-04-26 R-04-27 R-04-28 R-04-29", CALL_REQUEST),
        ("job-request-lark", "R-04-28", replace(CALL_REQUEST, output=OutputFormat("lark", 'start: "yes" | "no"'))),
        ("delta-reasoning", "R-04-30", CALL_ANSWER[0]),
        ("delta-logprobs-alone", "R-04-30", replace(CALL_ANSWER[0], tokens=())),
        ("delta-calls", "R-04-31", replace(CALL_ANSWER[2], seq=2)),
        ("started-all-cached", "R-04-32", replace(message_of(Started, JOB.started), cached_tokens=23)),
        ("finished-calls", "R-04-15 R-04-33", Finished("tool_calls", 23, 11, 11)),
    )
    return [taken_alone(name, requirements, message) for name, requirements, message in whole]


def _wrong() -> list[Vector]:
    """JobRequests with one thing wrong in each."""
    ask, use, turn = CALL_REQUEST, CALL_REQUEST.tools, CALL_REQUEST.messages[1]
    bias = ask.logit_bias

    def turned(**changes: object) -> JobRequest:
        return replace(ask, messages=(replace(turn, **changes),))  # type: ignore[arg-type]

    def used(**changes: object) -> JobRequest:
        return replace(ask, tools=replace(use, **changes))  # type: ignore[arg-type]

    def put(kind: str, grammar: str) -> JobRequest:
        return replace(ask, output=OutputFormat(kind, grammar))

    wrong: tuple[tuple[str, str, str, JobRequest, str], ...] = (
        ("turn-user-calls", "R-04-26", "A call in a user turn.", turned(role="user"), "tool_turn"),
        ("turn-call-without-id", "R-04-26", "A call without an id.", turned(tool_calls=(_NAMELESS,)), "tool_turn"),
        (
            "turn-answers-nothing",
            "R-04-26",
            "A tool turn without an id.",
            turned(role="tool", tool_calls=()),
            "tool_turn",
        ),
        ("turn-assistant-answers", "R-04-26", "An answer by the assistant.", turned(tool_call_id="c"), "tool_turn"),
        ("tools-choice", "R-04-27", "A choice that does not exist.", used(choice="any", name=""), "tool_use"),
        ("tools-same-name", "R-04-27", "Two tools of one name.", used(tools=(WEATHER, WEATHER)), "tool_use"),
        (
            "tools-required-none",
            "R-04-27",
            "A call, but no tools.",
            used(tools=(), choice="required", name=""),
            "tool_use",
        ),
        ("tools-unnamed", "R-04-27", "Named, but without a name.", used(name=""), "tool_use"),
        ("tools-auto-named", "R-04-27", "Auto, but with a name.", used(choice="auto"), "tool_use"),
        ("tools-stranger", "R-04-27", "The name of no tool.", used(name="get_time"), "tool_use"),
        ("output-kind", "R-04-28", "A kind that does not exist.", put("haiku", ""), "output_format"),
        ("output-text-grammar", "R-04-28", "Plain text with a grammar.", put("text", "a"), "output_format"),
        (
            "output-object-grammar",
            "R-04-28",
            "A JSON object with a grammar.",
            put("json_object", "{}"),
            "output_format",
        ),
        ("output-no-schema", "R-04-28", "A JSON Schema without one.", put("json_schema", ""), "output_format"),
        ("bias-falling", "R-04-29", "Tokens fall.", replace(ask, logit_bias=bias[::-1]), "logit_bias"),
        ("bias-twice", "R-04-29", "One token twice.", replace(ask, logit_bias=(bias[0], bias[0])), "logit_bias"),
        ("logprobs-top-alone", "R-04-29", "Alternatives of nothing.", replace(ask, logprobs=False), "logprobs"),
        (
            "chunks-other-root",
            "R-02-15",
            "The root of other passages.",
            replace(ask, chunk_root=bytes(32)),
            "chunk_root",
        ),
        ("chunks-no-root", "R-02-15", "Passages without a root.", replace(ask, chunk_root=b""), "chunk_root"),
    )
    return [
        refused_alone(name, requirement, said, request, None, code) for name, requirement, said, request, code in wrong
    ]


_NAMELESS = ToolCall("", "get_weather", "{}")


def taken_alone(name: str, requirements: str, message: Message) -> Vector:
    """A vector of a packet that is legal."""
    signer = REQUESTER if isinstance(message, JobOffer) else None
    packet = pack(message, signer)
    given: dict[str, JsonValue] = {"allowed": [message.TYPE]}
    gives = {"type": message.TYPE, "hash": packet.hash.hex(), "fields": plain(message)}
    comment = f"A {type(message).__name__} with fields of every kind."
    keys = () if signer is None else ("requester",)
    return Vector(name, tuple(requirements.split()), comment, "packet", packet.raw, keys, given, gives=gives)


def _features() -> list[Vector]:
    """What order and JobRequest need must have been asked for in the QuoteRequest."""
    plain_order = message_of(JobOffer, JOB.job_offer)
    full_order = replace(plain_order, sampling=CALL_SAMPLING)
    bare = message_of(JobRequest, JOB.job_request)
    prefixed = replace(bare, messages=(*bare.messages, ChatMessage("assistant", "The capital", "")))
    answered = replace(bare, messages=CALL_REQUEST.messages)
    everything = ("json_schema", "logit_bias", "logprobs", "min_p", "penalties", "repetition_penalty", "tools", "top_k")

    def needs(
        name: str,
        comment: str,
        order: JobOffer,
        request: JobRequest,
        asked: Sequence[str],
        needed: Sequence[str] | None,
    ) -> Vector:
        quote_request = pack(replace(message_of(QuoteRequest, JOB.quote_request), features=tuple(asked)))
        given: dict[str, JsonValue] = {
            "job_offer": pack(order, REQUESTER).raw.hex(),
            "quote_request": quote_request.raw.hex(),
        }
        code = "feature" if needed is None else ""
        gives: dict[str, JsonValue] = {} if needed is None else {"needed": list(needed)}
        raw, layer = pack(request).raw, "payload-invalid" if code else "ok"
        return Vector(name, ("R-04-25",), comment, "job-features", raw, ("requester",), given, layer, code, gives)

    return [
        needs("features-none", "Temperature, top_p, seed and stop need none.", plain_order, bare, (), ()),
        needs("features-spare", "More was asked for than is needed.", plain_order, bare, ("seeded",), ()),
        needs("features-all", "Everything at once.", full_order, CALL_REQUEST, everything, everything),
        needs("features-prefix", "A prefix to continue.", plain_order, prefixed, ("prefix",), ("prefix",)),
        needs(
            "features-history", "Calls in earlier turns need tools too.", plain_order, answered, ("tools",), ("tools",)
        ),
        needs("features-sampling-unasked", "top_k was not asked for.", full_order, bare, everything[:-1], None),
        needs(
            "features-request-unasked", "json_schema was not asked for.", full_order, CALL_REQUEST, everything[1:], None
        ),
    ]


if __name__ == "__main__":
    main("04", "requests", vectors)
