"""Knowledge bases, documents, results and disclosures as JSON; and the bodies that make and search them."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ryvion_node.knowledge.constants import MAX_FILTER_DOCUMENTS, MAX_RESULTS
from ryvion_node.knowledge.interface import Found, KnowledgeBase, Passage, StoredDocument
from ryvion_node.knowledge.records import Disclosure, Outcome
from ryvion_node.p2p.peer_id import peer_id_of
from ryvion_node.proxy.shapes import StringOrList
from ryvion_node.proxy.validation import api_error
from ryvion_protocol.schema import NodeKey


class Body(BaseModel):
    """Of requests that are this node's own: a key that is not known is refused, since `jurisdicton` must not mean anywhere."""

    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True)


class KnowledgeBaseRequest(Body):
    """Body of POST /api/v1/knowledge-bases."""

    name: str
    jurisdiction: StringOrList | None = None
    """Where its passages may be sent, for good; left out: where the key may buy."""


class SearchRequest(Body):
    """Body of POST /api/v1/knowledge-bases/{id}/search."""

    query: Annotated[str, Field(min_length=1)]
    limit: Annotated[int, Field(ge=1, le=MAX_RESULTS)] = 5
    documents: Annotated[list[str], Field(min_length=1, max_length=MAX_FILTER_DOCUMENTS)] | None = None
    """Look in these only."""


BodyT = TypeVar("BodyT", bound=Body)


def parsed(kind: type[BodyT], body: bytes) -> BodyT:
    """A body as its type; raises ApiError with the path of the first thing that is wrong."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as exc:
        raise api_error(exc) from None


def base_json(base: KnowledgeBase) -> dict[str, object]:
    """A knowledge base."""
    return {
        "object": "knowledge_base",
        "id": base.id,
        "name": base.name,
        "jurisdiction": ",".join(base.jurisdictions) or None,
        "key_id": base.key_id,
        "created": base.created_ms // 1000,
        "documents": base.documents,
        "chunks": base.chunks,
    }


def document_json(document: StoredDocument, outcome: Outcome | None = None) -> dict[str, object]:
    """A document, and what became of it when it was uploaded."""
    shown: dict[str, object] = {
        "object": "knowledge_base.document",
        "id": document.id,
        "knowledge_base": document.knowledge_base,
        "filename": document.filename,
        "sha256": document.sha256,
        "size_bytes": document.size_bytes,
        "state": document.state,
        "pages": document.pages,
        "chunks": document.chunks,
        "embedded": document.embedded,
        "error": document.error,
        "warnings": list(document.warnings),
        "created": document.created_ms // 1000,
    }
    return shown if outcome is None else shown | {"outcome": outcome}


def list_json(data: list[dict[str, object]], *, has_more: bool = False) -> dict[str, object]:
    """A list, whole or a page of it."""
    return {"object": "list", "data": data, "has_more": has_more}


def deleted_json(identity: str, kind: str) -> dict[str, object]:
    """What is left of something."""
    return {"id": identity, "object": f"{kind}.deleted", "deleted": True}


def found_json(found: Found) -> dict[str, object]:
    """The results of a search."""
    results = [
        {
            "chunk_id": passage.chunk_id,
            "content": passage.chunk.text,
            "similarity": passage.similarity,
            "score": passage.score,
            "metadata": _place(passage),
        }
        for passage in found.passages
    ]
    return {"object": "list", "results": results, "method": found.method, "note": found.note}


def source_json(number: int, passage: Passage) -> dict[str, object]:
    """A passage that an answer was grounded in, by its number in the prompt; not its text, which stays here."""
    return {
        "number": number,
        "chunk_id": passage.chunk_id,
        **_place(passage),
        "score": passage.score,
        "similarity": passage.similarity,
    }


def _place(passage: Passage) -> dict[str, object]:
    return {
        "document_id": passage.document_id,
        "filename": passage.filename,
        "page": passage.chunk.page,
        "start": passage.chunk.start,
        "end": passage.chunk.end,
        "headings": list(passage.chunk.headings),
        "sha256": passage.sha256,
    }


def disclosure_json(disclosure: Disclosure) -> dict[str, object]:
    """What one job carried away, and to whom."""
    node_key = NodeKey(disclosure.node_key)
    return {
        "object": "ryvion.disclosure",
        "job_id": disclosure.job_id,
        "completion_id": disclosure.completion_id,
        "knowledge_base": disclosure.knowledge_base,
        "node_id": node_key.hex(),
        "peer_id": peer_id_of(node_key),
        "jurisdiction": disclosure.jurisdiction,
        "purpose": disclosure.purpose,
        "created": disclosure.at_ms // 1000,
        "chunks": [{"chunk_id": chunk.chunk_id, "sha256": chunk.sha256} for chunk in disclosure.chunks],
    }
