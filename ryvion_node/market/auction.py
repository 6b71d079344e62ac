"""The candidates of one order, asked in batches until one of them runs the job."""

from __future__ import annotations

import os
import random
from dataclasses import replace

import trio

from ryvion_node.market.bidding import LiveBid, Round
from ryvion_node.market.constants import DEFAULT_RETRY_MS, MAX_QUOTE_ROUNDS, MIN_RETRY_MS
from ryvion_node.market.filters import Eligible, candidate, refuse, shortlist
from ryvion_node.market.floor import TradingFloor
from ryvion_node.market.interface import Candidate, MarketError, Order, Route
from ryvion_node.market.selection import ask_order, choose, explain_bids
from ryvion_protocol.schema import NodeKey


class Auction:
    """The candidates of one order, asked in batches; every bidder is tried at most once."""

    def __init__(self, floor: TradingFloor, order: Order) -> None:
        self._floor = floor
        self._order = order
        self._queue: list[Eligible] | None = None
        self._lines: list[Candidate] = []
        self._started_at = trio.current_time()
        self._rounds = 0
        self._retry_after_ms: list[int] = []
        """When executors that had no room said to come again."""
        self.why = ""

    async def next_bid(self) -> LiveBid:
        """The best bid among the executors not tried yet; raises MarketError when there is none."""
        if self._queue is None:
            self._queue = await self._shortlist()
        while self._queue and self._rounds < MAX_QUOTE_ROUNDS:
            self._rounds += 1
            asked, self._queue = self._queue[: self._floor.quote_peers], self._queue[self._floor.quote_peers :]
            result = await self._floor.bidding.hold_round(asked, self._order, os.urandom(16))
            self._floor.desk.tally.asked(len(result.bids), result.lines)
            self._retry_after_ms += result.retry_after_ms
            again = {eligible.key for eligible in asked}
            self._lines = [line for line in self._lines if line.node_key not in again] + result.lines
            if result.bids:
                return self._pick(result)
            for line in result.lines:
                # The whole round was lost to them: the next order asks others first.
                if line.outcome in ("no_answer", "unreachable"):
                    self._floor.cool_down(line.node_key)
        raise self._nobody_left()

    def _pick(self, result: Round) -> LiveBid:
        scored, self.why = choose([live.bid for live in result.bids], self._order)
        winner = next(live for live in result.bids if live.bid is scored[0][0])
        losers = [live for live in result.bids if live is not winner]
        for live in losers:
            self._floor.bidding.release(live)
        # Losers, and those that were too slow, may be asked again if the winner breaks.
        assert self._queue is not None
        self._queue = [live.bid.eligible for live in losers] + result.late + self._queue
        self._lines = [line for line in self._lines if line.outcome not in ("won", "bid")]
        self._lines = explain_bids(scored, self._order, self.why) + self._lines
        return winner

    async def _shortlist(self) -> list[Eligible]:
        floor = self._floor
        offers = floor.offers()
        lengths = await floor.prompt_lengths(self._order, offers)
        digest = floor.digests.get(self._order.model)
        short = shortlist(offers, self._order, floor.desk.identity.public_key, lengths, digest)
        self._lines += short.filtered
        if not short.eligible:
            raise refuse(self._order, offers, short)
        cooling = floor.cooling()
        return ask_order(short.eligible, self._order, cooling, floor.quote_peers, random.random())

    def _nobody_left(self) -> MarketError:
        reasons = "; ".join(
            f"{line.peer_id[-8:]}: {line.reason}"
            for line in self._lines
            if line.outcome not in ("filtered", "won", "bid")
        )
        message = f"no executor took the job ({reasons})" if reasons else "no executor took the job"
        return MarketError("no_capacity", message, retry_after_ms=self.retry_after_ms)

    @property
    def retry_after_ms(self) -> int:
        """When the first of the executors that had no room may have some."""
        return max(min(self._retry_after_ms, default=DEFAULT_RETRY_MS), MIN_RETRY_MS)

    def explain(self, winner: LiveBid | None, explanation: str) -> Route:
        asked = {line.node_key for line in self._lines}
        waiting = [
            candidate(e.offer, e.model, "not_asked", "ranked behind those asked")
            for e in self._queue or ()
            if e.key not in asked
        ]
        return Route(
            model=self._order.model,
            jurisdictions=self._order.jurisdictions,
            sort=self._order.preferences.ranking,
            candidates=(*self._lines, *waiting),
            winner=winner.bid.eligible.key if winner else None,
            explanation=explanation,
            decided_ms=round((trio.current_time() - self._started_at) * 1000),
        )

    def lost(self, key: NodeKey, reason: str, retry_after_ms: int) -> None:
        """Note that the winner broke the job before its first token, and when it says to come again (0: it does not)."""
        if retry_after_ms:
            self._retry_after_ms.append(retry_after_ms)
        self._lines = [
            replace(line, outcome="refused", reason=reason) if line.node_key == key else line for line in self._lines
        ]
