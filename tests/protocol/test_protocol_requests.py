"""What a job may ask for: rules between the fields, and the features that it needs (R-03-13, R-04-25 .. R-04-29)."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ryvion_node.engine.interface import Feature
from ryvion_protocol.agreement import check_features
from ryvion_protocol.constants import MAX_FEATURES, MAX_LOGIT_BIAS, MAX_TOOLS
from ryvion_protocol.errors import PayloadInvalid, ProtocolError
from ryvion_protocol.features import FEATURES, needed_features
from ryvion_protocol.messages import (
    ChatMessage,
    Delta,
    Finished,
    JobOffer,
    JobRequest,
    LogitBias,
    ModelOffer,
    OutputFormat,
    QuoteRequest,
    Sampling,
    Started,
    Tool,
    ToolCall,
    ToolUse,
)
from ryvion_protocol.packet import Packet, pack, unpack
from ryvion_protocol.rules import OUTPUT_KINDS, ROLES, TOOL_CHOICES
from ryvion_protocol.zigzag import unzigzag, zigzag
from specs.samples import CALL_ANSWER, CALL_REQUEST, EXECUTOR, OFFER, QUOTE_REQUEST, REQUESTER, message_of, sample_job
from tests.protocol.strategies import MESSAGE_CLASSES, legal

JOB = sample_job()
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
NAME = st.text("abcXYZ019_-", min_size=1, max_size=12)
LAWFUL_CALL = st.builds(ToolCall, id=NAME, name=NAME, arguments=TEXT)
LAWFUL_TURN = st.one_of(
    st.builds(ChatMessage, role=st.sampled_from(("system", "user")), content=TEXT, name=NAME),
    st.builds(
        ChatMessage,
        role=st.just("assistant"),
        content=TEXT,
        name=st.just(""),
        tool_calls=st.lists(LAWFUL_CALL, max_size=2).map(tuple),
    ),
    st.builds(ChatMessage, role=st.just("tool"), content=TEXT, name=st.just(""), tool_call_id=NAME),
)


@st.composite
def lawful_tool_use(draw: st.DrawFn) -> ToolUse:
    names = draw(st.lists(NAME, max_size=3, unique=True))
    tools = tuple(Tool(name, draw(TEXT), draw(TEXT)) for name in names)
    choice = draw(st.sampled_from(TOOL_CHOICES)) if tools else "auto"
    named = draw(st.sampled_from(names)) if choice == "named" else ""
    return ToolUse(tools, choice, named, draw(st.booleans()))


@st.composite
def lawful_request(draw: st.DrawFn) -> JobRequest:
    kind = draw(st.sampled_from(tuple(OUTPUT_KINDS)))
    tokens = sorted(draw(st.sets(st.integers(0, 2**32 - 1), max_size=3)))
    logprobs = draw(st.booleans())
    return JobRequest(
        salt=bytes(16),
        messages=tuple(draw(st.lists(LAWFUL_TURN, min_size=1, max_size=3))),
        stop=tuple(draw(st.lists(TEXT.filter(bool), max_size=1))),
        chunk_hashes=(),
        tools=draw(lawful_tool_use()),
        output=OutputFormat(kind, draw(TEXT.filter(bool)) if OUTPUT_KINDS[kind] else ""),
        logit_bias=tuple(LogitBias(token, draw(st.integers(0, 200_000_000))) for token in tokens),
        logprobs=logprobs,
        top_logprobs=draw(st.integers(0, 20)) if logprobs else 0,
    )


def order(sampling: Sampling) -> Packet:
    return pack(replace(message_of(JobOffer, JOB.job_offer), sampling=sampling), REQUESTER)


def asking(*features: str) -> Packet:
    return pack(replace(QUOTE_REQUEST, features=features))


@given(lawful_request())
def test_every_lawful_request_goes_over_the_wire(request: JobRequest) -> None:
    """R-04-26, R-04-27, R-04-28, R-04-29."""
    assert unpack(pack(request).raw, (JobRequest,)).message == request


@settings(max_examples=200)
@given(st.one_of(legal(JobRequest), legal(Delta), legal(Started), legal(Finished), legal(QuoteRequest)))
def test_legal_fields_make_a_packet_or_break_a_rule(message: Any) -> None:
    """R-00-14: both directions apply the same rules, and nothing but PayloadInvalid comes of them."""
    try:
        packet = pack(message)
    except PayloadInvalid:
        return
    assert unpack(packet.raw, (type(message),)).message == message


@settings(max_examples=300)
@given(
    st.sampled_from((pack(CALL_REQUEST), *sample_job(answer=CALL_ANSWER, reason="tool_calls").packets)),
    st.data(),
)
def test_a_mutated_packet_with_every_field_gives_a_packet_or_a_protocol_error(
    packet: Packet, data: st.DataObject
) -> None:
    """R-00-14 and R-00-5 where the messages nest deepest."""
    raw = bytearray(packet.raw)
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ProtocolError):
        assert unpack(bytes(raw), MESSAGE_CLASSES).raw == bytes(raw)


@given(legal(Sampling), lawful_request())
def test_a_job_needs_known_features_and_each_of_them(sampling: Sampling, request: JobRequest) -> None:
    """R-04-25: asked for all, it is taken; without any single one, it is refused."""
    needed = needed_features(sampling, request)
    assert set(needed) <= set(FEATURES)
    assert needed == tuple(sorted(set(needed)))
    offer, packet = order(sampling), pack(request)
    check_features(packet, offer, asking(*needed))
    check_features(packet, offer, asking(*sorted({*needed, "seeded", "telepathy"})))
    for missing in needed:
        with pytest.raises(PayloadInvalid, match=missing) as caught:
            check_features(packet, offer, asking(*(code for code in needed if code != missing)))
        assert caught.value.code == "feature"


def test_a_plain_chat_needs_no_feature() -> None:
    """R-04-25: temperature, top_p, seed and stop are what every engine has."""
    plain = replace(message_of(JobRequest, JOB.job_request), stop=("x",))
    assert needed_features(Sampling(1_234_567, 500_000, 2**64 - 1), plain) == ()
    with pytest.raises(TypeError):
        check_features(JOB.started, JOB.job_offer, JOB.quote_request)


def test_protocol_and_engine_know_the_same_features() -> None:
    """R-03-13: the known codes rise, as they stand on the wire."""
    assert set(FEATURES) == set(get_args(Feature))
    assert list(FEATURES) == sorted(FEATURES)
    assert len(FEATURES) <= MAX_FEATURES
    assert set(OUTPUT_KINDS) - {"text"} <= set(FEATURES)


@given(st.lists(st.sampled_from((*FEATURES, "telepathy")), max_size=5).map(tuple))
def test_features_rise_wherever_they_stand(features: tuple[str, ...]) -> None:
    """R-03-13 and R-03-14."""
    lawful = list(features) == sorted(set(features))
    models: tuple[ModelOffer, ...] = (replace(OFFER.models[0], features=features),)
    for message, signer in (
        (replace(QUOTE_REQUEST, features=features), None),
        (replace(OFFER, models=models), EXECUTOR),
    ):
        with contextlib.nullcontext() if lawful else pytest.raises(PayloadInvalid, match="rising order"):
            pack(message, signer)


@given(st.sampled_from(ROLES), st.lists(LAWFUL_CALL, max_size=1), st.sampled_from(("", "c1")))
def test_calls_and_their_answers_stand_on_the_turns_they_belong_to(
    role: str, calls: list[ToolCall], answered: str
) -> None:
    """R-04-26."""
    lawful = (not calls or role == "assistant") and (answered != "") == (role == "tool")
    turn = ChatMessage(role, "", "", tuple(calls), answered)
    with contextlib.nullcontext() if lawful else pytest.raises(PayloadInvalid):
        pack(JobRequest(bytes(16), (turn,), (), ()))


@given(st.integers(0, 5), st.integers(0, 5))
def test_log_probabilities_go_with_their_tokens(tokens: int, logprobs: int) -> None:
    """R-04-30."""
    told = CALL_ANSWER[0].logprobs[:1] * logprobs
    delta = Delta(0, 0, "", tuple(range(tokens)), "", (), told)
    lawful = 0 in (tokens, logprobs) or tokens == logprobs
    with contextlib.nullcontext() if lawful else pytest.raises(PayloadInvalid):
        assert unpack(pack(delta).raw, (Delta,)).message == delta


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_a_part_is_never_more_than_the_whole(part: int, whole: int) -> None:
    """R-04-32 and R-04-33."""
    started = replace(message_of(Started, JOB.started), prompt_tokens=whole, cached_tokens=part)
    for message in (started, Finished("stop", 1, whole, part)):
        with contextlib.nullcontext() if part <= whole else pytest.raises(PayloadInvalid, match=str(part)):
            pack(message)


@given(st.integers(-(2**40), 2**40), st.integers(0, 2**41))
def test_zigzag_has_one_code_for_every_number_and_back(number: int, code: int) -> None:
    """R-00-18."""
    assert unzigzag(zigzag(number)) == number
    assert zigzag(unzigzag(code)) == code
    assert zigzag(number) >= 0
    assert abs(number) <= (zigzag(number) + 1) // 2


def test_the_largest_of_everything_still_fits_its_frame() -> None:
    """Counts that the schema allows must be of use: a request with all tools and biases is within the frame's cap."""
    tools = tuple(Tool(f"{index:064}", "d" * 100, "{}" * 300) for index in range(MAX_TOOLS))
    bias = tuple(LogitBias(2**32 - MAX_LOGIT_BIAS + index, 200_000_000) for index in range(MAX_LOGIT_BIAS))
    request = replace(CALL_REQUEST, tools=ToolUse(tools), logit_bias=bias, output=OutputFormat("lark", "x" * 65_536))
    assert unpack(pack(request).raw, (JobRequest,)).message == request
