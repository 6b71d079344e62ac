"""Idempotency-Key: the same request gets the same answer, and nothing is bought twice, whatever broke in between."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
import trio
from proxy_clients import async_client
from proxy_harness import HELLO, Endpoint, FakeKeys, Key, Reply, serving

from ryvion_node.ledger.errors import LedgerUnavailable
from ryvion_node.market.fake import Hold, Script, says
from ryvion_node.market.interface import MarketError, Piece
from ryvion_node.proxy import idempotency, vault
from ryvion_node.proxy.idempotency import Progress
from ryvion_node.proxy.settings import Settings
from ryvion_node.proxy.vault import FolderVault, MemoryVault

SCRIPTS = {
    "echo": says("one ", "two"),
    "free": Script((), finish_reason="stop"),
    "lost": Script((Piece("a"), MarketError("node_failed", "gone"))),
    "never": Script(before=(MarketError("no_capacity", "busy"),)),
    "disputed": Script((Piece("a"),), failed_check=True),
}
PAGE = {"x-request-id", "date", "openai-processing-ms", "idempotent-replayed"}


async def ask(
    endpoint: Endpoint, model: str = "echo", key: str | None = "order-1", token: str = "sk-buyer", **extra: object
) -> Reply:
    body = {"model": model, "messages": HELLO} | extra
    return await endpoint.ask(
        "POST", "/v1/chat/completions", body, authorization=f"Bearer {token}", idempotency_key=key
    )


def kept(reply: Reply) -> tuple[object, ...]:
    """What must be the same when it is sent again."""
    headers = {name: value for name, value in reply.headers.items() if name not in PAGE and "ratelimit" not in name}
    return reply.status, headers, reply.body


@pytest.mark.parametrize("stream", [True, False])
async def test_the_same_request_gets_the_same_answer_and_is_bought_once(stream: bool) -> None:
    async with serving(SCRIPTS) as endpoint:
        replies = [await ask(endpoint, stream=stream) for _ in range(3)]
        assert len(endpoint.market.orders) == 1
    assert {reply.status for reply in replies} == {200}
    assert kept(replies[0]) == kept(replies[1]) == kept(replies[2])
    assert ["idempotent-replayed" in reply.headers for reply in replies] == [False, True, True]
    assert len({reply.headers["x-request-id"] for reply in replies}) == 3
    if stream:
        assert replies[2].headers["content-type"].startswith("text/event-stream")
        assert replies[2].events()[-1] == "[DONE]"


@pytest.mark.parametrize("stream", [True, False])
async def test_every_endpoint_that_buys_replays_its_own_answers(stream: bool) -> None:
    asked = {
        "/v1/chat/completions": {"messages": HELLO},
        "/v1/completions": {"prompt": "hi"},
        "/v1/responses": {"input": "hi"},
    }
    async with serving(SCRIPTS) as endpoint:
        for path, fields in asked.items():
            headers = {"authorization": "Bearer sk-buyer", "idempotency_key": path}
            body = {"model": "echo", "stream": stream, **fields}
            first, again = [await endpoint.ask("POST", path, body, **headers) for _ in range(2)]
            assert first.status == 200
            assert kept(first) == kept(again)
            assert "idempotent-replayed" in again.headers
        assert len(endpoint.market.orders) == len(asked)


async def test_without_the_header_every_request_is_bought() -> None:
    async with serving(SCRIPTS) as endpoint:
        for _ in range(2):
            await ask(endpoint, key=None)
        assert len(endpoint.market.orders) == 2


async def test_keys_of_different_callers_and_different_keys_never_meet() -> None:
    async with serving(SCRIPTS) as endpoint:
        for token in ("sk-buyer", "sk-writer"):
            for key in ("order-1", "order-2", "order-10"):
                assert (await ask(endpoint, key=key, token=token)).status == 200
        assert len(endpoint.market.orders) == 6


@pytest.mark.parametrize("change", [{"temperature": 0.5}, {"stream": True}])
async def test_the_same_key_for_another_request_is_refused(change: dict[str, object]) -> None:
    async with serving(SCRIPTS) as endpoint:
        await ask(endpoint)
        refused = await ask(endpoint, **change)
        assert len(endpoint.market.orders) == 1
    assert (refused.status, refused.error["code"]) == (400, "idempotency_key_reused")
    assert refused.headers["x-should-retry"] == "false"


async def test_while_the_first_is_answered_a_second_is_told_to_wait() -> None:
    go_on = trio.Event()
    async with serving({"slow": Script((Piece("a"), Hold(go_on), Piece("b")))}) as endpoint:
        client = await endpoint.connect()
        async with client.stream:
            body = {"model": "slow", "messages": HELLO, "stream": True}
            headers = {"authorization": "Bearer sk-buyer", "idempotency_key": "order-1"}
            await client.send("POST", "/v1/chat/completions", body, **headers)
            await client.head()
            waiting = await ask(endpoint, "slow", stream=True)
            assert (waiting.status, waiting.error["code"]) == (409, "idempotency_key_in_use")
            assert waiting.headers["retry-after"] == "1"
            assert "x-should-retry" not in waiting.headers
            go_on.set()
            first = b""
            while chunk := await client.chunk():
                first += chunk
        again = await ask(endpoint, "slow", stream=True)
        assert again.body == first
        assert len(endpoint.market.orders) == 1


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("model", ["lost", "never"])
async def test_an_error_that_cost_nothing_is_no_answer(model: str, stream: bool) -> None:
    async with serving(SCRIPTS) as endpoint:
        for _ in range(2):
            assert (await ask(endpoint, model, stream=stream)).status != 409
        assert len(endpoint.market.orders) == 2
        # The key is as good as unused: also for another request.
        assert (await ask(endpoint, "echo")).status == 200


async def test_a_refused_request_may_be_corrected_under_its_key() -> None:
    async with serving(SCRIPTS) as endpoint:
        assert (await ask(endpoint, temperature=7)).status == 400
        assert (await ask(endpoint)).status == 200
        assert "idempotent-replayed" in (await ask(endpoint)).headers


async def test_an_answer_that_cost_nothing_is_kept_too() -> None:
    async with serving(SCRIPTS) as endpoint:
        for _ in range(2):
            assert (await ask(endpoint, "disputed")).json()["ryvion"]["accepted"] is False  # type: ignore[index,call-overload]
        assert len(endpoint.market.orders) == 1


async def test_an_answer_whose_client_went_away_was_paid_and_is_not_bought_again() -> None:
    async with serving({"slow": Script((Piece("a"), Hold(trio.Event())))}) as endpoint:
        client = await endpoint.connect()
        async with client.stream:
            body = {"model": "slow", "messages": HELLO, "stream": True}
            headers = {"authorization": "Bearer sk-buyer", "idempotency_key": "order-1"}
            await client.send("POST", "/v1/chat/completions", body, **headers)
            await client.head()
            await client.chunk()
            await client.chunk()
        await endpoint.market.left.wait()
        again = await ask(endpoint, "slow", stream=True)
        assert len(endpoint.market.orders) == 1
        (order,) = endpoint.market.orders
    assert (again.status, again.error["code"]) == (409, "idempotency_answer_lost")
    assert order.account.completion_id in str(again.error["message"])
    assert again.headers["x-should-retry"] == "false"


async def test_while_a_left_job_is_settled_its_key_is_in_use() -> None:
    memory = MemoryVault()
    async with serving(SCRIPTS, vault=memory) as endpoint:
        await ask(endpoint)
        (order,) = endpoint.market.orders
        endpoint.market.running.append(order.account.completion_id)
        # As if the answer had never been stored.
        memory._kept = {name: data for name, data in memory._kept.items() if name[1] == "claim"}
        again = await ask(endpoint)
        assert (again.status, again.error["code"]) == (409, "idempotency_key_in_use")


@pytest.mark.parametrize("bad", ["", "x" * 256, "a\r\nidempotency-key: b"])
async def test_a_key_that_is_none_is_refused(bad: str) -> None:
    async with serving(SCRIPTS) as endpoint:
        reply = await ask(endpoint, key=bad)
        assert (reply.status, reply.error["param"]) == (400, "Idempotency-Key")
        assert endpoint.market.orders == []


def files_in(folder: Path, pattern: str = "*") -> list[Path]:
    return list(folder.glob(pattern))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "home" / "answers"


async def test_it_holds_after_a_restart_and_the_folder_tells_nothing(folder: Path) -> None:
    secret = "a secret nobody else may read"
    scripts = {"echo": says(secret)}
    async with serving(scripts, vault=FolderVault(folder)) as endpoint:
        first = await ask(endpoint, key="guessable")
    async with serving(scripts, vault=FolderVault(folder)) as endpoint:
        again = await ask(endpoint, key="guessable")
        assert endpoint.market.orders == []
    assert kept(first) == kept(again)
    files = files_in(folder)
    assert {file.suffix for file in files} == {".claim", ".answer"}
    for file in files:
        assert file.stat().st_mode & 0o077 == 0
        for word in (secret, "guessable", "sk-buyer", "echo", "chatcmpl", str(first.json()["id"])):
            assert word.encode() not in file.read_bytes()
            assert word not in file.name


async def test_after_a_crash_only_what_was_paid_is_refused(folder: Path) -> None:
    async with serving(SCRIPTS, vault=FolderVault(folder)) as endpoint:
        first = await ask(endpoint)
    for answer in files_in(folder, "*.answer"):
        answer.unlink()
    async with serving(SCRIPTS, vault=FolderVault(folder)) as endpoint:
        endpoint.market.costs[str(first.json()["id"])] = 12
        assert (await ask(endpoint)).error["code"] == "idempotency_answer_lost"
        endpoint.market.costs.clear()
        assert (await ask(endpoint)).status == 200
        assert len(endpoint.market.orders) == 1


@pytest.mark.parametrize("suffix", ["claim", "answer"])
@pytest.mark.parametrize("damage", [b"", b"x" * 200, None])
async def test_a_damaged_file_is_never_a_second_purchase(folder: Path, suffix: str, damage: bytes | None) -> None:
    async with serving(SCRIPTS, vault=FolderVault(folder)) as endpoint:
        await ask(endpoint)
        (file,) = files_in(folder, f"*.{suffix}")
        file.write_bytes(file.read_bytes()[:-1] + b"?" if damage is None else damage)
        again = await ask(endpoint)
        assert (again.status, again.error["code"]) == (409, "idempotency_answer_lost")
        assert len(endpoint.market.orders) == 1


@pytest.mark.parametrize("stream", [True, False])
async def test_books_that_cannot_be_read_keep_no_answer_back(stream: bool) -> None:
    """It was paid for; only that it can be had again is lost."""

    async def unreadable(completion_id: str) -> Progress:
        raise LedgerUnavailable("the disk is gone")

    async with serving(SCRIPTS) as endpoint:
        endpoint.receipts.progress = unreadable  # type: ignore[method-assign]
        reply = await ask(endpoint, stream=stream)
        assert (reply.status, reply.complete) == (200, True)
        assert (await ask(endpoint, stream=stream)).status == 500
        assert len(endpoint.market.orders) == 1


async def test_an_answer_too_long_to_keep_is_sent_and_not_bought_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "MAX_STORED_ANSWER_BYTES", 10)
    async with serving(SCRIPTS) as endpoint:
        assert (await ask(endpoint)).status == 200
        assert (await ask(endpoint)).error["code"] == "idempotency_answer_lost"


async def test_too_many_keys_are_refused_before_anything_is_bought(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vault, "MAX_CLAIMS", 2)
    async with serving(SCRIPTS) as endpoint:
        replies = [await ask(endpoint, key=f"order-{number}") for number in range(3)]
        assert [reply.status for reply in replies] == [200, 200, 429]
        assert len(endpoint.market.orders) == 2
        assert (await ask(endpoint, key="order-0")).status == 200


async def test_keep_alives_are_not_stored_and_the_stream_is_otherwise_the_same() -> None:
    script = Script((Piece("a"), Hold(seconds=0.15), Piece("b")))
    async with serving({"m": script}, Settings(port=0, keep_alive_s=0.05)) as endpoint:
        first, again = [await ask(endpoint, "m", stream=True) for _ in range(2)]
    assert any(event.startswith(":") for event in first.events())
    assert [event for event in first.events() if not event.startswith(":")] == again.events()


async def test_the_key_says_who_may_ask_again() -> None:
    fake = FakeKeys()
    async with serving(SCRIPTS, keys=fake) as endpoint:
        await ask(endpoint)
        fake.by_token["sk-buyer"] = Key("k1", "read-only")
        assert (await ask(endpoint)).status == 403
        del fake.by_token["sk-buyer"]
        assert (await ask(endpoint)).status == 401


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_the_official_client_waits_for_the_first_request_by_itself() -> None:
    """It retries a 409 and follows `retry-after-ms`: two calls with one key get one answer."""
    go_on = trio.Event()
    answers = []
    script = Script((Piece("a"), Hold(go_on), Piece("b")))
    async with serving({"slow": script}) as endpoint, async_client(endpoint) as client:
        patient = client.with_options(max_retries=2)
        told_to_wait = trio.Event()

        async def look(response: httpx.Response) -> None:
            if response.status_code == 409:
                told_to_wait.set()

        client._client.event_hooks = {"response": [look]}

        async def call() -> None:
            answers.append(
                await patient.chat.completions.create(
                    model="slow",
                    messages=[{"role": "user", "content": "hi"}],
                    extra_headers={"Idempotency-Key": "order-1"},
                )
            )

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            while not endpoint.market.orders:
                await trio.lowlevel.checkpoint()
            nursery.start_soon(call)
            await told_to_wait.wait()
            go_on.set()
        assert answers[0] == answers[1]
        assert len(endpoint.market.orders) == 1
