"""What a knowledge base is made of: plain values, and the one thing it needs from outside, vectors of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from ryvion_node.preferences import ANY_OFFER, OWNER_KEY_ID, Preferences

BlockKind = Literal["heading", "prose", "list", "table", "code"]


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of a document that is cut only when it has to be: a paragraph, a table, a function.

    Its text is `document.text[start:end]`.
    """

    kind: BlockKind
    start: int
    """In characters of the document's text."""
    end: int
    headings: tuple[str, ...] = ()
    """The headings that it stands under, outermost first."""
    page: int | None = None
    """From 1; None where the format has no pages."""


@dataclass(frozen=True, slots=True)
class DocumentText:
    """A file as text."""

    text: str
    blocks: tuple[Block, ...]
    """In the order of the text, without overlap."""
    pages: int | None = None
    warnings: tuple[str, ...] = ()
    """What could not be read, for the owner: `page 7 has no text`."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A passage to be found: `text == document.text[start:end]`, so that its hash can be made again from the file."""

    number: int
    """From 0, in the order of the document."""
    text: str
    start: int
    end: int
    headings: tuple[str, ...]
    page: int | None
    """Where it begins."""


@dataclass(frozen=True, slots=True)
class KnowledgeBase:
    """A collection of documents."""

    id: str
    """`kb_` and 24 hex digits."""
    name: str
    jurisdictions: tuple[str, ...]
    """Where its passages may be sent, ISO 3166-1 alpha-2, groups expanded; empty: anywhere."""
    key_id: str
    """The API key that made it, and pays for its vectors."""
    created_ms: int
    documents: int
    chunks: int


DocumentState = Literal["queued", "reading", "embedding", "ready", "failed"]


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A file in a knowledge base, and how far it is."""

    id: str
    """`doc_` and 24 hex digits."""
    knowledge_base: str
    filename: str
    sha256: str
    """Of the file, in hex."""
    size_bytes: int
    state: DocumentState
    pages: int | None
    chunks: int
    embedded: int
    """Chunks that have a vector; a document is `ready` without any where nobody makes vectors."""
    error: str | None
    """For a person, with the mend; set when it failed."""
    warnings: tuple[str, ...]
    created_ms: int


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk as a search finds it."""

    chunk_id: str
    """`chk_` and 24 hex digits."""
    knowledge_base: str
    document_id: str
    filename: str
    chunk: Chunk
    sha256: str
    """Of the chunk's text, in hex."""
    score: float
    """Of the fused ranking; higher is better. Comparable within one search only."""
    similarity: float
    """0 .. 1: the cosine of the vectors where there are any, else its BM25 score as a share of the best one's."""
    rank_text: int | None
    """From 1, in the BM25 ranking; None when that did not find it."""
    rank_vector: int | None


@dataclass(frozen=True, slots=True)
class Found:
    """What a search gave."""

    passages: tuple[Passage, ...]
    """Best first."""
    method: Literal["hybrid", "bm25"]
    note: str
    """Why it was no hybrid search, for a person; empty when it was."""


@dataclass(frozen=True, slots=True)
class Vectors:
    """Vectors of texts, in their order."""

    model: bytes
    """SHA-256 of the model's file: vectors of different models cannot be compared."""
    dimensions: int
    values: bytes
    """Little-endian float32, of length 1 each."""


@dataclass(frozen=True, slots=True)
class Searcher:
    """On whose behalf a search is made, so that its query goes no further than what it is for."""

    key_id: str = OWNER_KEY_ID
    """Pays for the query's vector."""
    jurisdictions: tuple[str, ...] = ()
    """Where the query may be sent; empty: anywhere that the knowledge base allows."""
    preferences: Preferences = ANY_OFFER
    """Which nodes may see it, besides those of the key."""


OWNER: Searcher = Searcher()


@dataclass(frozen=True, slots=True)
class Origin:
    """Where texts that are to become vectors come from, and the rules for them."""

    knowledge_base: str
    key_id: str
    """Pays; its own rules hold besides these."""
    jurisdictions: tuple[str, ...]
    """Where the texts may be sent; empty: anywhere."""
    passages: tuple[bytes, ...] = ()
    """The `embedding_key` of each passage that the texts are of, whole or in part; empty: they are a query."""
    preferences: Preferences = ANY_OFFER
    """Which nodes may see them."""


class EmbeddingUnavailable(Exception):
    """Nobody makes vectors now; the message says why. Searches go by words alone meanwhile."""


class EmbeddingModelAway(EmbeddingUnavailable):
    """Nobody has the model that was asked for; others there may be."""


class EmbeddingRefused(Exception):
    """The model takes one of these texts not at all, because it is too long for it; the message says so."""


class Embedder(Protocol):
    """Makes vectors of texts: the market's, or a local model's."""

    async def embed(self, texts: Sequence[str], origin: Origin, model: bytes | None) -> Vectors:
        """Vectors of 1 .. 2,048 texts, made by the rules of their origin, and by the model of that digest when one is
        given. Raises EmbeddingUnavailable, EmbeddingModelAway, EmbeddingRefused.
        """
        ...
