"""Vectors of knowledge bases, bought as embedding jobs; and how that goes together with a model of one's own.

Whatever leaves is put on record first, with the node that gets it. An API key pays, and its rules hold besides those
of the texts' origin: places, nodes, prices, assurance.
"""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final, Protocol

from ryvion_node.errors import OperatorError
from ryvion_node.jurisdictions import common
from ryvion_node.keys import ApiKey
from ryvion_node.knowledge.errors import KnowledgeError
from ryvion_node.knowledge.interface import (
    Embedder,
    EmbeddingModelAway,
    EmbeddingRefused,
    EmbeddingUnavailable,
    Origin,
    Vectors,
)
from ryvion_node.knowledge.records import DisclosedChunk, Disclosure
from ryvion_node.log import log_event
from ryvion_node.market.collecting import Embedded, collect
from ryvion_node.market.interface import (
    Account,
    EmbeddingOrder,
    Market,
    MarketError,
    NotRecorded,
    Recipient,
    Witness,
)
from ryvion_node.preferences import Assurance, Preferences
from ryvion_protocol.messages import EMBEDDING

log = logging.getLogger("ryvion.market.vectors")

EMBEDDING_PREFIX: Final = "embd-"
"""Begins the ids of embeddings, whoever asked for them."""


class Disclosures(Protocol):
    """The record of what leaves this machine; `KnowledgeStore` implements it. Raises KnowledgeError."""

    async def record_disclosure(self, disclosure: Disclosure) -> None: ...

    async def embedded_chunks(
        self, knowledge_base: str, texts_sha256: Sequence[bytes]
    ) -> tuple[DisclosedChunk, ...]: ...


