"""What goes into the store and comes out of it, beside the values of `interface.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ryvion_node.knowledge.interface import StoredDocument

Outcome = Literal["added", "replacing", "unchanged", "duplicate"]
"""Of adding a file. `replacing`: the older file of that name stays until this one is ready; `unchanged`: this very file
is there under this name; `duplicate`: it is there under another name, and was not added again."""
Purpose = Literal["prompt", "embedding", "query"]
"""A query has no passages: what left is the question that was searched for."""


@dataclass(frozen=True, slots=True)
class Added:
    """What became of a file that was handed in."""

    outcome: Outcome
    document: StoredDocument
    """The new one, or the one that was there."""


@dataclass(frozen=True, slots=True)
class DisclosedChunk:
    """A passage that left this machine."""

    chunk_id: str
    sha256: str
    """Of its text, in hex."""


@dataclass(frozen=True, slots=True)
class Disclosure:
    """What one job carried away from one knowledge base."""

    job_id: str
    completion_id: str
    """Of the answer, or of the embedding, that it was part of."""
    knowledge_base: str
    node_key: bytes
    """Whom it went to."""
    jurisdiction: str
    """Where that node says it is."""
    purpose: Purpose
    at_ms: int
    chunks: tuple[DisclosedChunk, ...]


@dataclass(frozen=True, slots=True)
class BaseIndex:
    """What a search and the ingest need to know of a knowledge base."""

    number: int
    """Names its index tables."""
    id: str
    key_id: str
    """Pays for its vectors."""
    jurisdictions: tuple[str, ...]
    model: bytes | None
    """Whose vectors it has: SHA-256 of the model's file; None as long as there are none."""
    dimensions: int
    """0 without a model."""
    chunks: int

    @property
    def vector_bytes(self) -> int:
        """Of each of its vectors, as they are kept: in float32."""
        return self.dimensions * 4


@dataclass(frozen=True, slots=True)
class Work:
    """A document that is not through yet."""

    number: int
    filename: str
    base: BaseIndex


@dataclass(frozen=True, slots=True)
class WaitingText:
    """A passage without a vector."""

    key: bytes
    """SHA-256 of `text`."""
    text: str
    """What a vector is made of."""


@dataclass(frozen=True, slots=True)
class MadeVectors:
    """What a model made of texts."""

    model: bytes
    dimensions: int
    vectors: tuple[tuple[bytes, bytes], ...]
    """(SHA-256 of the text, vector)."""
