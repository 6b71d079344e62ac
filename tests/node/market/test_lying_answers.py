"""Answers that only a broken or lying executor gives (R-04-34): each ends the job, nothing is settled, the reason is kept."""

from __future__ import annotations

import pytest

from ryvion_node.engine.fake import Script
from ryvion_node.market.answer import AnswerRules
from ryvion_node.market.constants import MAX_BYTES_PER_TOKEN
from ryvion_node.market.interface import MarketError, Piece, Taken
from ryvion_node.p2p.channel import JobChannel
from ryvion_node.p2p.interface import Stream, StreamBroken
from ryvion_protocol.constants import MARKET_PROTOCOL
from ryvion_protocol.errors import PayloadInvalid
from ryvion_protocol.job import job_id_of
from ryvion_protocol.messages import (
    Alternative,
    CallPiece,
    ChatMessage,
    Delta,
    Finished,
    Hardware,
    JobRequest,
    OutputFormat,
    QuoteRequest,
    Started,
    TokenLogprob,
    Tool,
    ToolUse,
)
from ryvion_protocol.packet import pack
from ryvion_protocol.signing import SigningIdentity
from ryvion_protocol.transcript import ResultBuilder
from tests.node.market.marketplace import SellerPlan, buy, clock_ms, marketplace, order
from tests.node.market.test_hostile_sellers import quote

pytestmark = pytest.mark.virtual_time

TOOLS = (Tool("weather", "", ""), Tool("clock", "", ""))
AUTO = ToolUse(TOOLS)
JSON = OutputFormat("json_object")
SCHEMA = OutputFormat("json_schema", "{}")


def logprob(alternatives: int = 0) -> TokenLogprob:
    one = Alternative(b"x", 5)
    return TokenLogprob(one, (one,) * alternatives)


def text(said: str = "x", *logprobs: TokenLogprob) -> Delta:
    return Delta(0, 0, said, (), "", (), logprobs)


def call(name: str = "clock", index: int = 0, arguments: str = "{}", call_id: str = "c") -> Delta:
    return Delta(0, 0, "", (), "", (CallPiece(index, call_id, name, arguments),))


def asked(**changes: object) -> JobRequest:
    fields: dict[str, object] = {
        "salt": bytes(16),
        "messages": (ChatMessage("user", "hi", ""),),
        "stop": (),
        "chunk_hashes": (),
    }
    return JobRequest(**(fields | changes))  # type: ignore[arg-type]


def verdict(request: JobRequest, *deltas: Delta, reason: str = "stop") -> str:
    """The code of the fault; empty when the answer stands."""
    rules, result = AnswerRules(request, max_completion_tokens=2), ResultBuilder()
    try:
        for delta in deltas:
            rules.check(delta)
            result.add(delta)
        rules.check_end(Finished(reason, 1, 1), result)
    except PayloadInvalid as fault:
        return fault.code
    return ""


@pytest.mark.parametrize(
    ("request_", "deltas", "reason", "code"),
    [
        (asked(), [text()], "stop", ""),
        (asked(), [], "stop", ""),
        (asked(), [text("x", logprob())], "stop", "logprobs"),
        (asked(logprobs=True), [text("x", logprob())], "stop", ""),
        (asked(logprobs=True), [text()], "stop", "logprobs"),
        (asked(logprobs=True), [text()], "length", ""),
        (asked(logprobs=True), [text("")], "stop", ""),
        (asked(logprobs=True), [text("x", logprob(1))], "stop", "logprobs"),
        (asked(logprobs=True, top_logprobs=2), [text("x", logprob(2))], "stop", ""),
        (asked(logprobs=True, top_logprobs=2), [text("x", logprob(3))], "stop", "logprobs"),
        (asked(logprobs=True), [text("x", *[logprob()] * 4)], "stop", "logprobs"),
        (asked(), [call()], "tool_calls", "tool_calls"),
        (asked(tools=AUTO), [call()], "tool_calls", ""),
        (asked(tools=AUTO), [text(), call()], "tool_calls", ""),
        (asked(tools=AUTO), [call(), call("weather", 1)], "tool_calls", ""),
        (asked(tools=AUTO), [call(arguments="not json")], "tool_calls", ""),
        (asked(tools=AUTO), [text()], "stop", ""),
        (asked(tools=AUTO), [call("shell")], "tool_calls", "tool_calls"),
        (asked(tools=AUTO), [call()], "stop", "tool_calls"),
        (asked(tools=AUTO), [call()], "length", ""),
        (asked(tools=AUTO), [text()], "tool_calls", "tool_calls"),
        (asked(tools=AUTO), [call(index=1)], "tool_calls", "call_order"),
        (asked(tools=AUTO), [call(), call()], "tool_calls", "call_order"),
        (asked(tools=AUTO), [call(name="", call_id="")], "tool_calls", "call_order"),
        (asked(tools=ToolUse(TOOLS, "none")), [call()], "tool_calls", "tool_calls"),
        (asked(tools=ToolUse(TOOLS, "none")), [text()], "stop", ""),
        (asked(tools=ToolUse(TOOLS, parallel=False)), [call(), call("weather", 1)], "tool_calls", "tool_calls"),
        (asked(tools=ToolUse(TOOLS, "required")), [text()], "stop", "tool_calls"),
        (asked(tools=ToolUse(TOOLS, "required")), [text()], "length", ""),
        (asked(tools=ToolUse(TOOLS, "required")), [call()], "tool_calls", ""),
        (asked(tools=ToolUse(TOOLS, "named", "clock")), [call()], "tool_calls", ""),
        (asked(tools=ToolUse(TOOLS, "named", "clock")), [call("weather")], "tool_calls", "tool_calls"),
        (asked(output=JSON), [text('{"a": 1}')], "stop", ""),
        (asked(output=JSON), [text(" {}\n")], "stop", ""),
        (asked(output=JSON), [text("{}"), text("}")], "stop", "output_format"),
        (asked(output=JSON), [text("[1]")], "stop", "output_format"),
        (asked(output=JSON), [text("sorry")], "stop", "output_format"),
        (asked(output=JSON), [text('{"a"')], "length", ""),
        (asked(output=JSON, stop=("}",)), [text('{"a": 1')], "stop", ""),
        (asked(output=JSON, tools=AUTO), [call()], "tool_calls", ""),
        (asked(output=SCHEMA), [text("[1e999, " + "9" * 5000 + "]")], "stop", ""),
        (asked(output=SCHEMA), [text("[" * 100_000)], "stop", "output_format"),
        (asked(output=SCHEMA), [text("")], "stop", "output_format"),
        (
            asked(output=JSON, messages=(ChatMessage("user", "a", ""), ChatMessage("assistant", "{", ""))),
            [text('"a": 1}')],
            "stop",
            "",
        ),
    ],
)
def test_what_is_a_fault_and_what_is_the_models_own_doing(
    request_: JobRequest, deltas: list[Delta], reason: str, code: str
) -> None:
    assert verdict(request_, *deltas, reason=reason) == code