class MarketEmbedder:
    """Implements `Embedder` by embedding jobs."""

    def __init__(
        self,
        market: Market,
        find_key: Callable[[str], ApiKey | None],
        disclosures: Disclosures,
        clock_ms: Callable[[], int],
        model: str | None,
        digests: Mapping[str, bytes] | None = None,
    ) -> None:
        """`model`: the only one to use for new knowledge bases (None: the one that most nodes offer). `digests`: model
        names whose file is known, so that nothing else is bought under them.
        """
        self._market = market
        self._find_key = find_key
        self._disclosures = disclosures
        self._clock_ms = clock_ms
        self._model = model
        self._digests = digests or {}

    async def embed(self, texts: Sequence[str], origin: Origin, model: bytes | None) -> Vectors:
        """One job; raises EmbeddingUnavailable for whatever stands in its way."""
        order = await self._order(tuple(texts), origin, model)
        try:
            async with self._market.embed(order) as job:
                ended = await collect(job)
        except MarketError as error:
            ended = error
        match ended:
            case Embedded() if ended.outcome.accepted:
                return Vectors(ended.placement.digest, ended.dimensions, ended.values)
            case Embedded():
                raise EmbeddingUnavailable(f"the receipt of the vectors did not pass: job {ended.placement.job_id}")
            case MarketError(code="context_length_exceeded"):
                raise EmbeddingRefused(str(ended)) from ended
            case MarketError():
                raise EmbeddingUnavailable(str(ended)) from ended
            case _:
                log_event(log, "embedding_failed", level=logging.ERROR, error=type(ended).__name__)
                raise EmbeddingUnavailable("this node failed on it; its log has more") from ended

    async def _order(self, texts: tuple[str, ...], origin: Origin, model: bytes | None) -> EmbeddingOrder:
        key = self._payer(origin)
        places = common(origin.jurisdictions, key.jurisdictions)
        if places is None:
            raise EmbeddingUnavailable(
                f"they may be sent to {', '.join(origin.jurisdictions)} only, and the key {key.id} that pays for them "
                f"buys in {', '.join(key.jurisdictions)} only"
            )
        rules = Preferences(min_assurance=self._assurance(origin, key)).within(origin.preferences)
        rules = rules.within(key.preferences)
        name, digest = self._choose(places, rules, model)
        preferences = Preferences(digests=frozenset((digest,))).within(rules)
        completion_id = f"{EMBEDDING_PREFIX}{secrets.token_hex(16)}"
        return EmbeddingOrder(
            model=name,
            texts=texts,
            jurisdictions=places,
            max_price=preferences.max_price,
            preferences=preferences,
            account=Account(key.id, completion_id, key.limits.allowance),
            witness=await self._witness(origin, completion_id),
        )

    def _payer(self, origin: Origin) -> ApiKey:
        try:
            key = self._find_key(origin.key_id)
        except OperatorError as exc:
            raise EmbeddingUnavailable(f"the API keys cannot be read: {exc}") from exc
        if key is None:
            raise EmbeddingUnavailable(
                f"the API key {origin.key_id} that pays for them was revoked; make another knowledge base with a key"
            )
        return key

    @staticmethod
    def _assurance(origin: Origin, key: ApiKey) -> Assurance:
        """That of the key; raises EmbeddingUnavailable when it sends passages to nobody."""
        if not origin.passages:
            return "signed"
        if key.knowledge_assurance == "never":
            raise EmbeddingUnavailable(
                f"the key {key.id} sends passages to no node; serve an embedding model on this one, or allow it: "
                f"ryvion-node keys set {key.id} --knowledge-assurance signed"
            )
        return key.knowledge_assurance

    def _choose(self, places: tuple[str, ...], rules: Preferences, digest: bytes | None) -> tuple[str, bytes]:
        """Name and file to ask for: of those on offer there, the one that most nodes have, then the cheapest.

        A seller that does not know its file's digest does not count: nobody could tell whose vectors those are. Nor does
        one with another file under the name of a known one, from which the market buys nothing.
        """
        nodes: Counter[tuple[str, bytes]] = Counter()
        price: dict[tuple[str, bytes], int] = {}
        for offer in self._market.offers():
            barred = offer.node_key in rules.deny or (rules.allow is not None and offer.node_key not in rules.allow)
            if barred or (places and offer.jurisdiction not in places):
                continue
            for model in offer.models:
                wanted = model.digest == digest if digest is not None else self._model in (None, model.name)
                is_known = any(model.digest) and self._digests.get(model.name, model.digest) == model.digest
                if model.kind == EMBEDDING and is_known and wanted:
                    nodes[model.name, model.digest] += 1
                    price[model.name, model.digest] = min(model.price_in, price.get((model.name, model.digest), 2**63))
        if not nodes:
            where = f" in {', '.join(places)}" if places else ""
            problem = f"no node{where} offers {self._wanted(digest)} now"
            raise EmbeddingUnavailable(problem) if digest is None else EmbeddingModelAway(problem)
        return min(nodes, key=lambda one: (-nodes[one], price[one], one))

    def _wanted(self, digest: bytes | None) -> str:
        if digest is not None:
            return f"the embedding model {digest.hex()[:12]} that made the other vectors"
        return "an embedding model" if self._model is None else f"the embedding model {self._model}"

    async def _witness(self, origin: Origin, completion_id: str) -> Witness:
        chunks: tuple[DisclosedChunk, ...] = ()
        if origin.passages:
            try:
                chunks = await self._disclosures.embedded_chunks(origin.knowledge_base, origin.passages)
            except KnowledgeError as exc:
                raise EmbeddingUnavailable(str(exc)) from exc
            if len(chunks) < len(origin.passages):
                raise EmbeddingUnavailable("some of them were deleted meanwhile")
        draft = Disclosure(
            job_id="",
            completion_id=completion_id,
            knowledge_base=origin.knowledge_base,
            node_key=b"",
            jurisdiction="",
            purpose="embedding" if origin.passages else "query",
            at_ms=0,
            chunks=chunks,
        )
        return recording(self._disclosures, draft, self._clock_ms)


def recording(disclosures: Disclosures, draft: Disclosure, clock_ms: Callable[[], int]) -> Witness:
    """Puts `draft` on record for each node that is about to get it."""

    async def record(recipient: Recipient) -> None:
        try:
            await disclosures.record_disclosure(
                replace(
                    draft,
                    job_id=recipient.job_id,
                    node_key=recipient.node_key,
                    jurisdiction=recipient.jurisdiction,
                    at_ms=clock_ms(),
                )
            )
        except KnowledgeError as exc:
            raise NotRecorded(str(exc)) from exc

    return record


class FirstAvailable:
    """Implements `Embedder` by the first of several that makes vectors now."""

    def __init__(self, *embedders: Embedder) -> None:
        self._embedders = embedders

    async def embed(self, texts: Sequence[str], origin: Origin, model: bytes | None) -> Vectors:
        """As the others; what the last one says when none does."""
        problem = EmbeddingUnavailable("this node serves no embedding model, and [knowledge] buy_vectors is off")
        for embedder in self._embedders:
            try:
                return await embedder.embed(texts, origin, model)
            except EmbeddingUnavailable as exc:
                problem = exc
        raise problem
