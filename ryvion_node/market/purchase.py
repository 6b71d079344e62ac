"""One order on its way: placed, failed over before its first token, streamed, settled."""

from __future__ import annotations

import logging
import os
import random
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Final, Generic, NoReturn, Self

from ryvion_node.ledger.errors import LedgerError
from ryvion_node.ledger.spending import AllowanceExceeded
from ryvion_node.log import log_event
from ryvion_node.market.attempt import Attempt, AttemptFailed, P
from ryvion_node.market.auction import Auction
from ryvion_node.market.bidding import LiveBid
from ryvion_node.market.constants import DEFAULT_RETRY_MS, MAX_ATTEMPTS, NOT_RECORDED_RETRY_MS
from ryvion_node.market.floor import TradingFloor
from ryvion_node.market.intake import Intake
from ryvion_node.market.interface import (
    Done,
    EmbeddingOrder,
    MarketError,
    MarketErrorCode,
    NotRecorded,
    Order,
    Placement,
    Taken,
)
from ryvion_node.market.purse import Cap, Purse, books_closed
from ryvion_node.market.terms import Randomness, Terms, draw_up
from ryvion_node.market.wanted import needed_features, wants_grammar
from ryvion_node.p2p.peer_id import peer_id_of
from ryvion_protocol.errors import ProtocolError

log = logging.getLogger("ryvion.market.purchase")

_FAULTS_OF_THE_REQUEST = ("context_overflow", "template_failed", "grammar_invalid", "unsupported")
"""What an honest executor says of an order that its model cannot take."""
_HOPELESS = ("grammar_invalid",)
"""And what the next one would say as well."""
_UNTRUE = "untrue"
"""What that counts as when nothing was asked for that needs a grammar: else a word would turn every order away."""
_LATER: Final[dict[str, MarketErrorCode]] = {"busy": "no_capacity", "rate_limited": "rate_limited"}
"""What an executor says that could take the order at another time -> what the caller is told."""


