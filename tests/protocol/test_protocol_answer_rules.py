"""Spec 04's rules between an order and its answer, as the node's buying side holds them (R-04-34)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ryvion_node.market.answer import AnswerRules
from ryvion_protocol.errors import PayloadInvalid
from ryvion_protocol.messages import CallPiece, ChatMessage, Delta, Finished, JobRequest, OutputFormat, ToolUse
from ryvion_protocol.transcript import ResultBuilder
from specs.samples import CALL_ANSWER, JOB_REQUEST, WEATHER

TIME = replace(WEATHER, name="get_time")
TOLD = CALL_ANSWER[0].logprobs
ASKING = replace(JOB_REQUEST, logprobs=True, top_logprobs=2)
TEXT = Delta(0, 0, "Paris.", (1,))
SPOKEN = replace(TEXT, logprobs=TOLD[:1])
CALL = Delta(0, 0, "", (1,), "", (CallPiece(0, "c1", "get_weather", "{"), CallPiece(0, "", "", "}")))
SECOND = Delta(1, 0, "", (1,), "", (CallPiece(1, "c2", "get_weather", "{}"),))


def using(choice: str = "auto", name: str = "", *, parallel: bool = True) -> JobRequest:
    return replace(JOB_REQUEST, tools=ToolUse((WEATHER, TIME), choice, name, parallel))


def holding(kind: str, grammar: str = "") -> JobRequest:
    return replace(JOB_REQUEST, output=OutputFormat(kind, grammar))


def says(text: str) -> Delta:
    return Delta(0, 0, text, (1,))


PREFIXED = replace(
    holding("json_object"), messages=(*JOB_REQUEST.messages, ChatMessage(role="assistant", content='{"a":', name=""))
)


def judge(request: JobRequest, reason: str, *deltas: Delta, max_tokens: int = 8) -> None:
    rules, result = AnswerRules(request, max_tokens), ResultBuilder()
    for delta in deltas:
        rules.check(delta)
        result.add(delta)
    rules.check_end(Finished(reason, 1, 1), result)


@pytest.mark.parametrize(
    ("request_", "reason", "deltas"),
    [
        (JOB_REQUEST, "stop", (TEXT,)),
        (JOB_REQUEST, "stop", ()),
        (ASKING, "stop", (SPOKEN,)),
        (ASKING, "stop", ()),
        (using(), "stop", (TEXT,)),
        (using(), "tool_calls", (TEXT, CALL, SECOND)),
        (using(parallel=False), "tool_calls", (CALL,)),
        (using("none"), "stop", (TEXT,)),
        (using("required"), "tool_calls", (CALL,)),
        (using("named", "get_weather"), "tool_calls", (CALL,)),
        (using("required"), "length", (TEXT,)),
        (using(), "length", (CALL,)),
        (holding("json_object"), "stop", (says('{"a": 1e999}'),)),
        (holding("json_schema", "{}"), "stop", (says("[1]"),)),
        (holding("json_object"), "length", (says('{"a'),)),
        (replace(holding("json_object"), stop=("}",)), "stop", (says('{"a'),)),
        (PREFIXED, "stop", (says("1}"),)),
        (holding("regex", "a+"), "stop", (says("aa"),)),
    ],
)
def test_what_was_ordered_is_taken(request_: JobRequest, reason: str, deltas: tuple[Delta, ...]) -> None:
    """R-04-34."""
    judge(request_, reason, *deltas)


@pytest.mark.parametrize(
    ("request_", "reason", "deltas", "code"),
    [
        (JOB_REQUEST, "stop", (SPOKEN,), "logprobs"),
        (replace(ASKING, top_logprobs=1), "stop", (SPOKEN,), "logprobs"),
        (ASKING, "stop", (replace(SPOKEN, logprobs=TOLD * 5),), "logprobs"),
        (ASKING, "stop", (TEXT,), "logprobs"),
        (JOB_REQUEST, "tool_calls", (CALL,), "tool_calls"),
        (using("none"), "tool_calls", (CALL,), "tool_calls"),
        (using("named", "get_time"), "tool_calls", (CALL,), "tool_calls"),
        (using(parallel=False), "tool_calls", (CALL, SECOND), "tool_calls"),
        (using("required"), "stop", (TEXT,), "tool_calls"),
        (using("named", "get_time"), "stop", (TEXT,), "tool_calls"),
        (using(), "tool_calls", (TEXT,), "tool_calls"),
        (using(), "stop", (CALL,), "tool_calls"),
        (using("none"), "length", (CALL,), "tool_calls"),
        (holding("json_object"), "stop", (TEXT,), "output_format"),
        (holding("json_object"), "stop", (says("[1]"),), "output_format"),
        (holding("json_object"), "stop", (says("[" * 100_000),), "output_format"),
        (holding("json_schema", "{}"), "stop", (says('{"a"'),), "output_format"),
    ],
)
def test_what_was_not_ordered_is_refused(
    request_: JobRequest, reason: str, deltas: tuple[Delta, ...], code: str
) -> None:
    """R-04-34."""
    with pytest.raises(PayloadInvalid) as caught:
        judge(request_, reason, *deltas)
    assert caught.value.code == code
