"""The requester: implements `Market` over the network (spec 04)."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import trio

from ryvion_node.ledger.errors import LedgerError
from ryvion_node.log import log_event
from ryvion_node.market.attempt import Attempt, Desk, P
from ryvion_node.market.auction import Auction
from ryvion_node.market.bidding import Bidding
from ryvion_node.market.book import OfferBook
from ryvion_node.market.constants import MAX_BACKGROUND_SETTLEMENTS
from ryvion_node.market.filters import has_room, shortlist
from ryvion_node.market.floor import TradingFloor
from ryvion_node.market.intake import ChatIntake, Intake, VectorIntake
from ryvion_node.market.interface import (
    ChatOrder,
    EmbeddingOrder,
    MarketError,
    Order,
    Piece,
    Placement,
    Route,
    VectorsPiece,
)
from ryvion_node.market.purchase import Purchase
from ryvion_node.market.purse import Purse
from ryvion_node.market.terms import Terms
from ryvion_node.p2p.interface import Network
from ryvion_protocol.messages import EmbedRequest, JobOffer, JobRequest, Offer

log = logging.getLogger("ryvion.market.buyer")


class Buyer:
    """Places orders. Everything that outlives one order runs in the nursery it was given."""

    def __init__(
        self,
        network: Network,
        network_id: str,
        book: OfferBook,
        desk: Desk,
        quote_peers: int,
        nursery: trio.Nursery,
        *,
        max_price: int | None = None,
        digests: Mapping[str, bytes] | None = None,
    ) -> None:
        """`max_price`: most micro-credits that any one job may cost; an order may only lower it. `digests`: model
        names whose file is known, so that nothing else is bought under them.
        """
        bidding = Bidding(network, network_id, nursery, desk.clock_ms)
        self._floor = TradingFloor(network_id, book, desk, bidding, quote_peers, digests or {})
        self._nursery = nursery
        self._purse = Purse(desk.ledger, desk.clock_ms, max_price)
        self._settling = 0

    def placement(self, job_id: str) -> Placement | None:
        """Who ran a job of late, and why."""
        return self._floor.decisions.get(job_id)

    def offers(self) -> tuple[Offer, ...]:
        """Every live offer heard, newest first."""
        return self._floor.offers()

    async def route(self, order: Order) -> Route:
        """Hold the quote round and explain the choice, without running a job."""
        cap = await self._purse.cap(order)
        auction = Auction(self._floor, cap.on(order))
        try:
            live = await auction.next_bid()
        except MarketError as exc:
            return auction.explain(None, str(exc))
        self._floor.bidding.release(live)
        return auction.explain(live, auction.why)

    async def fits(self, order: ChatOrder) -> bool:
        """Has any executor that may run it room for the prompt and an answer?"""
        floor = self._floor
        offers = floor.offers()
        lengths = await floor.prompt_lengths(order, offers)
        short = shortlist(offers, order, floor.desk.identity.public_key, lengths, floor.digests.get(order.model))
        return any(has_room(eligible, order.max_completion_tokens) for eligible in short.eligible)

    def buy(self, order: ChatOrder) -> AbstractAsyncContextManager[Purchase[Piece]]:
        """Place a job: entering returns once an executor accepted it; leaving stops and settles what still runs."""
        return self._place(order, _chat_intake)

    def embed(self, order: EmbeddingOrder) -> AbstractAsyncContextManager[Purchase[VectorsPiece]]:
        """As `buy`, for vectors."""
        return self._place(order, _vector_intake)

    @asynccontextmanager
    async def _place(self, order: Order, new_intake: Callable[[Terms], Intake[P]]) -> AsyncIterator[Purchase[P]]:
        cap = await self._purse.cap(order)
        purchase = Purchase(self._floor, order, self._purse, cap, new_intake, self._release)
        try:
            await purchase.place()
            yield purchase
        finally:
            attempt = purchase.leave()
            if attempt is not None:
                self._nursery.start_soon(self._stop_and_settle, attempt)

    def _release(self, attempt: Attempt[P]) -> None:
        """Close a finished attempt's stream, off the caller's path."""
        self._nursery.start_soon(attempt.close)

    async def _stop_and_settle(self, attempt: Attempt[P]) -> None:
        """Nobody reads the answer any more: cancel, and settle what was delivered."""
        self._settling += 1
        try:
            if self._settling <= MAX_BACKGROUND_SETTLEMENTS:
                outcome = await attempt.cancel("client_gone")
                if attempt.ordered and (outcome is None or not outcome.accepted):
                    self._floor.cool_down(attempt.bid.eligible.key)
            else:
                await attempt.record_failure("not_settled", "too many cancelled jobs are being settled")
        except LedgerError as exc:
            log_event(log, "not_settled", job=attempt.terms.job_id, reason=str(exc))
        finally:
            self._settling -= 1
            await attempt.close()


def _chat_intake(terms: Terms) -> ChatIntake:
    order, request = terms.job_offer.message, terms.job_request.message
    assert isinstance(order, JobOffer)
    assert isinstance(request, JobRequest)
    return ChatIntake(request, order.max_completion_tokens)


def _vector_intake(terms: Terms) -> VectorIntake:
    request = terms.job_request.message
    assert isinstance(request, EmbedRequest)
    return VectorIntake(request)
