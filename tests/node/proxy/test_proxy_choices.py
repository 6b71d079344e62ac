"""Answers with several choices: a job each, side by side in one stream or one body, and none left behind."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import openai
import pytest
import trio
from proxy_clients import async_client
from proxy_harness import HELLO, Endpoint, FakeKeys, Key, Reply, serving

from ryvion_node.keys import KeyLimits
from ryvion_node.market.fake import Hold, Script, says
from ryvion_node.market.interface import MarketError, Piece
from ryvion_node.proxy.constants import MAX_CHOICES
from ryvion_node.proxy.settings import Settings
from ryvion_protocol.exported import read_receipts, verify_exported
from ryvion_protocol.receipt import receipt_from_json, verify_receipt

pytestmark = [
    pytest.mark.filterwarnings("ignore:Async generator '(httpx|httpcore|openai):ResourceWarning"),
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <async_generator object:pytest.PytestUnraisableExceptionWarning"
    ),
]

THREE = {"echo": Script(by_seed=(says("a"), says("b", "c"), says("d", "e", "f")))}
TEXTS = ["a", "bc", "def"]
USAGE = {"stream": True, "stream_options": {"include_usage": True}}


def chunks_of(reply: Reply) -> list[dict[str, Any]]:
    """The data of all events but comments; the stream must have come to its end."""
    *chunks, done = (event for event in reply.events() if not event.startswith(":"))
    assert (reply.status, reply.complete, done) == (200, True, "[DONE]")
    return [json.loads(chunk) for chunk in chunks]


def of_choice(chunks: Sequence[dict[str, Any]], index: int) -> list[dict[str, Any]]:
    return [chunk for chunk in chunks if chunk["choices"] and chunk["choices"][0]["index"] == index]


def text_of(chunks: Sequence[dict[str, Any]]) -> str:
    return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)


def breaking(before: Sequence[MarketError] = (), *steps: Exception | Hold) -> Mapping[str, Script]:
    """Choice 0 says something and waits for ever, or until its market lets it; choice 1 breaks."""
    return {"echo": Script(by_seed=(Script((Piece("a"), Hold(trio.Event()))), Script(steps, before=tuple(before))))}


async def test_each_choice_has_its_chunks_in_order_and_the_answer_one_end() -> None:
    async with serving(THREE) as endpoint:
        reply = await endpoint.chat(n=3, seed=0, **USAGE)
        outcomes = endpoint.market.outcomes
    *chunks, usage = chunks_of(reply)
    assert all(len(chunk["choices"]) == 1 for chunk in chunks)
    assert (
        len({(c["id"], c["created"], c["model"], c["object"], c["system_fingerprint"]) for c in [*chunks, usage]}) == 1
    )
    jobs = []
    for index, text in enumerate(TEXTS):
        own = of_choice(chunks, index)
        role, *said, finish = own
        assert role["choices"][0]["delta"] == {"role": "assistant", "content": ""}
        assert text_of(said) == text
        taken = role if "ryvion" in role else said.pop(0)
        assert finish["choices"][0] == {"index": index, "delta": {}, "logprobs": None, "finish_reason": "stop"}
        assert not any("ryvion" in chunk for chunk in said)
        assert "route" in taken["ryvion"]
        receipt = receipt_from_json(finish["ryvion"]["receipt"])
        verify_receipt(receipt)
        assert receipt == outcomes[receipt.job_id].receipt
        jobs.append(receipt.job_id)
    assert len(set(jobs)) == 3
    assert jobs[0] == reply.headers["x-ryvion-job-id"]
    assert {chunk["usage"] for chunk in chunks} == {None}
    assert usage["choices"] == []
    counts = usage["usage"]
    assert (counts["prompt_tokens"], counts["completion_tokens"], counts["total_tokens"]) == (1, 6, 7)


async def test_the_whole_answer_has_its_choices_in_order_each_with_its_job() -> None:
    async with serving(THREE) as endpoint:
        reply = await endpoint.chat(n=3, seed=0)
        orders, outcomes = endpoint.market.orders, endpoint.market.outcomes
    answer: dict[str, Any] = reply.json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert [choice["message"]["content"] for choice in answer["choices"]] == TEXTS
    assert answer["usage"]["completion_tokens"] == 6
    assert answer["usage"]["prompt_tokens"] == 1
    jobs = [choice["ryvion"]["job_id"] for choice in answer["choices"]]
    assert answer["ryvion"] == {"cost_microcredits": sum(one.cost for one in outcomes.values()), "jobs": jobs}
    assert (reply.headers["x-ryvion-job-id"], reply.headers["x-ryvion-receipt-cid"]) == (jobs[0], outcomes[jobs[0]].cid)
    assert {order.account.completion_id for order in orders} == {answer["id"]}
    for choice in answer["choices"]:
        (receipt,) = read_receipts(json.dumps(choice["ryvion"]).encode())
        findings = {one.name: one.outcome for one in verify_exported(receipt, reply.body).findings}
        assert findings["answer"] == "passed"


async def test_the_official_client_reads_both_alike() -> None:
    async with serving(THREE) as endpoint, async_client(endpoint) as client:
        whole = await client.chat.completions.create(model="echo", messages=HELLO, n=3, seed=3)  # type: ignore[arg-type]
        async with client.chat.completions.stream(model="echo", messages=HELLO, n=3, seed=3) as stream:  # type: ignore[arg-type]
            streamed = await stream.get_final_completion()
    assert [choice.message.content for choice in whole.choices] == TEXTS
    assert [(one.index, one.message.content, one.finish_reason) for one in streamed.choices] == [
        (one.index, one.message.content, one.finish_reason) for one in whole.choices
    ]


async def test_roles_come_in_the_order_of_choices_whichever_speaks_first() -> None:
    first, second = trio.Event(), trio.Event()
    script = Script(by_seed=(Script((Hold(first), Piece("a"))), Script((Hold(second), Piece("b"))), says("c")))
    async with serving({"echo": script}) as endpoint, async_client(endpoint) as client:
        order: list[tuple[int, str | None, str | None, bool]] = []
        async with client.chat.completions.stream(model="echo", messages=HELLO, n=3, seed=0) as stream:  # type: ignore[arg-type]
            async for event in stream:
                if event.type != "chunk":
                    continue
                (choice,) = event.chunk.choices
                told = "ryvion" in (event.chunk.model_extra or {})
                order.append((choice.index, choice.delta.role, choice.delta.content, told))
                if choice.finish_reason:
                    (second if choice.index == 2 else first).set()
            streamed = await stream.get_final_completion()
    role = "assistant"
    assert order[:3] == [(0, role, "", False), (1, role, "", False), (2, role, "", True)]
    assert order[3:5] == [(2, None, "c", False), (2, None, None, True)]
    assert order[5:7] == [(1, None, "", True), (1, None, "b", False)]
    assert order[8:10] == [(0, None, "", True), (0, None, "a", False)]
    assert [(one.message.role, one.message.content) for one in streamed.choices] == [(role, said) for said in "abc"]


async def test_seeds_follow_each_other_and_without_one_each_job_draws_its_own() -> None:
    async with serving({"echo": says("x")}) as endpoint:
        await endpoint.chat(n=3, seed=-1)
        await endpoint.chat(n=2)
    first, *others = endpoint.market.orders[:3]
    assert first.seed == 2**64 - 1
    assert {order.seed for order in others} == {0, 1}
    assert [order.seed for order in endpoint.market.orders[3:]] == [None, None]


async def test_a_choice_that_is_done_does_not_wait_for_the_others() -> None:
    go_on = trio.Event()
    script = Script(by_seed=(Script((Piece("slow"), Hold(go_on), Piece("!"))), says("quick")))
    async with serving({"echo": script}) as endpoint:
        client = await endpoint.connect()
        async with client.stream:
            await client.chat("echo", n=2, seed=0, stream=True)
            await client.head()
            begun = [json.loads(await client.event()) for _ in range(5)]
            assert [chunk["choices"][0]["finish_reason"] for chunk in of_choice(begun, 1)] == [None, None, "stop"]
            assert text_of(of_choice(begun, 0)) == "slow"
            go_on.set()
            rest = [json.loads(await client.event()) for _ in range(2)]
            assert [chunk["choices"][0]["index"] for chunk in rest] == [0, 0]
            assert await client.event() == "[DONE]"
            assert await client.chunk() == b""


async def test_silence_of_all_choices_is_filled() -> None:
    text = trio.Event()
    script = Script(by_seed=(Script((Piece("a"), Hold(text))), Script((Hold(text), Piece("b")))))
    async with serving({"echo": script}, Settings(port=0, keep_alive_s=0.02)) as endpoint:
        client = await endpoint.connect()
        async with client.stream:
            await client.chat("echo", n=2, seed=0, stream=True)
            await client.head()
            events = [await client.event() for _ in range(4)]
            assert events[2:] == [": keep-alive"] * 2
            text.set()
            while (event := await client.event()) != "[DONE]":
                assert event == ": keep-alive" or json.loads(event)["choices"]


# --- failures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "code"),
    [(MarketError("node_failed", "it went away"), "node_failed"), (RuntimeError("secret prompt"), "internal_error")],
)
async def test_a_choice_that_breaks_ends_the_answer_and_the_other_jobs(step: Exception, code: str) -> None:
    async with serving(breaking((), Hold(seconds=0.01), step)) as endpoint:
        reply = await endpoint.chat(n=2, seed=0, stream=True)
        whole = await endpoint.chat(n=2, seed=0)
    *chunks, error = (json.loads(event) for event in reply.events())
    assert error["error"]["code"] == code
    assert text_of(chunks) == "a"
    assert {chunk["choices"][0]["finish_reason"] for chunk in chunks} == {None}
    assert b"secret" not in reply.body + whole.body
    assert whole.error["code"] == code
    if code == "node_failed":
        assert (whole.status, whole.headers["x-should-retry"]) == (502, "false")
    assert len(endpoint.market.left_early) == 4
    assert not endpoint.market.running


@pytest.mark.parametrize("stream", [True, False])
async def test_nothing_else_is_ordered_when_the_first_cannot_be_placed(stream: bool) -> None:
    refusal = MarketError("no_capacity", "all are busy", retry_after_ms=1500)
    async with serving({"busy": Script(before=(refusal,))}) as endpoint:
        reply = await endpoint.chat("busy", n=5, stream=stream)
    assert (reply.status, reply.error["code"], reply.headers["retry-after-ms"]) == (503, "no_capacity", "1500")
    assert "x-should-retry" not in reply.headers
    assert len(endpoint.market.orders) == 1


async def test_what_no_waiting_can_mend_ends_the_answer_at_once() -> None:
    async with serving(breaking([MarketError("price_limit", "too dear")])) as endpoint:
        reply = await endpoint.chat(n=2, seed=0)
    assert (reply.status, reply.error["code"]) == (402, "price_limit")
    assert len(endpoint.market.orders) == 2


@pytest.mark.parametrize("stream", [True, False])
async def test_all_jobs_are_left_at_once_when_the_client_goes(stream: bool) -> None:
    async with serving({"slow": Script((Piece("a"), Hold(trio.Event())))}) as endpoint:
        endpoint.market.slots = 2
        client = await endpoint.connect()
        await client.chat("slow", n=4, stream=stream)
        await _until(endpoint, jobs=2, orders=4)
        await client.stream.aclose()
        with trio.fail_after(1):
            while endpoint.market.open_jobs:
                await trio.testing.wait_all_tasks_blocked(0.001)
        assert not endpoint.market.finished


async def test_a_node_that_stops_tells_the_stream() -> None:
    async with serving({"slow": Script((Piece("a"), Hold(trio.Event())))}) as endpoint:
        client = await endpoint.connect()
        await client.chat("slow", n=2, stream=True)
        await client.head()
        for _ in range(4):
            await client.event()
        endpoint.stop.cancel()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
            assert json.loads(await client.event())["error"]["code"] == "node_failed"
            await client.stream.aclose()


# --- room -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("slots", [1, 2])
async def test_choices_that_find_no_room_wait_for_the_others(stream: bool, slots: int) -> None:
    async with serving(THREE) as endpoint:
        endpoint.market.slots = slots
        reply = await endpoint.chat(n=6, seed=0, stream=stream)
    if stream:
        said = [text_of(of_choice(chunks_of(reply), index)) for index in range(6)]
    else:
        answer: dict[str, Any] = reply.json()
        said = [choice["message"]["content"] for choice in answer["choices"]]
    assert said == TEXTS * 2
    assert len(endpoint.market.orders) <= 3 * 6


async def test_a_choice_that_waits_holds_nothing() -> None:
    async with serving({"slow": Script((Piece("a"), Hold(trio.Event())))}) as endpoint:
        endpoint.market.slots = 1
        client = await endpoint.connect()
        async with client.stream:
            await client.chat("slow", n=3, stream=True)
            await client.head()
            await _until(endpoint, jobs=1, orders=3)
            await trio.testing.wait_all_tasks_blocked()
            assert (endpoint.market.open_jobs, len(endpoint.market.orders)) == (1, 3)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_choice_that_never_finds_room_is_the_answers_failure(stream: bool) -> None:
    full = Script(before=(MarketError("no_capacity", "all are busy", 1500),))
    async with serving({"echo": Script(by_seed=(says("a"), full, says("b")))}) as endpoint:
        reply = await endpoint.chat(n=3, seed=0, stream=stream)
    error = json.loads(reply.events()[-1])["error"] if stream else reply.error
    assert error["code"] == "no_capacity"
    if not stream:
        assert (reply.status, reply.headers["x-should-retry"]) == (503, "false")
    assert len(endpoint.market.finished) == 2


# --- limits -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "code"), [(0, "invalid_value"), (MAX_CHOICES + 1, "invalid_value"), (True, "invalid_type")]
)
async def test_how_many_there_may_be(n: object, code: str) -> None:
    async with serving({"echo": says("x")}) as endpoint:
        for path, said in (("chat/completions", {"messages": HELLO}), ("completions", {"prompt": "a"})):
            body = {"model": "echo", "n": n} | said
            reply = await endpoint.ask("POST", f"/v1/{path}", body, authorization="Bearer sk-buyer")
            assert (reply.status, reply.error["code"], reply.error["param"]) == (400, code, "n")
        most = await endpoint.chat(n=MAX_CHOICES, best_of=MAX_CHOICES)
    assert len(most.json()["choices"]) == MAX_CHOICES  # type: ignore[arg-type]


async def test_every_choice_counts_among_those_under_way() -> None:
    fake = FakeKeys()
    fake.by_token["sk-buyer"] = Key("k1", limits=KeyLimits(jobs_at_once=3))
    scripts = {"echo": says("x"), "slow": Script((Piece("a"), Hold(trio.Event())))}
    async with serving(scripts, Settings(port=0, max_in_flight=5), fake) as endpoint:
        too_many = await endpoint.chat(n=4)
        assert (too_many.status, too_many.error["code"]) == (429, "rate_limit_exceeded")
        assert not endpoint.market.orders
        client = await endpoint.connect()
        async with client.stream:
            await client.chat("slow", n=2, stream=True)
            await _until(endpoint, jobs=2, orders=2)
            assert (await endpoint.chat(n=2)).status == 429
            assert (await endpoint.chat()).status == 200
            others = await endpoint.chat(token="sk-writer", n=4)
            assert "of at most 5" in str(others.error["message"])
        with trio.fail_after(5):
            while (await endpoint.chat(n=3)).status == 429:
                await trio.testing.wait_all_tasks_blocked(0.001)
        assert (await endpoint.chat(token="sk-writer", n=5)).status == 200


async def test_the_price_is_of_all_choices_together() -> None:
    async with serving({"echo": says("x")}) as endpoint:
        await endpoint.chat(n=3, ryvion={"max_price": 100})
        body = {"model": "echo", "prompt": ["a", "b"], "n": 2, "ryvion": {"max_price": 100}}
        await endpoint.ask("POST", "/v1/completions", body, authorization="Bearer sk-buyer")
    assert [order.max_price for order in endpoint.market.orders] == [33] * 3 + [25] * 4


@pytest.mark.parametrize("stream", [True, False])
async def test_a_repeated_request_gets_all_choices_again_and_buys_none(stream: bool) -> None:
    body = {"model": "echo", "messages": HELLO, "n": 3, "seed": 0, "stream": stream}
    async with serving(THREE) as endpoint:
        replies = [
            await endpoint.ask(
                "POST", "/v1/chat/completions", body, authorization="Bearer sk-buyer", idempotency_key="order-1"
            )
            for _ in range(2)
        ]
        assert len(endpoint.market.orders) == 3
    assert replies[0].body == replies[1].body
    assert replies[1].headers["idempotent-replayed"] == "true"


async def test_jobs_are_counted_as_jobs() -> None:
    async with serving(THREE) as endpoint:
        await endpoint.chat(n=3)
        shown = await endpoint.ask("GET", "/metrics", authorization="Bearer sk-buyer")
    assert b'ryvion_orders_total{result="done"} 3.0' in shown.body


async def test_a_failure_is_raised_by_the_official_client() -> None:
    async with (
        serving(breaking((), MarketError("node_failed", "it went away"))) as endpoint,
        async_client(endpoint) as client,
    ):
        with pytest.raises(openai.APIError, match="it went away"):
            async for _ in await client.chat.completions.create(model="echo", messages=HELLO, n=2, seed=0, stream=True):  # type: ignore[arg-type]
                pass


async def _until(endpoint: Endpoint, *, jobs: int, orders: int) -> None:
    with trio.fail_after(5):
        while endpoint.market.slots_taken != jobs or len(endpoint.market.orders) < orders:
            await trio.testing.wait_all_tasks_blocked(0.001)
