"""A marketplace in memory: sellers with scripted engines, one buyer, the fake internet between them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from ryvion_node.engine.fake import FakeCounter, FakeEngine, Script, fake_model
from ryvion_node.engine.interface import EngineModel, GenerationRequest
from ryvion_node.executor.announcer import Advert, draw_up_offer
from ryvion_node.executor.quoting import Shop
from ryvion_node.executor.seller import Seller
from ryvion_node.executor.workshop import Chains, Workshop
from ryvion_node.ledger.fake import FakeLedger
from ryvion_node.market.attempt import Desk
from ryvion_node.market.book import OfferBook
from ryvion_node.market.buyer import Buyer
from ryvion_node.market.interface import ChatOrder, Done, JobEvent, Outcome, Piece, Placement, Taken
from ryvion_node.p2p.fake import FakeInternet, FakeNetwork
from ryvion_protocol.constants import MARKET_PROTOCOL
from ryvion_protocol.messages import CallPiece, ChatMessage, Hardware, TokenLogprob
from ryvion_protocol.packet import Packet
from ryvion_protocol.signing import SigningIdentity

NETWORK = "test"
EPOCH_MS = 1_800_000_000_000
ANSWER = "one two three four five six"


def clock_ms() -> int:
    """The trio clock as Unix milliseconds, so that mock time and wall time agree."""
    return EPOCH_MS + round(trio.current_time() * 1000)


@dataclass(frozen=True, slots=True)
class SellerPlan:
    """One seller to set up."""

    seed: int
    jurisdiction: str = "DE"
    price_in: int = 50_000
    price_out: int = 200_000
    script: Callable[[GenerationRequest], Script] = lambda request: Script(ANSWER)
    model: EngineModel = field(default_factory=lambda: fake_model("tiny"))
    max_queue: int = 0


@dataclass(slots=True)
class RunningSeller:
    """A seller and what a test may look into."""

    identity: SigningIdentity
    engine: FakeEngine
    ledger: FakeLedger
    seller: Seller
    network: FakeNetwork
    offer: Packet


@dataclass(slots=True)
class Marketplace:
    """Everything that runs."""

    internet: FakeInternet
    buyer: Buyer
    buyer_identity: SigningIdentity
    ledger: FakeLedger
    book: OfferBook
    network: FakeNetwork
    sellers: list[RunningSeller]
    nursery: trio.Nursery


def identity(seed: int) -> SigningIdentity:
    return SigningIdentity(bytes([seed]) * 32)


def order(**changes: object) -> ChatOrder:
    """A short order for the model of the sellers."""
    fields: dict[str, object] = {
        "model": "tiny",
        "messages": (ChatMessage("user", "say something", ""),),
        "max_completion_tokens": 50,
        "temperature": 0.0,
    }
    return ChatOrder(**(fields | changes))  # type: ignore[arg-type]


@asynccontextmanager
async def marketplace(
    *plans: SellerPlan,
    counts: bool = True,
    quote_peers: int = 3,
    counter_extra: int = 0,
    known_digests: Mapping[str, bytes] | None = None,
) -> AsyncIterator[Marketplace]:
    """Set up sellers by plan and a buyer that has heard all their offers."""
    internet = FakeInternet()
    async with trio.open_nursery() as nursery:
        me = identity(200)
        network = internet.node(me.public_key)
        await nursery.start(network.run)
        ledger = FakeLedger(clock=clock_ms)
        book = OfferBook(NETWORK)
        digests = [plan.model.digest for plan in plans] if counts else []
        desk = Desk(me, ledger, FakeCounter(digests, extra=counter_extra), clock_ms, first_token_timeout_s=10.0)
        buyer = Buyer(network, NETWORK, book, desk, quote_peers, nursery, digests=known_digests)
        sellers = []
        for plan in plans:
            seller = await start_seller(nursery, internet, plan)
            assert book.hear(seller.offer.raw, clock_ms()) is not None
            sellers.append(seller)
        yield Marketplace(internet, buyer, me, ledger, book, network, sellers, nursery)
        nursery.cancel_scope.cancel()


async def start_seller(nursery: trio.Nursery, internet: FakeInternet, plan: SellerPlan) -> RunningSeller:
    """Put one seller on the net."""
    me = identity(plan.seed)
    network = internet.node(me.public_key)
    engine = FakeEngine([plan.model], plan.script)
    ledger = FakeLedger(clock=clock_ms)
    hardware = Hardware(f"GPU {plan.seed}", 1, 2**33, "cuda")
    workshop = Workshop(
        identity=me,
        engine=engine,
        ledger=ledger,
        chains=Chains(ledger, me.public_key),
        hardware=hardware,
        location="somewhere",
        network=NETWORK,
        clock_ms=clock_ms,
    )

    def shop(models: tuple[EngineModel, ...]) -> Shop:
        return Shop(NETWORK, me.public_key, plan.jurisdiction, plan.price_in, plan.price_out, models)

    seller = Seller(workshop, shop, plan.max_queue)
    network.serve(MARKET_PROTOCOL, seller.serve)
    await nursery.start(network.run)
    advert = Advert(NETWORK, "test", hardware, plan.jurisdiction, "somewhere", plan.price_in, plan.price_out)
    offer = draw_up_offer(advert, me, engine.models(), seller.free_slots, network.snapshot().listening, clock_ms())
    assert offer is not None
    return RunningSeller(me, engine, ledger, seller, network, offer)


@dataclass(slots=True)
class Bought:
    """What one purchase brought."""

    text: str = ""
    reasoning: str = ""
    calls: tuple[CallPiece, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    placement: Placement | None = None
    outcome: Outcome | None = None
    events: list[JobEvent] = field(default_factory=list)


async def buy(market: Marketplace, wanted: ChatOrder | None = None) -> Bought:
    """Run an order to its end; raises MarketError as the buyer does."""
    bought = Bought()
    async with market.buyer.buy(wanted or order()) as job:
        async for event in job.events():
            bought.events.append(event)
            match event:
                case Taken(placement):
                    bought.placement = placement
                case Piece():
                    bought.text += event.content
                    bought.reasoning += event.reasoning
                    bought.calls += event.calls
                    bought.logprobs += event.logprobs
                case Done(outcome):
                    bought.outcome = outcome
    return bought