class Purchase(Generic[P]):
    """One order on its way: implements `BoughtJob` and `BoughtEmbedding`, by what `new_intake` takes in."""

    def __init__(
        self,
        floor: TradingFloor,
        order: Order,
        purse: Purse,
        cap: Cap,
        new_intake: Callable[[Terms], Intake[P]],
        release: Callable[[Attempt[P]], None],
    ) -> None:
        self._floor = floor
        self._purse = purse
        self._cap = cap
        self._new_intake = new_intake
        self._release = release
        self._order = cap.on(order)
        self._auction = Auction(floor, self._order)
        self._attempt: Attempt[P] | None = None
        self._placement: Placement | None = None
        self._tries = 0
        self._failure: AttemptFailed | None = None
        self._ready: deque[Taken | P | Done] = deque()
        self._over = False

    @property
    def placement(self) -> Placement:
        assert self._placement is not None, "the job has not been placed"
        return self._placement

    async def place(self) -> None:
        """Find an executor that takes the job; raises MarketError when none does."""
        while self._tries < MAX_ATTEMPTS:
            try:
                live = await self._auction.next_bid()
            except MarketError as exc:
                raise self._broken() if self._failure is not None else await self._explained(exc) from None
            self._tries += 1
            attempt = self._new_attempt(live)
            self._attempt = attempt
            try:
                await attempt.start()
            except AllowanceExceeded as exc:
                self._attempt = None
                self._release(attempt)
                raise await self._purse.refusal(self._order.account, exc.overrun) from exc
            except NotRecorded as exc:
                await self._keep_back(attempt, exc)
            except LedgerError as exc:
                raise books_closed(exc) from exc
            except AttemptFailed as exc:
                if await self._give_up(attempt, exc) in _HOPELESS:
                    raise self._broken() from exc
                continue
            self._placement = self._placed(attempt, live)
            self._floor.desk.tally.placed(self._placement)
            self._floor.decisions.add(self._placement)
            return
        raise self._broken()

    def events(self) -> AsyncIterator[Taken | P | Done]:
        """Taken, Piece*, Done; raises MarketError when the job breaks."""
        return self

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Taken | P | Done:
        """The next event. Not a generator: nothing is left open when the caller stops asking."""
        while not self._ready:
            if self._over:
                raise StopAsyncIteration
            await self._advance()
        return self._ready.popleft()

    async def _advance(self) -> None:
        """Take the job one step further; on to the next bidder when this one breaks and nobody was shown anything."""
        attempt = self._attempt
        assert attempt is not None  # `place` has been called
        delivered = attempt.delivered
        try:
            piece = await attempt.next_piece()
            if not delivered:
                self._ready.append(Taken(self.placement))
            if piece is not None:
                self._ready.append(piece)
                return
            outcome = await attempt.settle()
        except LedgerError as exc:
            raise books_closed(exc) from exc
        except AttemptFailed as exc:
            self._ready.clear()
            code = await self._give_up(attempt, exc)
            # Vectors are shown when all are there. Those of a job without a receipt are thrown away, and not paid for.
            shown = delivered and not isinstance(self._order, EmbeddingOrder)
            if shown or code in _HOPELESS:
                raise self._broken(after_text=shown) from exc
            await self.place()
            return
        self._attempt = None
        self._over = True
        self._release(attempt)
        if not outcome.accepted:
            self._floor.cool_down(attempt.bid.eligible.key)
        self._ready.append(Done(outcome))

    def leave(self) -> Attempt[P] | None:
        """The caller is done: hand over what still runs, to be stopped and settled."""
        attempt, self._attempt = self._attempt, None
        return attempt

    def _new_attempt(self, live: LiveBid) -> Attempt[P]:
        floor = self._floor
        randomness = Randomness(os.urandom(16), os.urandom(16), random.getrandbits(63))
        now_ms = floor.desk.clock_ms()
        identity = floor.desk.identity
        try:
            terms = draw_up(self._order, live.bid, live.packet, identity, floor.network_id, now_ms, randomness)
        except ProtocolError as exc:
            floor.bidding.release(live)
            raise MarketError("context_length_exceeded", f"the request does not fit a job: {exc}") from exc
        return Attempt(floor.desk, live, terms, self._new_intake(terms))

    async def _keep_back(self, attempt: Attempt[P], problem: NotRecorded) -> NoReturn:
        """Nothing has been sent, and nothing is."""
        self._attempt = None
        self._release(attempt)
        try:
            await attempt.record_failure("not_recorded", str(problem))
        except LedgerError as exc:
            raise books_closed(exc) from exc
        message = f"nothing was sent, since this node cannot record what leaves it: {problem}"
        raise MarketError("no_capacity", message, NOT_RECORDED_RETRY_MS) from problem

    async def _give_up(self, attempt: Attempt[P], failure: AttemptFailed) -> str:
        """Close the attempt's books; returns the code that its failure counts as."""
        key = attempt.bid.eligible.key
        self._attempt = None
        if failure.code in _HOPELESS and not wants_grammar(self._order):
            failure = AttemptFailed(f"it says what cannot be so, {failure}", code=_UNTRUE)
        self._failure = failure
        self._auction.lost(key, str(failure), failure.retry_after_ms)
        self._floor.desk.tally.broke(failure.code)
        if failure.code not in _FAULTS_OF_THE_REQUEST:
            self._floor.cool_down(key)
        log_event(log, "attempt_failed", job=attempt.terms.job_id, node=key.hex(), code=failure.code)
        self._release(attempt)
        try:
            await attempt.record_failure(failure.code, str(failure))
        except LedgerError as exc:
            raise books_closed(exc) from exc
        return failure.code

    async def _explained(self, refused: MarketError) -> MarketError:
        """That nobody is cheap enough is the key's matter when its allowance set the limit."""
        if refused.code != "price_limit" or self._cap.overrun is None:
            return refused
        return await self._purse.refusal(self._order.account, self._cap.overrun)

    def _broken(self, *, after_text: bool = False) -> MarketError:
        """What the last failure means to the caller."""
        failure = self._failure
        if failure is None:
            return MarketError("no_capacity", "no executor took the job", retry_after_ms=DEFAULT_RETRY_MS)
        said = str(failure)
        if failure.code == "context_overflow" and not after_text:
            return MarketError("context_length_exceeded", f"the executor says {said}")
        if failure.code == "grammar_invalid":
            return MarketError("grammar_invalid", f"the answer cannot be held to what was asked: {said}")
        if failure.code == "template_failed" and not after_text:
            return MarketError("prompt_refused", f"no executor's model takes what was said: {said}")
        if failure.code == "unsupported" and not after_text:
            # Whatever a peer says, only what the order asks for can be named.
            named = tuple(name for name in needed_features(self._order) if name in said)
            return MarketError("unsupported", f"no executor's model takes what was asked: {said}", features=named)
        if failure.code in _LATER and not after_text:
            message = f"no executor took the job ({said})"
            return MarketError(_LATER[failure.code], message, retry_after_ms=self._auction.retry_after_ms)
        where = "after part of the answer had been delivered" if after_text else "and no other executor could take it"
        if failure.timed_out:
            return MarketError("node_timeout", f"the executor stalled ({said}) {where}")
        return MarketError("node_failed", f"the executor failed ({said}) {where}")

    def _placed(self, attempt: Attempt[P], live: LiveBid) -> Placement:
        assert attempt.started is not None
        quote = live.bid.quote
        return Placement(
            job_id=attempt.terms.job_id,
            node_key=quote.node_key,
            peer_id=peer_id_of(quote.node_key),
            model=quote.model,
            digest=quote.digest,
            hardware=attempt.started.hardware,
            jurisdiction=attempt.started.jurisdiction,
            location=attempt.started.location,
            price_in=quote.price_in,
            price_out=quote.price_out,
            route=self._auction.explain(live, self._auction.why),
        )
