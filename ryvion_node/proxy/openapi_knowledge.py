"""Schemas of what is answered about knowledge bases, and of uploads, for the endpoint's OpenAPI description."""

from __future__ import annotations

from typing import Final, get_args

from ryvion_node.knowledge.interface import DocumentState
from ryvion_node.knowledge.records import Outcome, Purpose
from ryvion_node.proxy.openapi_answers import (
    BOOLEAN,
    COUNT,
    INTEGER,
    TEXT,
    Schema,
    constant,
    list_schema,
    object_schema,
    or_null,
    ref,
)

_NUMBER: Final[Schema] = {"type": "number"}
_METHOD: Final[dict[str, Schema]] = {
    "method": {"enum": ["hybrid", "bm25"]},
    "note": TEXT | {"description": "Why it went by words alone; empty when it did not."},
}
_PLACE: Final[dict[str, Schema]] = {
    "document_id": TEXT,
    "filename": TEXT,
    "page": or_null(COUNT),
    "start": COUNT | {"description": "In characters of the document's text, as `end`."},
    "end": COUNT,
    "headings": list_schema(TEXT),
    "sha256": TEXT | {"description": "Of the passage's text, in hex."},
}


def _page(of: str) -> Schema:
    return object_schema(
        "A list, or a page of it.", object=constant("list"), data=list_schema(ref(of)), has_more=BOOLEAN
    )


KNOWLEDGE: Final[dict[str, Schema]] = {
    "KnowledgeBase": object_schema(
        "A collection of documents.",
        object=constant("knowledge_base"),
        id=TEXT,
        name=TEXT,
        jurisdiction=or_null(TEXT | {"description": "Countries with commas between them; null: anywhere."}),
        key_id=TEXT | {"description": "The key that made it, and pays for its vectors."},
        created=INTEGER,
        documents=COUNT,
        chunks=COUNT,
    ),
    "KnowledgeBaseList": _page("KnowledgeBase"),
    "Document": object_schema(
        "A file, and how far it is.",
        {"outcome": {"enum": list(get_args(Outcome)), "description": "Of an upload."}},
        object=constant("knowledge_base.document"),
        id=TEXT,
        knowledge_base=TEXT,
        filename=TEXT,
        sha256=TEXT,
        size_bytes=COUNT,
        state={"enum": list(get_args(DocumentState))},
        pages=or_null(COUNT),
        chunks=COUNT,
        embedded=COUNT | {"description": "Of these, those that have a vector."},
        error=or_null(TEXT),
        warnings=list_schema(TEXT),
        created=INTEGER,
    ),
    "DocumentList": _page("Document"),
    "Upload": object_schema(
        "Files; other parts are passed over.",
        file={
            "type": "array",
            "items": {"type": "string", "contentMediaType": "application/octet-stream"},
            "minItems": 1,
        },
    ),
    "UploadedDocuments": {"anyOf": [ref("Document"), ref("DocumentList")], "description": "A list of several."},
    "Deleted": object_schema("What is gone.", id=TEXT, object=TEXT, deleted={"const": True}),
    "SearchResults": object_schema(
        "Passages, best first.",
        object=constant("list"),
        results=list_schema(
            object_schema(
                "A passage.",
                chunk_id=TEXT,
                content=TEXT,
                similarity=_NUMBER,
                score=_NUMBER,
                metadata=object_schema("Where it stands.", **_PLACE),
            )
        ),
        **_METHOD,
    ),
    "SearchMethod": object_schema(
        "How the sources were found.",
        left_out=COUNT | {"description": "Passages that were found and did not fit the model's context."},
        **_METHOD,
    ),
    "Source": object_schema(
        "A passage that the answer was grounded in; `number` is the one it has in the prompt.",
        number=COUNT,
        chunk_id=TEXT,
        score=_NUMBER,
        similarity=_NUMBER,
        **_PLACE,
    ),
    "Disclosure": object_schema(
        "What one job carried away.",
        object=constant("ryvion.disclosure"),
        job_id=TEXT,
        completion_id=TEXT,
        knowledge_base=TEXT,
        node_id=TEXT,
        peer_id=TEXT,
        jurisdiction=TEXT,
        purpose={"enum": list(get_args(Purpose))},
        created=INTEGER,
        chunks=list_schema(object_schema("A passage.", chunk_id=TEXT, sha256=TEXT)),
    ),
    "DisclosureList": _page("Disclosure"),
}
