"""Results stand right behind the calls they belong to, as in the OpenAI API; what honest clients send is let through."""

from __future__ import annotations

import json
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxy_harness import serving

from ryvion_node.market.fake import says
from ryvion_node.proxy.errors import ApiError
from ryvion_node.proxy.orders import order_of
from ryvion_node.proxy.requests import parse_chat_request
from ryvion_protocol.messages import ChatMessage

USER = {"role": "user", "content": "hi"}
THANKS = {"role": "assistant", "content": "done"}


def calling(*ids: str) -> dict[str, object]:
    """An assistant that calls a tool, once for each id."""
    calls = [{"id": one, "type": "function", "function": {"name": "f", "arguments": "{}"}} for one in ids]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def result(call: str) -> dict[str, object]:
    return {"role": "tool", "tool_call_id": call, "content": f"of {call}"}


def turns(*messages: object) -> tuple[ChatMessage, ...]:
    return order_of(parse_chat_request(json.dumps({"model": "m", "messages": messages}).encode()), ()).messages


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ((USER, result("a")), "messages[1].tool_call_id"),
        ((result("a"), USER), "messages[0].tool_call_id"),
        ((USER, calling("a"), result("b")), "messages[2].tool_call_id"),
        ((USER, calling("a"), USER, result("a")), "messages[1].tool_calls[0]"),
        ((USER, calling("a"), result("a"), USER, result("a")), "messages[4].tool_call_id"),
        ((USER, calling("a"), result("a"), calling("b"), result("a")), "messages[4].tool_call_id"),
        ((USER, calling("a")), "messages[1].tool_calls[0]"),
        ((USER, calling("a", "b"), result("a")), "messages[1].tool_calls[1]"),
        ((USER, calling("a", "b"), result("a"), USER), "messages[1].tool_calls[1]"),
        ((USER, calling("a", "b"), result("a"), THANKS, result("b")), "messages[1].tool_calls[1]"),
        ((calling("a"), calling("b"), result("a"), result("b")), "messages[0].tool_calls[0]"),
    ],
)
def test_a_result_without_its_call_and_a_call_without_its_result_are_refused(
    messages: tuple[object, ...], param: str
) -> None:
    with pytest.raises(ApiError) as caught:
        turns(*messages)
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, "invalid_value", param)


@pytest.mark.parametrize(
    "messages",
    [
        (USER, calling("a", "b"), result("b"), result("a"), USER),  # in any order
        (USER, calling("a"), result("a"), calling("a"), result("a")),  # ids that begin anew with each answer
        (calling("a"), result("a"), THANKS, USER),  # a history that was trimmed before a call
        (USER, calling("a"), result("a"), result("a")),  # told twice
        ({"role": "system", "content": "few shots"}, USER, calling("a"), result("a"), THANKS, USER),
    ],
)
def test_what_agents_send_is_let_through(messages: tuple[object, ...]) -> None:
    assert len(turns(*messages)) == len(messages)


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(st.just([USER]), st.just([THANKS]), st.lists(st.sampled_from("abcd"), min_size=1, unique=True)),
        min_size=1,
        max_size=5,
    ),
    st.randoms(use_true_random=False),
)
def test_any_conversation_whose_calls_are_answered(blocks: list[list[object]], random: Random) -> None:
    messages: list[object] = []
    for block in blocks:
        if isinstance(block[0], str):
            answers = [result(str(one)) for one in block]
            random.shuffle(answers)
            messages += [calling(*map(str, block)), *answers]
        else:
            messages += block
    assert len(turns(*messages)) == len(messages)


def called(call_id: str) -> dict[str, object]:
    return {"type": "function_call", "call_id": call_id, "name": "f", "arguments": "{}"}


def output(call_id: str) -> dict[str, object]:
    return {"type": "function_call_output", "call_id": call_id, "output": f"of {call_id}"}


async def test_outputs_of_a_response_go_to_their_calls_wherever_they_stand() -> None:
    items = [called("a"), called("b"), output("b"), {"role": "user", "content": "wait"}, output("a"), called("a")]
    async with serving({"echo": says("x")}) as endpoint:
        body = {"model": "echo", "input": [*items, output("a")]}
        reply = await endpoint.ask("POST", "/v1/responses", body, authorization="Bearer sk-buyer")
    assert reply.status == 200
    assert [(turn.role, turn.tool_call_id or len(turn.tool_calls)) for turn in endpoint.market.orders[0].messages] == [
        ("assistant", 2),
        ("tool", "b"),
        ("tool", "a"),
        ("user", 0),
        ("assistant", 1),
        ("tool", "a"),
    ]


@pytest.mark.parametrize(
    ("items", "param"),
    [
        ([called("a")], "input[0]"),
        ([USER, called("a"), called("b"), output("a")], "input[2]"),
        ([USER, output("a")], "input[1].call_id"),
    ],
)
async def test_a_response_whose_calls_and_outputs_do_not_match_is_refused(items: list[object], param: str) -> None:
    async with serving({"echo": says("x")}) as endpoint:
        body = {"model": "echo", "input": items}
        reply = await endpoint.ask("POST", "/v1/responses", body, authorization="Bearer sk-buyer")
    assert (reply.status, reply.error["code"], reply.error["param"]) == (400, "invalid_value", param)
    assert "messages" not in str(reply.error["message"])
