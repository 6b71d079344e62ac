"""What the demo does, in order: start a market, buy three times, verify a receipt, stop. Yields what happens."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ryvion_node.cli.demo.events import (
    DemoEvent,
    Finished,
    NetworkKept,
    NodeReady,
    NodeStarting,
    NodeStopped,
    OfferHeard,
)
from ryvion_node.cli.demo.network import DemoNode, NodePlan, stop_all
from ryvion_node.cli.demo.receipt_check import verify_offline
from ryvion_node.cli.offers import fetch_offers
from ryvion_node.errors import OperatorError
from ryvion_node.keys import KeyStore
from ryvion_node.paths import resolve_paths

if TYPE_CHECKING:
    from ryvion_node.cli.demo.purchase import Answer, Buyer

OFFERS_TIMEOUT_S = 30.0
POLL_S = 0.1
CHEAP, DEAR, NOWHERE = "DE", "CA", "JP"
"""Jurisdictions: the cheap seller's, the dear one's, and one where nobody sells."""

BOOTSTRAP = NodePlan("bootstrap", "helps nodes find each other", ())
REQUESTER = NodePlan("requester", "buys, with an OpenAI-compatible endpoint", ("--proxy", "--proxy-port", "0"))


def seller(jurisdiction: str, location: str, model: str, price_in: str, price_out: str) -> NodePlan:
    """A node that sells `model`; prices in credits per million tokens."""
    place = ("--jurisdiction", jurisdiction, "--location", location)
    prices = ("--price-in", price_in, "--price-out", price_out)
    role = f"sells {model} from {jurisdiction} for {price_in}/{price_out} credits per million tokens"
    # One thread: the bundled models gain nothing from more, and two sellers here share the machine's cores.
    return NodePlan(f"seller-{jurisdiction.lower()}", role, ("--serve", model, "--threads", "1", *place, *prices))


@dataclass(slots=True)
class Scenario:
    """One run. `problems` collects everything that was not as it should be."""

    folder: Path
    model: str
    prompts: tuple[str, str, str]
    """One for each request."""
    nodes: list[DemoNode] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    api_key: str = ""
    """For the requester's endpoint; made before it starts."""
    started_at: float = field(default_factory=time.monotonic)

    def run(self) -> Iterator[DemoEvent]:
        """Start everything and make the three purchases; raises OperatorError when a node fails."""
        yield from self._start_nodes()
        yield from self._hear_offers()
        from ryvion_node.cli.demo.purchase import Buyer  # by now imported, see _start_nodes

        with Buyer(self._endpoint(), self.api_key, self.model, self.node_names()) as buyer:
            answer = yield from self._buy(buyer, 1, None)
            yield from self._buy(buyer, 2, DEAR)
            yield from self._be_refused(buyer, 3, NOWHERE)
        yield from self._verify(answer)

    def keep(self) -> NetworkKept:
        """What a person needs to use the network that goes on running."""
        return NetworkKept(self._endpoint(), self.api_key, self.model, str(self.requester.paths.home))

    def stop(self) -> Iterator[DemoEvent]:
        """Stop every node; the last event says how it all went."""
        for name, exit_code in stop_all(self.nodes):
            if exit_code != 0:
                self.problems.append(f"node {name} ended with exit code {exit_code}")
            yield NodeStopped(name, exit_code)
        yield Finished(not self.problems, tuple(self.problems), self._elapsed_ms(self.started_at))

    @property
    def requester(self) -> DemoNode:
        return next(node for node in self.nodes if node.plan is REQUESTER)

    def node_names(self) -> dict[str, str]:
        """Node key in hex -> the demo's name for it."""
        return {node.node_key: node.plan.name for node in self.nodes}

    # --- the steps ---

    def _start_nodes(self) -> Iterator[DemoEvent]:
        _, self.api_key = KeyStore(resolve_paths(self.folder / REQUESTER.name).keys_file).create("demo", "buyer")
        bootstrap = self._start(BOOTSTRAP, None)
        yield self._starting(bootstrap)
        yield self._wait(bootstrap)
        plans = (
            seller(CHEAP, "Falkenstein", self.model, "0.05", "0.20"),
            seller(DEAR, "Montreal", self.model, "0.15", "0.60"),
            REQUESTER,
        )
        others = [self._start(plan, bootstrap.address) for plan in plans]
        yield from map(self._starting, others)
        # Imported while the nodes start: the OpenAI client takes a second that would be waited for later.
        import ryvion_node.cli.demo.purchase  # noqa: F401

        yield from map(self._wait, others)

    def _start(self, plan: NodePlan, bootstrap: str | None) -> DemoNode:
        node = DemoNode(plan, self.folder / plan.name, bootstrap)
        self.nodes.append(node)
        return node

    def _starting(self, node: DemoNode) -> DemoEvent:
        return NodeStarting(node.plan.name, node.plan.role, node.command, node.process.pid)

    def _wait(self, node: DemoNode) -> DemoEvent:
        node.wait_until_ready()
        ready = node.ready
        return NodeReady(
            node.plan.name,
            ready["peer_id"],
            ready["node_key"],
            tuple(ready["listening"]),
            ready["endpoint"],
            self._elapsed_ms(node.started_at),
        )

    def _hear_offers(self) -> Iterator[DemoEvent]:
        """Until the requester's own book has an offer of every seller."""
        names = self.node_names()
        awaited = {node.node_key for node in self.nodes if node.plan.name.startswith("seller-")}
        deadline = time.monotonic() + OFFERS_TIMEOUT_S
        while awaited:
            for offer in _offers(self.requester):
                if offer["node_key"] in awaited:
                    awaited.remove(offer["node_key"])
                    yield OfferHeard(names[offer["node_key"]], offer)
            if time.monotonic() > deadline:
                silent = ", ".join(names[key] for key in awaited)
                raise self.requester.failure(f"heard no offer of {silent} within {OFFERS_TIMEOUT_S:.0f} s")
            time.sleep(POLL_S)

    def _buy(self, buyer: Buyer, number: int, jurisdiction: str | None) -> Generator[DemoEvent, None, Answer]:
        """A purchase that must succeed, in the right place."""
        answer = yield from buyer.buy(number, self.prompts[number - 1], jurisdiction)
        if answer.refused is not None:
            self.problems.append(f"request {number} failed: {answer.refused.code}: {answer.refused.message}")
        elif answer.settled is None:
            self.problems.append(f"request {number} ended without a receipt")
        elif not answer.settled.accepted:
            self.problems.append(f"request {number}: the receipt was not accepted")
        elif jurisdiction is not None and answer.jurisdiction != jurisdiction:
            self.problems.append(f"request {number} was to stay in {jurisdiction} and ran in {answer.jurisdiction}")
        return answer

    def _be_refused(self, buyer: Buyer, number: int, jurisdiction: str) -> Iterator[DemoEvent]:
        """A purchase that nobody may serve: the clear error is what is wanted."""
        answer = yield from buyer.buy(number, self.prompts[number - 1], jurisdiction)
        code = None if answer.refused is None else answer.refused.code
        if code != "jurisdiction_not_allowed":
            self.problems.append(
                f"request {number} for {jurisdiction} was to be refused, but got {code or 'an answer'}"
            )

    def _verify(self, answer: Answer) -> Iterator[DemoEvent]:
        """Export the first receipt and verify the file with nothing else at hand."""
        if answer.settled is None:
            return
        verified = verify_offline(self.requester.paths, answer.job_id, answer.text, self.folder)
        if verified.exit_code != 0:
            self.problems.append(f"the exported receipt is not valid (exit code {verified.exit_code}) {verified.error}")
        yield verified

    # --- helpers ---

    def _endpoint(self) -> str:
        return str(self.requester.ready["endpoint"])

    def _elapsed_ms(self, since: float) -> int:
        return int((time.monotonic() - since) * 1000)


def _offers(node: DemoNode) -> list[dict[str, Any]]:
    try:
        return fetch_offers(node.paths)
    except OperatorError as exc:
        raise node.failure(f"does not answer ({exc})") from exc
