"""What is served, path by path: the table behind /openapi.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ryvion_node.proxy.access import Action

EVENTS: Final = "text/event-stream"
JSON: Final = "application/json"
MULTIPART: Final = "multipart/form-data"

_SOLD: Final = (
    "unsupported_parameter",
    "context_length_exceeded",
    "idempotency_key_reused",
    "price_limit",
    "insufficient_quota",
    "jurisdiction_not_allowed",
    "preferences_not_met",
    "model_not_found",
    "idempotency_key_in_use",
    "idempotency_answer_lost",
    "rate_limit_exceeded",
    "spending_velocity_exceeded",
    "node_failed",
    "no_capacity",
    "node_timeout",
)
_BASE: Final = ("knowledge_base_not_found", "knowledge_disabled", "knowledge_unavailable")


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path. `answers`: media type -> name of a schema; None: text."""

    method: str
    path: str
    summary: str
    answers: Mapping[str, str | None]
    action: Action | None = None
    """What a key must allow; None: no key is needed."""
    body: str = ""
    """Name of the request's schema; empty: there is none."""
    errors: tuple[str, ...] = ()
    query: tuple[str, ...] = ()
    """Parameters that must be there."""
    optional: tuple[str, ...] = ()
    """Query parameters that may be there."""
    sells: bool = False
    """Does it place jobs?"""
    status: int = 200
    """Of the answer."""
    media: str = JSON
    """Of the body."""


def _sold(path: str, summary: str, body: str, answer: str, event: str) -> Operation:
    answers = {JSON: answer, EVENTS: event}
    return Operation("post", path, summary, answers, "buy", body, (*_SOLD, *_BASE), sells=True)


_ROOT: Final = "/api/v1/knowledge-bases"
_KNOWLEDGE: Final = (
    Operation(
        "get",
        _ROOT,
        "List the knowledge bases",
        {JSON: "KnowledgeBaseList"},
        "list_knowledge_bases",
        errors=("knowledge_disabled", "knowledge_unavailable"),
    ),
    Operation(
        "post",
        _ROOT,
        "Make a knowledge base",
        {JSON: "KnowledgeBase"},
        "change_knowledge_bases",
        "KnowledgeBaseRequest",
        errors=(
            "unsupported_parameter",
            "jurisdiction_not_allowed",
            "knowledge_limit",
            "rate_limit_exceeded",
            "knowledge_disabled",
            "knowledge_unavailable",
        ),
        status=201,
    ),
    Operation(
        "get", _ROOT + "/{knowledge_base}", "Show one", {JSON: "KnowledgeBase"}, "list_knowledge_bases", errors=_BASE
    ),
    Operation(
        "delete",
        _ROOT + "/{knowledge_base}",
        "Delete one with all that is in it",
        {JSON: "Deleted"},
        "change_knowledge_bases",
        errors=(*_BASE, "rate_limit_exceeded"),
    ),
    Operation(
        "get",
        _ROOT + "/{knowledge_base}/documents",
        "List its documents, oldest first",
        {JSON: "DocumentList"},
        "list_knowledge_bases",
        errors=(*_BASE, "document_not_found", "invalid_value"),
        optional=("limit", "after"),
    ),
    Operation(
        "post",
        _ROOT + "/{knowledge_base}/documents",
        "Add files; several are answered with a list",
        {JSON: "UploadedDocuments"},
        "change_knowledge_bases",
        "Upload",
        (*_BASE, "knowledge_limit", "rate_limit_exceeded"),
        status=202,
        media=MULTIPART,
    ),
    Operation(
        "get",
        _ROOT + "/{knowledge_base}/documents/{document}",
        "Show a document, and how far it is",
        {JSON: "Document"},
        "list_knowledge_bases",
        errors=(*_BASE, "document_not_found"),
    ),
    Operation(
        "delete",
        _ROOT + "/{knowledge_base}/documents/{document}",
        "Delete a document",
        {JSON: "Deleted"},
        "change_knowledge_bases",
        errors=(*_BASE, "document_not_found", "rate_limit_exceeded"),
    ),
    Operation(
        "delete",
        _ROOT + "/{knowledge_base}/vectors",
        "Have all vectors made anew",
        {JSON: "Deleted"},
        "change_knowledge_bases",
        errors=(*_BASE, "rate_limit_exceeded"),
    ),
    Operation(
        "post",
        _ROOT + "/{knowledge_base}/search",
        "Find passages",
        {JSON: "SearchResults"},
        "search_knowledge_bases",
        "SearchRequest",
        errors=(*_BASE, "document_not_found", "unsupported_parameter", "rate_limit_exceeded"),
    ),
    Operation(
        "get",
        "/api/v1/disclosures",
        "List what left the machine, newest first",
        {JSON: "DisclosureList"},
        "read_receipts",
        errors=("invalid_value", "knowledge_disabled", "knowledge_unavailable"),
        optional=("job_id", "completion_id", "knowledge_base", "limit"),
    ),
)

OPERATIONS: Final = (
    _sold(
        "/v1/chat/completions",
        "Buy the next turn of a conversation",
        "ChatRequest",
        "ChatCompletion",
        "ChatCompletionChunk",
    ),
    _sold("/v1/completions", "Buy the continuation of a text", "TextRequest", "TextCompletion", "TextCompletion"),
    _sold("/v1/responses", "Buy a response, without memory", "ResponsesRequest", "Response", "ResponseEvent"),
    Operation(
        "post",
        "/v1/embeddings",
        "Buy vectors of texts",
        {JSON: "EmbeddingList"},
        "buy",
        "EmbeddingRequest",
        _SOLD,
        sells=True,
    ),
    Operation("get", "/v1/models", "List the models on offer", {JSON: "ModelList"}, "list_models"),
    Operation(
        "get", "/v1/models/{model}", "Show one of them", {JSON: "Model"}, "list_models", errors=("model_not_found",)
    ),
    Operation("get", "/api/v1/offers", "List the offers behind them", {JSON: "OfferList"}, "list_models"),
    Operation(
        "post",
        "/api/v1/route",
        "Hold a round of quotes and explain the choice; nothing runs",
        {JSON: "Route"},
        "buy",
        "RouteRequest",
        (
            "unsupported_parameter",
            "jurisdiction_not_allowed",
            "model_not_found",
            "no_capacity",
            "insufficient_quota",
            "rate_limit_exceeded",
        ),
    ),
    Operation(
        "get",
        "/api/v1/receipts",
        "List the receipts of an answer",
        {JSON: "ReceiptList"},
        "read_receipts",
        errors=("missing_required_parameter", "invalid_value"),
        query=("completion_id",),
    ),
    Operation(
        "get",
        "/api/v1/receipts/{cid}",
        "Show a receipt with its evidence",
        {JSON: "Receipt"},
        "read_receipts",
        errors=("receipt_not_found",),
    ),
    Operation(
        "get",
        "/api/v1/jobs/{job_id}/route",
        "Show who ran a recent job, and why",
        {JSON: "Ryvion"},
        "read_receipts",
        errors=("job_not_found",),
    ),
    *_KNOWLEDGE,
    Operation("get", "/health", "Tell that the endpoint is up", {JSON: "Health"}),
    Operation(
        "get",
        "/metrics",
        "Show the node's counters, for Prometheus",
        {"text/plain": None, "application/openmetrics-text": None},
        "read_metrics",
    ),
    Operation("get", "/openapi.json", "Show this description", {JSON: None}),
)
"""Everything that is served; a test compares it with the routes."""
