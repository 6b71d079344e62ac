"""What one key may do: requests per minute, answers at once, and what the market says of its money."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from proxy_harness import FakeKeys, Key, serving

from ryvion_node.keys import NO_BUDGETS, WITHOUT_LIMIT, KeyLimits
from ryvion_node.ledger.spending import Allowance
from ryvion_node.market.fake import Hold, Script, says
from ryvion_node.market.interface import Account, MarketError, Piece
from ryvion_node.proxy import limits as limits_module
from ryvion_node.proxy.errors import ApiError
from ryvion_node.proxy.limits import Bucket, Limits

SCRIPTS = {"echo": says("x")}


def keys(**limits: int | None) -> FakeKeys:
    fake = FakeKeys()
    fake.by_token["sk-buyer"] = Key("k1", limits=KeyLimits(**limits))
    return fake


async def test_every_answer_says_what_is_left_of_the_minute() -> None:
    async with serving(SCRIPTS, keys=keys(requests_per_minute=3)) as endpoint:
        replies = [await endpoint.chat(stream=stream) for stream in (False, True, False, False)]
        wrong = await endpoint.ask("POST", "/v1/chat/completions", b"{", authorization="Bearer sk-writer")
        free = await endpoint.ask("GET", "/v1/models", authorization="Bearer sk-buyer")
    assert [reply.status for reply in replies] == [200, 200, 200, 429]
    assert [reply.headers["x-ratelimit-remaining-requests"] for reply in replies] == ["2", "1", "0", "0"]
    assert {reply.headers["x-ratelimit-limit-requests"] for reply in replies} == {"3"}
    assert all(reply.headers["x-ratelimit-reset-requests"].endswith("ms") for reply in replies)
    refused = replies[-1]
    assert (refused.error["code"], refused.error["type"]) == ("rate_limit_exceeded", "rate_limit_error")
    assert 1_000 < int(refused.headers["retry-after-ms"]) <= 20_000
    assert refused.headers["retry-after"] == str(-(-int(refused.headers["retry-after-ms"]) // 1000))
    assert wrong.headers["x-ratelimit-remaining-requests"] == "2999"
    assert "x-ratelimit-limit-requests" not in free.headers
    assert len(endpoint.market.orders) == 3


async def test_a_quote_round_counts_as_a_request() -> None:
    async with serving(SCRIPTS, keys=keys(requests_per_minute=1)) as endpoint:
        asked = [
            await endpoint.ask("POST", "/api/v1/route", {"model": "echo"}, authorization="Bearer sk-buyer")
            for _ in range(2)
        ]
    assert [reply.status for reply in asked] == [200, 429]


async def test_one_key_does_not_use_up_another() -> None:
    async with serving(SCRIPTS, keys=keys(requests_per_minute=1)) as endpoint:
        assert [(await endpoint.chat()).status for _ in range(2)] == [200, 429]
        assert (await endpoint.chat(token="sk-writer")).status == 200


async def test_a_key_without_limits_has_no_such_headers() -> None:
    fake = FakeKeys()
    fake.by_token["sk-buyer"] = Key("k1", limits=WITHOUT_LIMIT)
    async with serving(SCRIPTS, keys=fake) as endpoint:
        reply = await endpoint.chat()
    assert reply.status == 200
    assert not [name for name in reply.headers if name.startswith("x-ratelimit")]


async def test_answers_at_once() -> None:
    go_on = trio.Event()
    scripts = {"slow": Script((Piece("a"), Hold(go_on))), "echo": says("x")}
    async with serving(scripts, keys=keys(jobs_at_once=1)) as endpoint:
        client = await endpoint.connect()
        async with client.stream:
            await client.chat("slow", stream=True)
            await client.head()
            refused = await endpoint.chat()
            assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded")
            assert "1 answers under way" in str(refused.error["message"])
            assert "retry-after-ms" in refused.headers
            assert (await endpoint.chat(token="sk-writer")).status == 200
            go_on.set()
            while await client.chunk():
                pass
        assert (await endpoint.chat()).status == 200


async def test_a_broken_request_gives_its_place_back() -> None:
    async with serving(SCRIPTS, keys=keys(jobs_at_once=1)) as endpoint:
        for _ in range(3):
            assert (await endpoint.chat(model=7)).status == 400
        assert (await endpoint.chat()).status == 200


@pytest.mark.parametrize(
    ("code", "status", "sent"),
    [
        ("budget_exhausted", 402, "insufficient_quota"),
        ("spending_velocity", 429, "spending_velocity_exceeded"),
        ("budget_held", 429, "rate_limit_exceeded"),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_what_the_market_says_of_a_keys_money(code: str, status: int, sent: str, stream: bool) -> None:
    refusal = MarketError(code, "the reason", 90_000 if status == 429 else None)  # type: ignore[arg-type]
    async with serving({"m": Script(before=(refusal,))}) as endpoint:
        reply = await endpoint.chat("m", stream=stream)
    assert (reply.status, reply.error["code"], reply.error["message"]) == (status, sent, "the reason")
    assert reply.headers.get("retry-after") == ("60" if status == 429 else None)
    assert "x-should-retry" not in reply.headers


async def test_an_order_says_for_whom_it_is() -> None:
    fake = keys(budget_day=7, budget_total=8, velocity=9)
    async with serving(SCRIPTS, keys=fake) as endpoint:
        ids = [(await endpoint.chat()).json()["id"] for _ in range(2)]
        await endpoint.ask("POST", "/api/v1/route", {"model": "echo"}, authorization="Bearer sk-buyer")
    assert ids[0] != ids[1]
    allowance = Allowance(hour=9, day=7, total=8)
    assert [order.account for order in endpoint.market.orders] == [Account("k1", str(name), allowance) for name in ids]


@given(st.integers(1, 100), st.lists(st.floats(0, 30), max_size=200))
def test_a_bucket_lets_through_a_burst_and_then_the_even_pace(per_minute: int, pauses_s: list[float]) -> None:
    bucket, now_s, admitted = Bucket(per_minute, 0.0), 0.0, 0
    for pause_s in pauses_s:
        now_s += pause_s
        wait_s = bucket.take(per_minute, now_s)
        admitted += not wait_s
        assert admitted <= per_minute + now_s * per_minute / 60 + 1e-6
        assert 0 <= wait_s <= 60 / per_minute
        if wait_s:
            assert replace(bucket).take(per_minute, now_s + wait_s + 1e-6) == 0


def test_a_limit_of_none_at_all_lets_nothing_through() -> None:
    limits, shut = Limits(), Key("k", limits=replace(NO_BUDGETS, requests_per_minute=0, jobs_at_once=0))
    with pytest.raises(ApiError):
        limits.take(shut, 0.0)
    with pytest.raises(ApiError), limits.under_way(shut):
        pass


def test_few_buckets_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits_module, "MAX_BUCKETS", 2)
    limits = Limits()
    for number in range(5):
        limits.take(Key(f"k{number}"), 0.0)
    assert list(limits._buckets) == ["k3", "k4"]
