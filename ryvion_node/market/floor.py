"""What auctions, purchases and the offer list share: the book, the desk, the memory of broken jobs."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

import trio

from ryvion_node.engine.interface import EngineError, TokenCounter
from ryvion_node.executor.request import tools_of, turns_of
from ryvion_node.log import log_event
from ryvion_node.market.attempt import Desk
from ryvion_node.market.bidding import Bidding
from ryvion_node.market.book import OfferBook
from ryvion_node.market.constants import (
    COOLDOWN_S,
    MAX_CANDIDATES_KEPT,
    MAX_COOLDOWNS,
    MAX_DECISIONS,
    MESSAGE_OVERHEAD_TOKENS,
    TOOL_OVERHEAD_TOKENS,
    TOOLS_OVERHEAD_TOKENS,
)
from ryvion_node.market.filters import PromptLengths
from ryvion_node.market.interface import ChatOrder, EmbeddingOrder, Order, Placement
from ryvion_protocol.constants import MAX_TEXT_MARKS
from ryvion_protocol.messages import Offer
from ryvion_protocol.schema import NodeKey

log = logging.getLogger("ryvion.market.floor")


class Cooldowns:
    """Executors that broke a job lately; bounded, oldest forgotten first."""

    def __init__(self) -> None:
        self._until: dict[NodeKey, float] = {}

    def add(self, key: NodeKey, now_s: float) -> None:
        self._until.pop(key, None)
        self._until[key] = now_s + COOLDOWN_S
        while len(self._until) > MAX_COOLDOWNS:
            del self._until[next(iter(self._until))]

    def active(self, now_s: float) -> frozenset[NodeKey]:
        return frozenset(key for key, until in self._until.items() if until > now_s)


class Decisions:
    """Who ran the last jobs and why; bounded, oldest forgotten first."""

    def __init__(self) -> None:
        self._placements: dict[str, Placement] = {}

    def add(self, placement: Placement) -> None:
        """Of a large market those that were asked are kept rather than those that were not."""
        route = placement.route
        if len(route.candidates) > MAX_CANDIDATES_KEPT:
            ranked = sorted(route.candidates, key=lambda candidate: candidate.outcome in ("filtered", "not_asked"))
            placement = replace(placement, route=replace(route, candidates=tuple(ranked[:MAX_CANDIDATES_KEPT])))
        self._placements[placement.job_id] = placement
        if len(self._placements) > MAX_DECISIONS:
            del self._placements[next(iter(self._placements))]

    def get(self, job_id: str) -> Placement | None:
        return self._placements.get(job_id)


class TradingFloor:
    """One per requester."""

    def __init__(
        self,
        network_id: str,
        book: OfferBook,
        desk: Desk,
        bidding: Bidding,
        quote_peers: int,
        digests: Mapping[str, bytes],
    ) -> None:
        self.network_id = network_id
        self.desk = desk
        self.bidding = bidding
        self.quote_peers = quote_peers
        self.digests = digests
        self._book = book
        self.decisions = Decisions()
        self._cooldowns = Cooldowns()

    def offers(self) -> tuple[Offer, ...]:
        """Every live offer heard, newest first."""
        return self._book.live(self.desk.clock_ms())

    def cool_down(self, key: NodeKey) -> None:
        """Ask this executor last for a while."""
        self._cooldowns.add(key, trio.current_time())

    def cooling(self) -> frozenset[NodeKey]:
        return self._cooldowns.active(trio.current_time())

    async def prompt_lengths(self, order: Order, offers: Sequence[Offer]) -> PromptLengths:
        """The prompt's length: counted where we hold the tokenizer, else at most one token per byte."""
        counts: dict[bytes, int] = {}
        for digest in {
            m.digest for offer in offers for m in offer.models if m.name == order.model and m.kind == order.kind
        }:
            if self.desk.counter.knows(digest):
                try:
                    counts[digest] = await _count(self.desk.counter, digest, order)
                except EngineError as exc:
                    log_event(log, "prompt_not_counted", code=exc.code)
        return PromptLengths(_most_tokens(order), counts)


async def _count(counter: TokenCounter, digest: bytes, order: Order) -> int:
    if isinstance(order, EmbeddingOrder):
        return await counter.count_embedded(digest, order.texts)
    return await counter.count_prompt(digest, turns_of(order.messages), tools_of(order.tools))


def _most_tokens(order: Order) -> int:
    if isinstance(order, EmbeddingOrder):
        return sum(len(text.encode()) + MAX_TEXT_MARKS for text in order.texts)
    return _most_chat_tokens(order)


def _most_chat_tokens(order: ChatOrder) -> int:
    """A length that the prompt surely does not pass on any model: a token for each byte, and what templates add."""
    texts = [message.content for message in order.messages]
    parts = len(order.messages) + 1
    for call in (call for message in order.messages for call in message.tool_calls):
        texts += (call.id, call.name, call.arguments)
        parts += 1
    for tool in order.tools.tools:
        texts += (tool.name, tool.description, tool.parameters)
    total = sum(len(text.encode()) for text in texts) + parts * MESSAGE_OVERHEAD_TOKENS
    if order.tools.tools:
        total += TOOLS_OVERHEAD_TOKENS + len(order.tools.tools) * TOOL_OVERHEAD_TOKENS
    return total