async def lying(stream: Stream, me: SigningIdentity, deltas: list[Delta], reason: str) -> None:
    channel = JobChannel(stream, "executor")
    wanted = await channel.receive()
    assert isinstance(wanted.message, QuoteRequest)
    await channel.send(pack(quote(wanted.hash), me))
    try:
        ordered = await channel.receive()
        await channel.receive()
        await channel.send(pack(Started(job_id_of(ordered), 4, Hardware("gpu", 1, 0, "cuda"), "DE", "", clock_ms())))
        for delta in deltas:
            await channel.send(pack(delta))
        await channel.send(pack(Finished(reason, 4, 1)))
        await channel.receive()
    except StreamBroken:
        return


@pytest.mark.parametrize(
    ("deltas", "reason", "code"),
    [
        ([text("nope")], "stop", "output_format"),
        ([text("{}", logprob())], "stop", "logprobs"),
        ([call("shell")], "tool_calls", "tool_calls"),
        ([Delta(0, 0, "", (), "x" * 60_000), Delta(1, 0, "", (), "x" * 60_000)], "stop", "limits"),
    ],
)
async def test_such_an_answer_ends_the_job_unsettled(deltas: list[Delta], reason: str, code: str) -> None:
    async with marketplace(SellerPlan(1)) as market:
        me = market.sellers[0].identity

        async def serve(stream: Stream) -> None:
            await lying(stream, me, deltas, reason)

        market.sellers[0].network.serve(MARKET_PROTOCOL, serve)
        job_id = None
        with pytest.raises(MarketError) as caught:  # noqa: PT012
            async with market.buyer.buy(order(output=JSON, tools=AUTO)) as job:
                job_id = job.placement.job_id
                async for event in job.events():
                    assert not isinstance(event, Taken) or event.placement.job_id == job_id
        assert caught.value.code == "node_failed"
        assert f"({code})" in str(caught.value)
        assert job_id is not None
        record = await market.ledger.job(job_id, "bought")
        assert record is not None
        assert (record.state, record.cost_microcredits) == ("failed", 0)
        assert 51 * MAX_BYTES_PER_TOKEN < 120_000  # the last case passes the bound


async def test_log_probabilities_of_tokens_that_show_nothing_come_with_the_next_piece() -> None:
    deltas = [
        Delta(0, 0, "", (1,), "", (), (logprob(),)),
        Delta(1, 0, "x", (2,), "", (), (logprob(),)),
        Delta(2, 0, "", (3,), "", (), (logprob(),)),
    ]
    async with marketplace(SellerPlan(1)) as market:
        me = market.sellers[0].identity

        async def serve(stream: Stream) -> None:
            await lying(stream, me, deltas, "stop")

        market.sellers[0].network.serve(MARKET_PROTOCOL, serve)
        pieces: list[Piece] = []
        with pytest.raises(MarketError):  # noqa: PT012 - it sends no receipt
            async with market.buyer.buy(order(logprobs=0)) as job:
                async for event in job.events():
                    if isinstance(event, Piece):
                        pieces.append(event)
        assert pieces == [Piece("x", logprobs=(logprob(),) * 2), Piece(logprobs=(logprob(),))]


async def test_an_honest_answer_passes_all_of_it() -> None:
    async with marketplace(SellerPlan(1, script=lambda r: Script('{"a": 1}'))) as market:
        bought = await buy(market, order(output=JSON, tools=AUTO, logprobs=0))
        assert bought.outcome is not None
        assert bought.outcome.accepted
