"""A sold embedding: vectors of texts, lot by lot (spec 04)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import trio

from ryvion_node.engine.interface import Engine, EngineError
from ryvion_node.executor.constants import EMBED_BYTES_PER_TOKEN, EMBED_LOT_S, EMBED_LOT_TEXTS
from ryvion_node.executor.job import SoldJob
from ryvion_node.executor.quoting import speed_of
from ryvion_node.executor.workshop import SoldTerms, Workshop
from ryvion_node.p2p.channel import JobChannel
from ryvion_protocol.constants import MAX_VECTOR_BYTES
from ryvion_protocol.errors import ProtocolError
from ryvion_protocol.messages import EMBEDDING, EmbedRequest, Finished, Vectors
from ryvion_protocol.packet import Packet, pack
from ryvion_protocol.transcript import VectorsResult


class SoldEmbedding(SoldJob):
    """One list of texts."""

    _kind: ClassVar[str] = EMBEDDING

    def __init__(
        self,
        workshop: Workshop,
        channel: JobChannel,
        terms: SoldTerms,
        request: EmbedRequest,
        turn: trio.CapacityLimiter,
    ) -> None:
        super().__init__(workshop, channel, terms, turn)
        self._texts = request.texts
        self._result = VectorsResult(len(request.texts))
        self._seq = 0

    async def _follow_engine(self, nursery: trio.Nursery) -> None:
        limit = self._terms.offer.max_prompt_tokens
        async with self._turn:
            await self._announce(limit)
            await self._recorded.wait()
            for lot in lots(self._texts, lot_bytes(self._shop.engine, self._terms.offer.model)):
                made = await self._shop.engine.embed(self._terms.offer.model, lot)
                read = self._prompt_tokens + sum(made.tokens)
                if read > limit:
                    raise EngineError("context_overflow", f"the texts have more tokens than the {limit} ordered")
                if len(made.vectors) != len(lot) or len(made.tokens) != len(lot):
                    raise EngineError("worker_crashed", "the engine made another number of vectors")
                for packet, tokens in self._frames(made.vectors, made.tokens):
                    self._prompt_tokens += tokens
                    self._note_result(packet)
                    await self._send(packet)
        self._scope.cancel()

    def _frames(self, vectors: tuple[bytes, ...], tokens: tuple[int, ...]) -> Iterator[tuple[Packet, int]]:
        """As many whole vectors as fit into each, with the tokens of their texts. Raises EngineError."""
        fit = max(MAX_VECTOR_BYTES // max(len(vectors[0]), 1), 1)
        for at in range(0, len(vectors), fit):
            values = b"".join(vectors[at : at + fit])
            try:
                message = Vectors(self._seq, self._result.count, len(vectors[0]) // 4, values)
                packet = pack(message)
                self._result.add(message)
            except ProtocolError as exc:
                raise EngineError("worker_crashed", f"the engine made no legal vectors: {exc}") from exc
            self._seq += 1
            yield packet, sum(tokens[at : at + fit])

    async def _report(self) -> Finished:
        if self._status == "cancelled":
            reason = "cancelled"
        else:
            reason = "stop" if self._result.count == len(self._texts) else "length"  # the order's time was up
        return Finished(reason, self._prompt_tokens, 0)

    def _result_hash(self) -> bytes:
        return self._result.digest


def lot_bytes(engine: Engine, name: str) -> int:
    """What the model reads in a moment, so that others get their turn."""
    speed = next((speed_of(model) for model in engine.models() if model.name == name), 0)
    return int(speed / 1000 * EMBED_LOT_S * EMBED_BYTES_PER_TOKEN)


def lots(texts: Sequence[str], max_bytes: int) -> Iterator[tuple[str, ...]]:
    """The texts in order, in lots of few and short ones; a text longer than `max_bytes` goes alone."""
    lot: list[str] = []
    length = 0
    for text in texts:
        size = len(text.encode())
        if lot and (length + size > max_bytes or len(lot) == EMBED_LOT_TEXTS):
            yield tuple(lot)
            lot, length = [], 0
        lot.append(text)
        length += size
    if lot:
        yield tuple(lot)
