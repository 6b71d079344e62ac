"""What /metrics says after each kind of request, and to whom."""

from __future__ import annotations

import pytest
import trio
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from proxy_harness import Endpoint, serving

from ryvion_node.ledger.records import Settlement
from ryvion_node.market.fake import HARDWARE, FakeMarket, Hold, Script, says
from ryvion_node.market.interface import Candidate, ChatOrder, MarketError, Piece
from ryvion_node.proxy.metrics import Metrics
from ryvion_protocol.checks import Check
from ryvion_protocol.schema import JobId, NodeKey

SECRET = "a-prompt-that-nobody-may-read"
Samples = dict[tuple[str, ...], float]


def samples_of(text: str) -> Samples:
    """Name and label values -> value."""
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def scrape(endpoint: Endpoint) -> Samples:
    reply = await endpoint.ask("GET", "/metrics", authorization="Bearer sk-reader")
    assert reply.status == 200
    assert reply.headers["content-type"].startswith("text/plain")
    return samples_of(reply.body.decode())


@pytest.mark.parametrize(
    ("token", "status"), [("sk-buyer", 200), ("sk-reader", 200), ("sk-operator", 200), ("sk-writer", 403), ("no", 401)]
)
async def test_scope_decides_who_may_look(token: str, status: int) -> None:
    async with serving({}) as endpoint:
        reply = await endpoint.ask("GET", "/metrics", authorization=f"Bearer {token}")
        assert reply.status == status


async def test_answers_are_counted_by_path_and_status_and_timed() -> None:
    async with serving({"echo": says("a", "b", "c")}) as endpoint:
        for stream in (True, False):
            assert (await endpoint.chat(stream=stream)).status == 200
        seen = await scrape(endpoint)
        assert seen["ryvion_requests_total", "/v1/chat/completions", "200"] == 2
        assert seen["ryvion_orders_total", "done"] == 2
        assert seen["ryvion_first_token_seconds_count",] == 2
        assert seen["ryvion_inter_token_seconds_count",] == 4
        assert seen["ryvion_requests_inflight",] == 0


async def test_errors_are_counted_by_code_in_answers_and_in_streams() -> None:
    broken = Script((Piece("one "), MarketError("node_failed", "gone")))
    async with serving({"broken": broken}) as endpoint:
        assert (await endpoint.chat("broken", stream=True)).status == 200
        assert (await endpoint.chat("broken")).status == 502
        assert (await endpoint.chat("nobody's")).status == 404
        assert (await endpoint.ask("GET", "/nowhere")).status == 404
        seen = await scrape(endpoint)
        assert seen["ryvion_errors_total", "node_failed"] == 2
        assert seen["ryvion_errors_total", "model_not_found"] == 1
        assert seen["ryvion_errors_total", "unknown_url"] == 1
        assert seen["ryvion_orders_total", "node_failed"] == 2
        assert seen["ryvion_requests_total", "other", "404"] == 1


async def test_embeddings_are_counted_by_how_they_ended() -> None:
    broken = Script((MarketError("node_failed", "gone"),), kind="embedding")
    async with serving({"embed": Script(kind="embedding"), "broken": broken}) as endpoint:
        for model, extra in (("embed", {}), ("embed", {"dimensions": 3}), ("broken", {}), ("gone", {})):
            body = {"model": model, "input": "x"} | extra
            await endpoint.ask("POST", "/v1/embeddings", body, authorization="Bearer sk-buyer")
        seen = await scrape(endpoint)
    results = ("done", "left", "node_failed", "model_not_found")
    assert [seen["ryvion_orders_total", result] for result in results] == [1, 1, 1, 1]


async def test_requests_under_way_show_until_their_client_leaves() -> None:
    async with serving({"slow": Script((Piece("one "), Hold(trio.Event())))}) as endpoint:
        client = await endpoint.connect()
        async with client.stream:
            await client.chat("slow", stream=True)
            assert (await client.head()).status == 200
            await client.event()
            assert (await scrape(endpoint))["ryvion_requests_inflight",] == 1
        await endpoint.market.left.wait()
        while (seen := await scrape(endpoint))["ryvion_requests_inflight",]:
            await trio.lowlevel.checkpoint()
        assert seen["ryvion_requests_total", "/v1/chat/completions", "client_gone"] == 1
        assert seen["ryvion_orders_total", "left"] == 1


