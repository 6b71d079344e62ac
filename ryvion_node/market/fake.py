"""A scripted market: the endpoint's outside world in tests.

A model's script says what happens to every order for it, in order: a `Piece` is delivered, `Hold` waits, a MarketError
breaks the job, `Unannounced` leaves out the `Done`. Receipts are real ones, signed by the fake executor's own key.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal

import trio

from ryvion_node.market.interface import (
    BoughtEmbedding,
    BoughtJob,
    Candidate,
    ChatOrder,
    Done,
    EmbeddingEvent,
    EmbeddingOrder,
    JobEvent,
    MarketError,
    NotRecorded,
    Order,
    Outcome,
    Piece,
    Placement,
    Recipient,
    Route,
    Taken,
    VectorsPiece,
)
from ryvion_protocol.checks import Check
from ryvion_protocol.features import FEATURES
from ryvion_protocol.messages import CHAT, CallPiece, Delta, Hardware, ModelOffer, Offer
from ryvion_protocol.receipt import ReceiptFields, fields_of, issue_receipt
from ryvion_protocol.schema import JobId, NodeKey
from ryvion_protocol.signing import SigningIdentity
from ryvion_protocol.transcript import ResultBuilder

FAKE_DIMENSIONS = 4
HARDWARE = Hardware(name="Fake GPU", count=1, memory_bytes=8 * 2**30, backend="cpu")


@dataclass(frozen=True, slots=True)
class Hold:
    """Wait until `until` is set, or for `seconds`."""

    until: trio.Event | None = None
    seconds: float = 0.0


Step = Piece | Hold | MarketError | Exception


@dataclass(frozen=True, slots=True)
class Script:
    """What happens to an order."""

    steps: tuple[Step, ...] = ()
    before: tuple[Hold | MarketError | Exception, ...] = ()
    """Before an executor accepts."""
    finish_reason: Literal["stop", "length", "tool_calls"] = "stop"
    jurisdiction: str = "CA"
    kind: str = CHAT
    """Of the model, as it is offered."""
    failed_check: bool = False
    """The receipt does not pass."""
    ends: bool = True
    """False: the events stop without a Done."""
    taken_over: bool = False
    """Another executor takes the job over before the first piece, or after the first vectors."""
    by_seed: tuple[Script, ...] = ()
    """What happens instead to orders with a seed: the script at its remainder."""


def says(*pieces: str) -> Script:
    """A script that delivers these pieces and ends well."""
    return Script(tuple(map(Piece, pieces)))


def calls(name: str, *arguments: str, index: int = 0) -> tuple[Piece, ...]:
    """A tool call in pieces, as an executor streams it."""
    first = Piece(calls=(CallPiece(index, f"call_{index}", name, ""),))
    return (first, *(Piece(calls=(CallPiece(index, "", "", part),)) for part in arguments))


@dataclass(slots=True)
class FakeMarket:
    """A Market that follows scripts, and remembers what happened to it."""

    scripts: Mapping[str, Script]
    orders: list[ChatOrder] = field(default_factory=list)
    embeddings: list[EmbeddingOrder] = field(default_factory=list)
    routed: list[Order] = field(default_factory=list)
    """Orders whose choice was explained and that were not placed."""
    open_jobs: int = 0
    """Contexts entered and not left."""
    finished: list[JobId] = field(default_factory=list)
    """Jobs that ended with a Done."""
    left_early: list[JobId] = field(default_factory=list)
    """Jobs whose context was left before their Done: cancelled."""
    left: trio.Event = field(default_factory=trio.Event)
    """Set whenever a job's context is left; a test may put a new one."""
    outcomes: dict[JobId, Outcome] = field(default_factory=dict)
    placements: dict[str, Placement] = field(default_factory=dict)
    running: list[str] = field(default_factory=list)
    """The completion id of each job that is not settled."""
    slots: int | None = None
    """Jobs that find room at once; None: any number."""
    slots_taken: int = 0
    context_tokens: int = 4096
    """Of every model; a prompt has a token for each word."""
    costs: dict[str, int] = field(default_factory=dict)
    """Micro-credits by completion id, of the jobs that left a receipt."""

    @asynccontextmanager
    async def buy(self, order: ChatOrder) -> AsyncIterator[BoughtJob]:
        """Follow the script of the order's model."""
        self.orders.append(order)
        script = self.scripts.get(order.model)
        if script is None:
            raise MarketError("model_not_found", f"Nobody offers {order.model}; on offer: {', '.join(self.scripts)}.")
        if script.by_seed and order.seed is not None:
            script = script.by_seed[order.seed % len(script.by_seed)]
        self.open_jobs += 1
        job = _FakeJob(self, order, script, len(self.orders))
        completion_id = order.account.completion_id
        self.running.append(completion_id)
        try:
            await _play(script.before)
            with self._slot():
                await _tell(order, job.placement)
                yield job
        finally:
            self.open_jobs -= 1
            self.placements[job.placement.job_id] = job.placement
            self.running.remove(completion_id)
            if job.cost is not None:
                self.costs[completion_id] = self.costs.get(completion_id, 0) + job.cost
            (self.finished if job.ended else self.left_early).append(job.placement.job_id)
            self.left.set()

    @contextmanager
    def _slot(self) -> Iterator[None]:
        if self.slots is not None and self.slots_taken >= self.slots:
            raise MarketError("no_capacity", "all slots are taken", 2_000)
        self.slots_taken += 1
        try:
            yield
        finally:
            self.slots_taken -= 1

    @asynccontextmanager
    async def embed(self, order: EmbeddingOrder) -> AsyncIterator[BoughtEmbedding]:
        """Vectors by the order's script."""
        self.embeddings.append(order)
        script = self.scripts.get(order.model)
        if script is None:
            raise MarketError("model_not_found", f"Nobody offers {order.model}; on offer: {', '.join(self.scripts)}.")
        self.open_jobs += 1
        try:
            await _play(script.before)
            job = _FakeEmbedding(order, script, len(self.orders) + len(self.embeddings))
            await _tell(order, job.placement)
            yield job
            if job.ended:
                self.costs[order.account.completion_id] = 0 if script.failed_check else 12
        finally:
            self.open_jobs -= 1
            self.left.set()

    async def fits(self, order: ChatOrder) -> bool:
        """By its words."""
        return sum(len(message.content.split()) for message in order.messages) <= self.context_tokens

    async def route(self, order: Order) -> Route:
        """A decision with one candidate."""
        self.routed.append(order)
        return _placement(order, JobId("0" * 64), self.scripts[order.model], 1).route

    def placement(self, job_id: str) -> Placement | None:
        """Of any order so far."""
        return self.placements.get(job_id)

    def offers(self) -> tuple[Offer, ...]:
        """One offer per script."""
        return tuple(_offer(name, script, number) for number, (name, script) in enumerate(self.scripts.items(), 1))


