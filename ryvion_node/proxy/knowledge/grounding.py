"""Orders with passages of a knowledge base in their prompts, and what their answers say of that (ADR 0023).

The knowledge base's places, the request's and the key's are intersected before anything is searched, since already
the query may go to a node that makes its vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ryvion_node.jurisdictions import common
from ryvion_node.knowledge.grounding import grounded
from ryvion_node.knowledge.interface import Found, KnowledgeBase, Passage, Searcher
from ryvion_node.knowledge.records import DisclosedChunk, Disclosure
from ryvion_node.market.interface import ChatOrder, Market
from ryvion_node.market.vectors import recording
from ryvion_node.preferences import Preferences
from ryvion_node.proxy.access import Caller, require
from ryvion_node.proxy.constants import GROUNDING_PASSAGES
from ryvion_node.proxy.dialect import Asked
from ryvion_node.proxy.errors import ApiError
from ryvion_node.proxy.knowledge.service import Knowledge
from ryvion_node.proxy.knowledge.shapes import source_json
from ryvion_node.proxy.knowledge.shared import opened, told

PARAM = "knowledge_base"


@dataclass(frozen=True, slots=True)
class Ground:
    """An order as it is bought, and what the `ryvion` object of its answer says besides."""

    order: ChatOrder
    about: dict[str, object] = field(default_factory=dict)


class Grounding:
    """One for all endpoints that sell answers."""

    def __init__(self, market: Market, knowledge: Knowledge | None) -> None:
        self._market = market
        self._knowledge = knowledge

    async def of(self, asked: Asked, orders: Sequence[ChatOrder], caller: Caller) -> list[Ground]:
        """The orders with what their knowledge base has on each; as they are when the request names none.

        Raises ApiError.
        """
        base_id = asked.chats[0].knowledge_base
        if base_id is None:
            return [Ground(order) for order in orders]
        require(caller, "search_knowledge_bases")
        knowledge = opened(self._knowledge)
        with told(PARAM):
            base = await knowledge.store.knowledge_base(base_id)
            bound = [_bound(order, base, caller) for order in orders]
            return [await self._ground(order, asked.question(order), base, caller, knowledge) for order in bound]

    async def _ground(
        self, order: ChatOrder, question: str, base: KnowledgeBase, caller: Caller, knowledge: Knowledge
    ) -> Ground:
        wanted = order.preferences
        nodes = Preferences(
            max_price=order.max_price, allow=wanted.allow, deny=wanted.deny, min_assurance=wanted.min_assurance
        )
        searcher = Searcher(caller.id, order.jurisdictions, nodes)
        found = await knowledge.search.search(base.id, question, GROUNDING_PASSAGES, None, searcher)
        passages = await self._fitting(order, found.passages)
        carrying = _carrying(order, passages)
        if passages:
            record = recording(knowledge.store, _draft(order, base, passages), knowledge.clock_ms)
            carrying = replace(carrying, witness=record)
        return Ground(carrying, _about(base, found, passages))

    async def _fitting(self, order: ChatOrder, passages: tuple[Passage, ...]) -> tuple[Passage, ...]:
        """Those that leave room for an answer, the best first; one that is too long lets a shorter one in its place.

        When none does, the best stays, and the market says what is in the way.
        """
        if not passages or await self._market.fits(_carrying(order, passages)):
            return passages
        chosen: tuple[Passage, ...] = ()
        for passage in passages:
            if await self._market.fits(_carrying(order, (*chosen, passage))):
                chosen = (*chosen, passage)
        return chosen or passages[:1]


def _bound(order: ChatOrder, base: KnowledgeBase, caller: Caller) -> ChatOrder:
    """The order within the places of the knowledge base and the assurance that its key asks for; raises ApiError."""
    places = common(order.jurisdictions, base.jurisdictions)
    if places is None:
        problem = (
            f"This knowledge base stays in {', '.join(base.jurisdictions)}; "
            f"the request and its key allow {', '.join(order.jurisdictions)} only."
        )
        raise ApiError("jurisdiction_not_allowed", problem, param=PARAM)
    if caller.knowledge_assurance == "never":
        problem = (
            "This key sends passages of knowledge bases to no node; its owner can change that: "
            f"ryvion-node keys set {caller.id} --knowledge-assurance signed. Searches work."
        )
        raise ApiError("preferences_not_met", problem, param=PARAM)
    preferences = order.preferences.within(Preferences(min_assurance=caller.knowledge_assurance))
    return replace(order, jurisdictions=places, preferences=preferences)


def _carrying(order: ChatOrder, passages: Sequence[Passage]) -> ChatOrder:
    hashes = tuple(bytes.fromhex(passage.sha256) for passage in passages)
    return replace(order, messages=grounded(order.messages, passages), chunk_hashes=hashes)


def _draft(order: ChatOrder, base: KnowledgeBase, passages: Sequence[Passage]) -> Disclosure:
    """For the record, without who gets it."""
    return Disclosure(
        job_id="",
        completion_id=order.account.completion_id,
        knowledge_base=base.id,
        node_key=b"",
        jurisdiction="",
        purpose="prompt",
        at_ms=0,
        chunks=tuple(DisclosedChunk(passage.chunk_id, passage.sha256) for passage in passages),
    )


def _about(base: KnowledgeBase, found: Found, passages: Sequence[Passage]) -> dict[str, object]:
    return {
        "knowledge_base": base.id,
        "sources": [source_json(number, passage) for number, passage in enumerate(passages, start=1)],
        "search": {
            "method": found.method,
            "note": found.note,
            "left_out": len(found.passages) - len(passages),
        },
    }