async def test_labels_hold_nothing_that_a_client_wrote() -> None:
    async with serving({"echo": says("x")}) as endpoint:
        await endpoint.chat(SECRET)
        await endpoint.chat("echo", messages=[{"role": "user", "content": SECRET}])
        await endpoint.ask("GET", f"/{SECRET}")
        await endpoint.ask("GET", f"/v1/models/{SECRET}", authorization=f"Bearer {SECRET}")
        reply = await endpoint.ask("GET", "/metrics", authorization="Bearer sk-reader")
        assert SECRET not in reply.body.decode()
        assert "sk-reader" not in reply.body.decode()


async def test_scraper_that_prefers_open_metrics_gets_them() -> None:
    async with serving({}) as endpoint:
        accept = "application/openmetrics-text; version=1.0.0"
        reply = await endpoint.ask("GET", "/metrics", authorization="Bearer sk-reader", accept=accept)
        assert reply.headers["content-type"].startswith("application/openmetrics-text")
        assert reply.body.endswith(b"# EOF\n")


def text_of(metrics: Metrics) -> Samples:
    return samples_of(generate_latest(metrics.registry).decode())


def candidate(outcome: str, reason: str) -> Candidate:
    return Candidate(NodeKey(bytes(32)), "peer", HARDWARE, "DE", "", 1, 1, outcome, reason)  # type: ignore[arg-type]


def test_auctions_count_who_was_asked_who_bid_and_why_not() -> None:
    metrics = Metrics()
    metrics.asked(
        2,
        [
            candidate("refused", "busy: all slots and the queue are full"),
            candidate("refused", f"{SECRET}: whatever a peer likes to say"),
            candidate("unreachable", "nobody there"),
            candidate("not_asked", "ranked behind"),
        ],
    )
    seen = text_of(metrics)
    assert seen["ryvion_auctions_total",] == 1
    assert seen["ryvion_auction_asked_total",] == 5
    assert seen["ryvion_auction_bids_total",] == 2
    refusals = {code: seen["ryvion_auction_refusals_total", code] for code in ("busy", "unreachable", "other")}
    assert refusals == {"busy": 1, "unreachable": 1, "other": 1}


async def test_winners_are_counted_by_country() -> None:
    metrics, market = Metrics(), FakeMarket({"echo": says("x")})
    async with market.buy(ChatOrder("echo", (), None)) as job:
        metrics.placed(job.placement)
    assert text_of(metrics)["ryvion_auction_winners_total", "CA"] == 1


def settlement(*, accepted: bool) -> Settlement:
    checks = (Check("signature", "passed", ""), Check("units_counted", "passed" if accepted else "failed", ""))
    cost = 12 if accepted else 0
    return Settlement(JobId("0" * 64), 5, 7, cost, b"", b"", "", b"", b"", b"", accepted, "", checks)


def test_receipts_tokens_and_money_are_counted_on_both_sides() -> None:
    metrics = Metrics()
    metrics.settled(settlement(accepted=True))
    metrics.settled(settlement(accepted=False))
    metrics.sold("completed", 3, 4)
    metrics.judged(True, 9)
    metrics.judged(False, 9)
    metrics.failed("worker_crashed")
    metrics.broke(SECRET)
    seen = text_of(metrics)
    assert seen["ryvion_receipts_total", "accepted"] == seen["ryvion_receipts_total", "disputed"] == 1
    assert seen["ryvion_receipt_checks_total", "signature", "passed"] == 2
    assert seen["ryvion_receipt_checks_total", "units_counted", "failed"] == 1
    assert seen["ryvion_spent_microcredits_total",] == 12
    assert seen["ryvion_earned_microcredits_total",] == 9
    assert seen["ryvion_tokens_total", "completion", "bought"] == 14
    assert seen["ryvion_tokens_total", "prompt", "sold"] == 3
    assert seen["ryvion_verdicts_total", "disputed"] == 1
    assert seen["ryvion_jobs_not_sold_total", "worker_crashed"] == 1
    assert seen["ryvion_jobs_broken_total", "other"] == 1


def test_slots_are_read_when_somebody_looks() -> None:
    metrics = Metrics()
    taken = [1]
    metrics.watch_slots(lambda: [("tiny", 2, taken[0])])
    assert text_of(metrics)["ryvion_slots_busy", "tiny"] == 1
    taken[0] = 5
    seen = text_of(metrics)
    assert (seen["ryvion_slots", "tiny"], seen["ryvion_slots_busy", "tiny"]) == (2, 2)
    assert seen["ryvion_queue_jobs", "tiny"] == 3


def test_nodes_in_one_process_count_for_themselves() -> None:
    one, other = Metrics(), Metrics()
    one.in_flight.inc()
    assert text_of(other)["ryvion_requests_inflight",] == 0
