"""The stream on the wire, byte for byte: order, silence, failure, and clients that go away."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest
import trio
from proxy_harness import Client, Endpoint, serving

from ryvion_node.market.fake import Hold, Script, says
from ryvion_node.market.interface import MarketError, Piece
from ryvion_node.proxy import connection as connection_module
from ryvion_node.proxy.settings import Settings
from ryvion_protocol.receipt import receipt_from_json, verify_receipt


async def test_chunks_come_in_the_order_every_client_reads() -> None:
    async with serving({"echo": says("Hel", "lo")}) as endpoint:
        reply = await endpoint.chat(stream=True, stream_options={"include_usage": True})
    assert reply.status == 200
    assert reply.complete
    *chunks, done = reply.events()
    assert done == "[DONE]"
    role, first, second, finish, usage = (json.loads(chunk) for chunk in chunks)
    assert [chunk["choices"] for chunk in (role, first, second, finish, usage)] == [
        [_choice({"role": "assistant", "content": ""})],
        [_choice({"content": "Hel"})],
        [_choice({"content": "lo"})],
        [_choice({}, "stop")],
        [],
    ]
    same = [(c["id"], c["created"], c["model"], c["object"]) for c in (role, first, second, finish, usage)]
    assert len(set(same)) == 1
    assert same[0][2:] == ("echo", "chat.completion.chunk")
    assert [chunk["usage"] for chunk in (role, first, second, finish)] == [None] * 4
    assert usage["usage"] == {
        "prompt_tokens": 1,
        "completion_tokens": 2,
        "total_tokens": 3,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
    assert ["ryvion" in chunk for chunk in (role, first, second, finish, usage)] == [True, False, False, True, False]


async def test_the_ryvion_objects_tell_who_answered_and_prove_it() -> None:
    async with serving({"echo": says("Hello")}) as endpoint:
        reply = await endpoint.chat(stream=True)
        outcome = next(iter(endpoint.market.outcomes.values()))
    role, _, finish, _ = reply.events()
    who, evidence = json.loads(role)["ryvion"], json.loads(finish)["ryvion"]
    assert who["job_id"] == f"{1:064x}" == reply.headers["x-ryvion-job-id"]
    assert who["node_id"] == reply.headers["x-ryvion-node"] == outcome.receipt.node_key.hex()
    assert who["jurisdiction"] == "CA" == reply.headers["x-ryvion-jurisdiction"]
    assert who["gpu"] == "Fake GPU"
    assert who["peer_id"] == "fake-peer-1"
    assert who["location"] == "Testville"
    assert who["price_out"] == 2000
    assert who["why"] == "the only bid"
    route = who.pop("route")
    assert route["candidates"][0]["outcome"] == "won"
    assert route["winner"] == who["node_id"]
    assert who.items() <= evidence.items()
    assert "route" not in evidence
    receipt = receipt_from_json(evidence["receipt"])
    verify_receipt(receipt)
    assert receipt == outcome.receipt
    assert evidence["cid"] == outcome.cid
    assert evidence["envelope"] == {"job_id": f"{1:064x}", "status": "completed"}
    assert evidence["checks"] == [{"name": "signature", "outcome": "passed", "detail": "signed by the executor"}]
    assert (evidence["accepted"], evidence["cost_microcredits"], evidence["first_token_ms"]) == (True, 12, 20)


async def test_without_include_usage_no_chunk_names_usage() -> None:
    async with serving({"echo": says("x")}) as endpoint:
        reply = await endpoint.chat(stream=True)
    assert b'"usage"' not in reply.body
    assert all(json.loads(chunk)["choices"] for chunk in reply.events()[:-1])


async def test_stream_headers_forbid_buffering() -> None:
    async with serving({"echo": says("x")}) as endpoint:
        reply = await endpoint.chat(stream=True)
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert reply.headers["cache-control"] == "no-cache"
    assert reply.headers["x-accel-buffering"] == "no"
    assert reply.headers["x-request-id"].startswith("req_")
    assert not {"content-length", "content-encoding"} & reply.headers.keys()


async def test_each_chunk_is_on_the_wire_before_the_next_token_exists() -> None:
    more, rest = trio.Event(), trio.Event()
    script = Script((Piece("one"), Hold(more), Piece("two"), Hold(rest)))
    async with serving({"slow": script}) as endpoint:
        client = await endpoint.connect()
        async with client.stream:
            await client.chat("slow", stream=True)
            assert (await client.head()).status == 200
            assert json.loads(await client.event())["choices"][0]["delta"]["role"] == "assistant"
            assert _content(await client.event()) == "one"
            more.set()
            assert _content(await client.event()) == "two"
            rest.set()
            assert json.loads(await client.event())["choices"][0]["finish_reason"] == "stop"
            assert await client.event() == "[DONE]"
            assert await client.chunk() == b""


async def test_status_and_headers_come_at_acceptance_and_the_role_with_the_first_text() -> None:
    text = trio.Event()
    async with serving({"slow": Script((Hold(text), Piece("x")))}, Settings(port=0, keep_alive_s=0.02)) as endpoint:
        client = await endpoint.connect()
        async with client.stream:
            await client.chat("slow", stream=True)
            assert (await client.head()).headers["x-ryvion-job-id"] == f"{1:064x}"
            assert await client.event() == ": keep-alive"
            assert await client.event() == ": keep-alive"
            text.set()
            assert (await _next_data(client))["choices"][0]["delta"]["role"] == "assistant"


async def test_silence_between_tokens_is_filled_and_text_is_not_disturbed() -> None:
    hold = trio.Event()
    script = Script((Piece("a"), Hold(hold), Piece("b")))
    async with serving({"slow": script}, Settings(port=0, keep_alive_s=0.02)) as endpoint:
        client = await endpoint.connect()
        async with client.stream:
            await client.chat("slow", stream=True)
            await client.head()
            await client.event()
            assert _content(await client.event()) == "a"
            assert await client.event() == ": keep-alive"
            assert await client.event() == ": keep-alive"
            hold.set()
            assert (await _next_data(client))["choices"][0]["delta"] == {"content": "b"}


async def test_no_comment_while_tokens_flow() -> None:
    async with serving({"echo": says(*["x"] * 300)}) as endpoint:
        reply = await endpoint.chat(stream=True)
    assert b": keep-alive" not in reply.body


async def test_failover_before_the_first_text_shows_the_node_that_answers() -> None:
    async with serving({"echo": Script((Piece("x"),), taken_over=True)}) as endpoint:
        reply = await endpoint.chat(stream=True)
    role, text, finish, _ = (json.loads(event) if event != "[DONE]" else {} for event in reply.events())
    assert role["ryvion"]["peer_id"] == finish["ryvion"]["peer_id"] == "fake-peer-2"
    assert role["ryvion"]["job_id"] == finish["ryvion"]["receipt"]["job_id"]
    assert role["id"] == text["id"] == finish["id"]


async def test_an_empty_answer_still_has_role_and_finish() -> None:
    async with serving({"mute": Script(finish_reason="length")}) as endpoint:
        reply = await endpoint.chat("mute", stream=True)
    role, finish, done = reply.events()
    assert json.loads(role)["choices"][0]["delta"]["role"] == "assistant"
    assert json.loads(finish)["choices"][0]["finish_reason"] == "length"
    assert done == "[DONE]"


async def test_empty_pieces_make_no_chunk() -> None:
    async with serving({"echo": says("", "x", "")}) as endpoint:
        reply = await endpoint.chat(stream=True)
    assert [_content(event) for event in reply.events()[1:-2]] == ["x"]


async def test_a_receipt_that_failed_its_checks_is_shown_as_such() -> None:
    async with serving({"cheat": Script((Piece("x"),), failed_check=True)}) as endpoint:
        reply = await endpoint.chat("cheat", stream=True)
    evidence = json.loads(reply.events()[-2])["ryvion"]
    assert (evidence["accepted"], evidence["cost_microcredits"]) == (False, 0)
    assert evidence["checks"][-1] == {"name": "units_counted", "outcome": "failed", "detail": "counted 3, billed 9"}


@pytest.mark.parametrize(
    "text", ["é", "🙂🏳️‍🌈", "a\nb\r\nc", "\u2028\u2029\x85\x0b\x1c", '"\\', "data: [DONE]\n\n", "\x00"]
)
async def test_any_text_arrives_whole_and_on_one_line(text: str) -> None:
    async with serving({"echo": says(text)}) as endpoint:
        reply = await endpoint.chat(stream=True)
    assert len(reply.body.decode().splitlines()) == 2 * 4
    assert _content(reply.events()[1]) == text


# --- failures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "code"),
    [
        (MarketError("node_failed", "the executor went away"), "node_failed"),
        (MarketError("node_timeout", "the executor stalled"), "node_timeout"),
        (RuntimeError("secret prompt"), "internal_error"),
    ],
)
async def test_a_failure_after_text_is_an_error_event_and_nothing_after(step: Exception, code: str) -> None:
    async with serving({"breaks": Script((Piece("a"), Piece("b"), step))}) as endpoint:
        reply = await endpoint.chat("breaks", stream=True)
        assert (await endpoint.chat("breaks", stream=True)).status == 200
    events = reply.events()
    assert [_content(event) for event in events[1:3]] == ["a", "b"]
    error = json.loads(events[3])
    assert len(events) == 4
    assert set(error) == {"error"}
    assert set(error["error"]) == {"message", "type", "param", "code"}
    assert error["error"]["code"] == code
    assert b"secret" not in reply.body
    assert b'finish_reason": "stop' not in reply.body


async def test_events_that_just_stop_are_a_failure() -> None:
    async with serving({"stops": Script((Piece("a"),), ends=False)}) as endpoint:
        reply = await endpoint.chat("stops", stream=True)
    assert json.loads(reply.events()[-1])["error"]["code"] == "node_failed"


async def test_a_failure_before_acceptance_is_plain_http_also_for_a_stream() -> None:
    refusal = MarketError("no_capacity", "all are busy", retry_after_ms=1500)
    async with serving({"busy": Script(before=(refusal,))}) as endpoint:
        reply = await endpoint.chat("busy", stream=True)
    assert reply.status == 503
    assert reply.error["code"] == "no_capacity"
    assert (reply.headers["retry-after-ms"], reply.headers["retry-after"]) == ("1500", "2")
    assert reply.headers["content-type"] == "application/json"


async def test_a_node_that_stops_tells_its_streams() -> None:
    async with serving({"slow": Script((Piece("a"), Hold(trio.Event())))}) as endpoint:
        client = await endpoint.connect()
        await client.chat("slow", stream=True)
        await client.head()
        await client.event()
        await client.event()
        endpoint.stop.cancel()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
            assert json.loads(await client.event())["error"]["code"] == "node_failed"
            await client.stream.aclose()


# --- clients that go away ---------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("reset", [True, False])
async def test_the_job_is_left_at_once_when_the_client_goes(stream: bool, reset: bool) -> None:
    script = Script((Piece("a"), Hold(trio.Event())))
    async with serving({"slow": script}) as endpoint:
        client = await endpoint.connect()
        await client.chat("slow", stream=stream)
        if stream:
            await client.head()
            await client.event()
        else:
            await _until_open(endpoint)
        if reset:
            client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await client.stream.aclose()
        with trio.fail_after(1):
            await endpoint.market.left.wait()
        assert endpoint.market.left_early == [f"{1:064x}"]


@pytest.mark.parametrize("before", [True, False])
async def test_leaving_before_acceptance_or_before_the_first_text_ends_the_job(before: bool) -> None:
    hold = Hold(trio.Event())
    script = Script(before=(hold,)) if before else Script((hold,))
    async with serving({"slow": script}) as endpoint:
        client = await endpoint.connect()
        await client.chat("slow", stream=True)
        await _until_open(endpoint)
        await client.stream.aclose()
        with trio.fail_after(1):
            await endpoint.market.left.wait()
        assert not endpoint.market.finished


async def test_a_client_that_goes_after_the_finish_chunk_had_its_answer() -> None:
    async with serving({"echo": says("x")}) as endpoint:
        client = await endpoint.connect()
        await client.chat("echo", stream=True)
        await client.head()
        for _ in range(3):
            await client.event()
        await client.stream.aclose()
        await endpoint.market.left.wait()
        assert (endpoint.market.finished, endpoint.market.left_early) == ([f"{1:064x}"], [])


async def test_a_client_that_reads_nothing_holds_back_the_market_and_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection_module, "SEND_STALL_S", 0.3)
    pieces = ("x" * 60_000,) * 400
    async with serving({"flood": says(*pieces), "echo": says("x")}) as endpoint:
        client = await endpoint.connect()
        await client.chat("flood", stream=True)
        with trio.fail_after(5):
            await endpoint.market.left.wait()
        assert endpoint.market.left_early == [f"{1:064x}"]
        assert (await endpoint.chat()).status == 200
        await client.stream.aclose()


async def test_a_node_can_stop_while_a_client_reads_nothing() -> None:
    pieces = ("x" * 60_000,) * 400
    async with serving({"flood": says(*pieces)}) as endpoint:
        client = await endpoint.connect()
        await client.chat("flood", stream=True)
        await client.head()
        await trio.testing.wait_all_tasks_blocked(0.05)
        started = trio.current_time()
        endpoint.stop.cancel()
    assert trio.current_time() - started < 4
    await client.stream.aclose()


async def test_a_slow_client_gets_every_byte() -> None:
    pieces = tuple(f"{number}:" + "y" * 20_000 for number in range(100))
    async with serving({"flood": says(*pieces)}) as endpoint:
        client = await endpoint.connect()
        await client.chat("flood", stream=True)
        await client.head()
        await trio.testing.wait_all_tasks_blocked(0.05)
        await client.event()
        for piece in pieces:
            assert _content(await client.event()) == piece
        await client.stream.aclose()


async def test_a_connection_is_reused_after_a_stream() -> None:
    async with serving({"echo": says("x")}) as endpoint:
        client = await endpoint.connect()
        async with client.stream:
            for stream in (True, False, True):
                await client.chat("echo", stream=stream)
                reply = await client.reply()
                assert (reply.status, reply.complete) == (200, True)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_connection_that_is_idle_after_its_answer_is_closed(
    monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    monkeypatch.setattr(connection_module, "IDLE_CONNECTION_S", 0.1)
    async with serving({"echo": says("x")}) as endpoint:
        client = await endpoint.connect()
        async with client.stream:
            await client.chat("echo", stream=stream)
            assert (await client.reply()).complete
            with trio.fail_after(5):
                assert await client.stream.receive_some() == b""


async def test_a_stream_may_be_silent_for_longer_than_an_idle_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "IDLE_CONNECTION_S", 0.05)
    async with serving({"slow": Script((Piece("a"), Hold(seconds=0.3), Piece("b")))}) as endpoint:
        for streamed in (True, False):
            reply = await endpoint.chat("slow", stream=streamed)
            assert (reply.status, reply.complete) == (200, True)


def _choice(delta: dict[str, str], reason: str | None = None) -> dict[str, object]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}


def _content(event: str) -> str:
    content = json.loads(event)["choices"][0]["delta"]["content"]
    assert isinstance(content, str)
    return content


async def _next_data(client: Client) -> Any:
    while (event := await client.event()) == ": keep-alive":
        pass
    return json.loads(event)


async def _until_open(endpoint: Endpoint) -> None:
    while not endpoint.market.open_jobs:
        await trio.testing.wait_all_tasks_blocked(0.001)
