"""What a node counts, for Prometheus. One registry per node; labels are from fixed sets, and never hold what was said."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import Receive, Scope, Send

from ryvion_node.ledger.records import Settlement
from ryvion_node.market.interface import Candidate, Placement
from ryvion_node.proxy.access import Keys, admit
from ryvion_node.proxy.exchange import Exchange

FIRST_TOKEN_S: Final = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
INTER_TOKEN_S: Final = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 10.0)
_NOT_ASKED: Final = ("filtered", "not_asked")
_REFUSALS: Final = frozenset(
    ("busy", "model_gone", "price", "credit", "jurisdiction", "limits", "feature", "unreachable", "no_answer")
)
_FAILURES: Final = frozenset(
    (
        "busy",
        "context_overflow",
        "grammar_invalid",
        "model_broken",
        "model_unknown",
        "rate_limited",
        "stream_lost",
        "template_failed",
        "timeout",
        "unsupported",
        "worker_crashed",
        "worker_stalled",
    )
)
"""Why jobs break. Peers may say anything; what is not here counts as `other`."""

Load = Callable[[], Iterable[tuple[str, int, int]]]
"""Of each model that is sold: its name, its slots, and the jobs that hold or wait for one."""


class Metrics:
    """Implements `MarketTally` and `SalesTally`; the endpoint counts the rest itself (`counting.py`)."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.in_flight = Gauge(
            "ryvion_requests_inflight", "Requests being answered; scrapes do not count.", registry=self.registry
        )
        self.requests = self._counter("requests", "Requests answered, by path and HTTP status.", "path", "status")
        self.errors = self._counter("errors", "Errors told to clients, by code.", "code")
        self.first_token = self._histogram("first_token_seconds", "From order to the first piece.", FIRST_TOKEN_S)
        self.inter_token = self._histogram(
            "inter_token_seconds", "Between two pieces of an answer, each of a token or a few.", INTER_TOKEN_S
        )
        self.orders = self._counter(
            "orders", "Orders by how they ended: done, left by the client, or a code.", "result"
        )
        self._tokens = self._counter("tokens", "Tokens in finished jobs.", "side", "kind")
        self._rounds = self._counter("auctions", "Rounds of quotes held.")
        self._asked = self._counter("auction_asked", "Executors asked for a quote.")
        self._bids = self._counter("auction_bids", "Quotes that came and were good enough.")
        self._refusals = self._counter("auction_refusals", "Executors that did not bid, by reason.", "code")
        self._winners = self._counter("auction_winners", "Jobs that were taken, by where.", "jurisdiction")
        self._broken = self._counter("jobs_broken", "Bought jobs that an executor did not finish, by reason.", "code")
        self._receipts = self._counter("receipts", "Receipts judged.", "result")
        self._checks = self._counter("receipt_checks", "Checks of receipts, by result.", "check", "result")
        self._spent = self._counter("spent_microcredits", "Settled for bought jobs.")
        self._sold = self._counter("jobs_sold", "Sold jobs that ended with a receipt.", "status")
        self._verdicts = self._counter("verdicts", "What buyers said of our receipts.", "result")
        self._earned = self._counter("earned_microcredits", "For sold jobs that their buyers accepted.")
        self._unsold = self._counter("jobs_not_sold", "Orders that could not be run, by reason.", "code")

    def watch_slots(self, load: Load) -> None:
        """Show how full this node's own models are."""
        self.registry.register(_Slots(load))

    # -- MarketTally -------------------------------------------------------------------------------------

    def asked(self, bids: int, others: Sequence[Candidate]) -> None:
        """A round of quotes is over."""
        said = [line for line in others if line.outcome not in _NOT_ASKED]
        self._rounds.inc()
        self._asked.inc(bids + len(said))
        self._bids.inc(bids)
        for line in said:
            code = line.reason.partition(":")[0] if line.outcome == "refused" else line.outcome
            self._refusals.labels(code if code in _REFUSALS else "other").inc()

    def placed(self, placement: Placement) -> None:
        """An executor has taken a job."""
        self._winners.labels(placement.jurisdiction).inc()

    def broke(self, code: str) -> None:
        """An executor did not finish its job."""
        self._broken.labels(_known(code)).inc()

    def settled(self, settlement: Settlement) -> None:
        """A receipt has been judged."""
        self._receipts.labels("accepted" if settlement.accepted else "disputed").inc()
        for check in settlement.checks:
            self._checks.labels(check.name, check.outcome).inc()
        self._count_tokens("bought", settlement.prompt_units, settlement.completion_units)
        self._spent.inc(settlement.cost_microcredits)

    # -- SalesTally --------------------------------------------------------------------------------------

    def sold(self, status: str, prompt_units: int, completion_units: int) -> None:
        """A job has ended with a receipt."""
        self._sold.labels(status).inc()
        self._count_tokens("sold", prompt_units, completion_units)

    def judged(self, accepted: bool, cost_microcredits: int) -> None:
        """The buyer's verdict came."""
        self._verdicts.labels("accepted" if accepted else "disputed").inc()
        if accepted:
            self._earned.inc(cost_microcredits)

    def failed(self, code: str) -> None:
        """An order could not be run."""
        self._unsold.labels(_known(code)).inc()

    # -- making them -------------------------------------------------------------------------------------

    def _count_tokens(self, side: str, prompt: int, completion: int) -> None:
        self._tokens.labels(side, "prompt").inc(prompt)
        self._tokens.labels(side, "completion").inc(completion)

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"ryvion_{name}", meaning, labels, registry=self.registry)

    def _histogram(self, name: str, meaning: str, buckets: Sequence[float]) -> Histogram:
        return Histogram(f"ryvion_{name}", meaning, registry=self.registry, buckets=buckets)


class MetricsView:
    """GET /metrics: all of it, in the form that the scraper prefers."""

    def __init__(self, metrics: Metrics, keys: Keys) -> None:
        self._metrics = metrics
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        exchange = Exchange.of(scope)
        await admit(exchange.headers, self._keys, "read_metrics")
        encode, content_type = choose_encoder(exchange.headers.get("accept", ""))
        body = encode(self._metrics.registry)
        await exchange.start(200, (("content-type", content_type), ("content-length", str(len(body)))))
        await exchange.finish(body)


class _Slots(Collector):
    """Read when asked, so that nobody has to keep it up to date."""

    def __init__(self, load: Load) -> None:
        self._load = load

    def collect(self) -> Iterable[Metric]:
        slots = GaugeMetricFamily("ryvion_slots", "Jobs at once that a served model has room for.", labels=["model"])
        busy = GaugeMetricFamily("ryvion_slots_busy", "Of these, held by jobs and open quotes.", labels=["model"])
        waiting = GaugeMetricFamily("ryvion_queue_jobs", "Jobs that wait for a slot.", labels=["model"])
        for model, room, taken in self._load():
            slots.add_metric([model], room)
            busy.add_metric([model], min(taken, room))
            waiting.add_metric([model], max(taken - room, 0))
        return (slots, busy, waiting)


def _known(code: str) -> str:
    return code if code in _FAILURES else "other"
