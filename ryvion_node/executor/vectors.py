"""Vectors of knowledge bases by an embedding model that this node runs itself: no text leaves the machine."""

from __future__ import annotations

from collections.abc import Sequence

from ryvion_node.engine.interface import Engine, EngineError, EngineModel
from ryvion_node.executor.embedding import lot_bytes, lots
from ryvion_node.knowledge.interface import (
    EmbeddingModelAway,
    EmbeddingRefused,
    EmbeddingUnavailable,
    Origin,
    Vectors,
)
from ryvion_protocol.messages import EMBEDDING


class LocalEmbedder:
    """Implements `Embedder`. Costs nothing, and no rule of an origin's applies, since nobody else sees the texts."""

    def __init__(self, engine: Engine, model: str | None) -> None:
        """`engine` runs models on this machine; `model` is the only one to use for new knowledge bases (None: any)."""
        self._engine = engine
        self._model = model

    async def embed(self, texts: Sequence[str], origin: Origin, model: bytes | None) -> Vectors:
        """Vectors by the model of that digest, or by the one that was configured."""
        chosen = self._choose(model)
        values = bytearray()
        try:
            for lot in lots(texts, lot_bytes(self._engine, chosen.name)):
                made = await self._engine.embed(chosen.name, lot)
                values += b"".join(made.vectors)
        except EngineError as exc:
            if exc.code == "context_overflow":
                raise EmbeddingRefused(str(exc)) from exc
            raise EmbeddingUnavailable(f"this node's own model {chosen.name} failed: {exc}") from exc
        return Vectors(chosen.digest, chosen.dimensions, bytes(values))

    def _choose(self, digest: bytes | None) -> EngineModel:
        for model in self._engine.models():
            wanted = model.digest == digest if digest is not None else self._model in (None, model.name)
            if model.kind == EMBEDDING and wanted:
                return model
        if digest is not None:
            raise EmbeddingModelAway("this node does not serve the embedding model that made the other vectors")
        raise EmbeddingUnavailable("this node serves no such embedding model")