class _FakeEmbedding:
    """Vectors of `FAKE_DIMENSIONS` numbers, two at once; a script's steps come before them."""

    def __init__(self, order: EmbeddingOrder, script: Script, number: int) -> None:
        self._order = order
        self._script = script
        self._number = number
        self.placement = _placement(order, JobId(f"{number:064x}"), script, 1)
        self.ended = False

    async def events(self) -> AsyncIterator[EmbeddingEvent]:
        """Taken, the vectors, Done."""
        yield Taken(self.placement)
        await _play([step for step in self._script.steps if not isinstance(step, Piece)])
        texts = self._order.texts
        vectors = [fake_vector(text) for text in texts]
        if self._script.taken_over:
            yield VectorsPiece(FAKE_DIMENSIONS, fake_vector("of the one that broke"))
            self.placement = _placement(self._order, JobId(f"{self._number:032x}" + "f" * 32), self._script, 2)
            await _tell(self._order, self.placement)
            yield Taken(self.placement)
        for at in range(0, len(texts), 2):
            yield VectorsPiece(FAKE_DIMENSIONS, b"".join(vectors[at : at + 2]))
        tokens = sum(len(text.split()) for text in texts)
        result_hash = hashlib.sha256(b"".join(vectors)).digest()
        self.ended = True
        yield Done(_outcome(self.placement.job_id, self._script, result_hash, tokens, 0, tokens))


