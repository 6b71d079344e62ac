"""An embedder for tests and for trying things out: vectors of words, made here, always the same."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence

from ryvion_node.knowledge.interface import EmbeddingModelAway, EmbeddingRefused, EmbeddingUnavailable, Origin, Vectors
from ryvion_node.knowledge.vectors import packed


class WordEmbedder:
    """Counts words in as many buckets as a vector has numbers: texts that share words have a large cosine.

    It can be switched off, and it remembers what it was asked.
    """

    def __init__(self, model: bytes = b"\x01" * 32, dimensions: int = 64) -> None:
        self.model = model
        self.dimensions = dimensions
        self.unavailable = ""
        """Why it makes none, when it does not."""
        self.longest_chars: int | None = None
        """Of a text; longer ones are refused."""
        self.asked: list[tuple[tuple[str, ...], tuple[str, ...], bytes | None]] = []
        """(texts, jurisdictions, model) of each request that it served."""
        self.origins: list[Origin] = []
        """Of the same."""

    async def embed(self, texts: Sequence[str], origin: Origin, model: bytes | None) -> Vectors:
        if self.unavailable:
            raise EmbeddingUnavailable(self.unavailable)
        if model not in (None, self.model):
            raise EmbeddingModelAway("nobody offers that model")
        if self.longest_chars is not None and any(len(text) > self.longest_chars for text in texts):
            raise EmbeddingRefused(f"a text has more than {self.longest_chars} characters")
        self.asked.append((tuple(texts), origin.jurisdictions, model))
        self.origins.append(origin)
        return Vectors(self.model, self.dimensions, packed([self._vector(text) for text in texts]))

    def _vector(self, text: str) -> list[float]:
        counts = [0.0] * self.dimensions
        for word in re.findall(r"\w+", text.casefold()) or [""]:
            digest = hashlib.sha256(self.model + word.encode("utf-8", "replace")).digest()
            counts[int.from_bytes(digest[:4]) % self.dimensions] += 1.0
        length = math.sqrt(sum(count * count for count in counts))
        return [count / length for count in counts]