class _FakeJob:
    def __init__(self, market: FakeMarket, order: ChatOrder, script: Script, number: int) -> None:
        self._market = market
        self._order = order
        self._script = script
        self._number = number
        self.placement = _placement(order, JobId(f"{number:064x}"), script, 1)
        self.ended = False
        self.cost: int | None = None
        """None without a receipt. A job that is left early is paid for what was delivered; one that breaks is not."""

    async def events(self) -> AsyncIterator[JobEvent]:
        """Taken, the script's pieces, Done."""
        if self._script.taken_over:
            self.placement = _placement(self._order, JobId(f"{self._number:032x}" + "f" * 32), self._script, 2)
            await _tell(self._order, self.placement)
        result = ResultBuilder()
        completion_tokens = 0
        announced = False
        for step in self._script.steps:
            if isinstance(step, Piece):
                if not announced:
                    announced = True
                    yield Taken(self.placement)
                result.add(Delta(completion_tokens, 0, step.content, (), step.reasoning, step.calls))
                completion_tokens += 1
                self.cost = 1
                yield step
            else:
                try:
                    await _play((step,))
                except Exception:
                    self.cost = None
                    raise
        if not self._script.ends:
            return
        if not announced:
            yield Taken(self.placement)
        outcome = self._outcome(result, completion_tokens)
        self.ended = True
        self.cost = outcome.cost
        self._market.outcomes[self.placement.job_id] = outcome
        yield Done(outcome)

    def _outcome(self, result: ResultBuilder, completion_tokens: int) -> Outcome:
        prompt_tokens = sum(len(message.content.split()) for message in self._order.messages)
        units = prompt_tokens + completion_tokens if completion_tokens else 0
        thought = len(result.reasoning.split())
        outcome = _outcome(self.placement.job_id, self._script, result.digest, prompt_tokens, completion_tokens, units)
        return replace(outcome, cached_tokens=prompt_tokens // 2, reasoning_tokens=thought)


def _outcome(
    job_id: JobId, script: Script, result_hash: bytes, prompt_tokens: int, completion_tokens: int, units: int
) -> Outcome:
    identity = _identity(2 if script.taken_over else 1)
    receipt = issue_receipt(ReceiptFields(job_id, identity.public_key, result_hash, units), identity)
    verdict = Check("units_counted", "failed", "counted 3, billed 9") if script.failed_check else None
    return Outcome(
        finish_reason=script.finish_reason,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        cached_tokens=0,
        reasoning_tokens=0,
        receipt=receipt,
        cid=fields_of(receipt).cid(),
        envelope={"job_id": receipt.job_id, "status": "completed"},
        checks=(Check("signature", "passed", "signed by the executor"), *([verdict] if verdict else [])),
        accepted=verdict is None,
        cost=0 if verdict else 12,
        first_token_ms=20,
        duration_ms=120,
    )


def fake_vector(text: str) -> bytes:
    """What every fake embedding model makes of a text."""
    digest = hashlib.sha256(text.encode()).digest()
    return struct.pack(f"<{FAKE_DIMENSIONS}f", *(byte / 256 for byte in digest[:FAKE_DIMENSIONS]))


async def _tell(order: Order, placement: Placement) -> None:
    if order.witness is None:
        return
    try:
        await order.witness(Recipient(placement.job_id, placement.node_key, placement.jurisdiction))
    except NotRecorded as exc:
        raise MarketError("no_capacity", f"nothing was sent: {exc}", 60_000) from exc


async def _play(steps: Sequence[Step]) -> None:
    for step in steps:
        match step:
            case Hold(until=None, seconds=seconds):
                await trio.sleep(seconds)
            case Hold(until=event) if event is not None:
                await event.wait()
            case Exception():
                raise step
            case _:
                raise TypeError(f"a piece cannot stand here: {step!r}")


def _identity(number: int) -> SigningIdentity:
    return SigningIdentity(bytes([number]) * 32)


def _placement(order: Order, job_id: JobId, script: Script, executor: int) -> Placement:
    node_key = _identity(executor).public_key
    candidate = Candidate(
        node_key=node_key,
        peer_id=f"fake-peer-{executor}",
        hardware=HARDWARE,
        jurisdiction=script.jurisdiction,
        location="Testville",
        price_in=1_000,
        price_out=2_000,
        outcome="won",
        reason="the only bid",
        first_token_ms=20,
        expected_cost=12,
        score=1.0,
    )
    route = Route(
        order.model,
        order.jurisdictions,
        order.preferences.ranking,
        (candidate,),
        node_key,
        "one bid, taken",
        decided_ms=3,
    )
    return Placement(
        job_id=job_id,
        node_key=node_key,
        peer_id=candidate.peer_id,
        model=order.model,
        digest=_digest(order.model),
        hardware=HARDWARE,
        jurisdiction=script.jurisdiction,
        location=candidate.location,
        price_in=candidate.price_in,
        price_out=candidate.price_out,
        route=route,
    )


def _offer(name: str, script: Script, number: int) -> Offer:
    model = ModelOffer(
        name=name,
        digest=_digest(name),
        quantisation="Q8_0",
        kind=script.kind,
        context_tokens=4096,
        price_in=1_000,
        price_out=2_000 * number,
        slots_total=4,
        slots_free=4,
        millitokens_per_s=50_000,
        features=tuple(sorted(FEATURES)),
    )
    return Offer(
        network="ryvion-test",
        node_key=NodeKey(_identity(number % 256).public_key),
        seq=number,
        issued_ms=1_700_000_000_000 + number,
        expires_ms=1_700_000_120_000 + number,
        software="fake",
        hardware=HARDWARE,
        jurisdiction=script.jurisdiction,
        location="Testville",
        models=(model,),
        addresses=("/ip4/127.0.0.1/tcp/1",),
    )


def _digest(model: str) -> bytes:
    return hashlib.sha256(model.encode()).digest()
