"""GET /openapi.json: what is served here as OpenAPI 3.1, made from the types and tables that requests are checked with."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.types import Receive, Scope, Send

from ryvion_node import __version__
from ryvion_node.proxy import embedding_requests, requests, responses_requests, text_completions
from ryvion_node.proxy.access import ALLOWED, Action
from ryvion_node.proxy.constants import MAX_IDEMPOTENCY_KEY_CHARACTERS
from ryvion_node.proxy.errors import STATUS_AND_TYPE
from ryvion_node.proxy.exchange import Exchange
from ryvion_node.proxy.market_view import RouteRequest
from ryvion_node.proxy.openapi_answers import ANSWERS, TEXT, Schema, ref

EVENTS: Final = "text/event-stream"
JSON: Final = "application/json"

_ALWAYS: Final = ("host_not_allowed", "origin_not_allowed", "internal_error")
_KEYED: Final = ("invalid_api_key", "insufficient_scope")
_BODY: Final = (
    "invalid_json",
    "invalid_type",
    "invalid_value",
    "missing_required_parameter",
    "request_timeout",
    "request_too_large",
    "unsupported_media_type",
)
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
_RETRY: Final = ("retry-after", "retry-after-ms")
_JOB: Final = ("x-ryvion-job-id", "x-ryvion-node", "x-ryvion-jurisdiction")
_HEADERS: Final = {
    "x-request-id": "The name of this exchange in the node's log.",
    "retry-after": "Seconds after which it may be tried again, at most 60.",
    "retry-after-ms": "The same in ms.",
    "www-authenticate": "How to send a key.",
    "x-ryvion-job-id": "The job.",
    "x-ryvion-node": "Public key of the node that runs it, in hex.",
    "x-ryvion-jurisdiction": "The country that node says it is in.",
    "x-ryvion-receipt-cid": "Name of the receipt; not with streams, which end with the whole of it.",
}


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
    sells: bool = False
    """Does it place jobs?"""


def _sold(path: str, summary: str, body: str, answer: str, event: str) -> Operation:
    answers = {JSON: answer, EVENTS: event}
    return Operation("post", path, summary, answers, "buy", body, _SOLD, sells=True)


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


class Description:
    """GET /openapi.json. Needs no key: it is the same on every node of a version."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        await Exchange.of(scope).answer(200, _encoded())


@cache
def _encoded() -> bytes:
    return json.dumps(description()).encode()


def description() -> dict[str, Any]:
    """The whole document."""
    paths: dict[str, dict[str, object]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Ryvion node",
            "version": __version__,
            "summary": "The OpenAI API, answered by a market of nodes, with receipts.",
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": _request_schemas() | ANSWERS,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "A key from `ryvion-node keys create`."},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same key."},
            },
        },
    }


def _operation(operation: Operation) -> dict[str, object]:
    described: dict[str, object] = {
        "summary": operation.summary,
        "operationId": operation.method + "".join(c if c.isalnum() else "_" for c in operation.path),
        "responses": {"200": _answer(operation)} | _errors(operation),
        "security": [] if operation.action is None else [{"bearer": []}, {"header": []}],
    }
    if operation.action is not None:
        scopes = ", ".join(f"`{scope}`" for scope, actions in ALLOWED.items() if operation.action in actions)
        described["description"] = f"Keys of the scopes {scopes} may do this."
    if parameters := _parameters(operation):
        described["parameters"] = parameters
    if operation.body:
        described["requestBody"] = {"required": True, "content": {JSON: {"schema": ref(operation.body)}}}
    return described


def _parameters(operation: Operation) -> list[dict[str, object]]:
    in_path = [part[1:-1] for part in operation.path.split("/") if part.startswith("{")]
    parameters = [_parameter(name, "path", TEXT, required=True) for name in in_path]
    parameters += [_parameter(name, "query", TEXT, required=True) for name in operation.query]
    if operation.sells:
        key = {"type": "string", "minLength": 1, "maxLength": MAX_IDEMPOTENCY_KEY_CHARACTERS, "pattern": "^[!-~]+$"}
        meaning = "The same key and body within 24 hours gets the stored answer, and nothing is bought twice."
        parameters.append(_parameter("Idempotency-Key", "header", key, required=False) | {"description": meaning})
    return parameters


def _parameter(name: str, place: str, schema: Schema, *, required: bool) -> dict[str, object]:
    return {"name": name, "in": place, "required": required, "schema": schema}


def _answer(operation: Operation) -> dict[str, object]:
    content: dict[str, object] = {}
    for media, name in operation.answers.items():
        if media == EVENTS:
            assert name is not None
            content[media] = {"schema": _event(name)}
        else:
            content[media] = {"schema": ref(name) if name is not None else {}}
    headers = (
        "x-request-id",
        *(_JOB if operation.sells else ()),
        *(["x-ryvion-receipt-cid"] if operation.sells else ()),
    )
    return {"description": "The answer.", "headers": _headers(headers), "content": content}


def _event(name: str) -> Schema:
    """One server-sent event, as its fields: OpenAPI 3.1 has no word of its own for a stream of them."""
    meaning = (
        "With `stream`: server-sent events like this one, comments in silence, and `[DONE]` as the last data (responses "
        "end with their last event). A failure is an event whose data is an Error, and the last one."
    )
    told = {"type": "string", "contentMediaType": JSON, "contentSchema": {"anyOf": [ref(name), ref("Error")]}}
    fields = {"event": TEXT, "data": {"anyOf": [{"const": "[DONE]"}, told]}}
    return {"type": "object", "description": meaning, "properties": fields, "required": ["data"]}


def _errors(operation: Operation) -> dict[str, object]:
    codes = {*_ALWAYS, *operation.errors, *(_KEYED if operation.action else ()), *(_BODY if operation.body else ())}
    by_status: dict[int, list[str]] = {}
    for code in sorted(codes):
        by_status.setdefault(STATUS_AND_TYPE[code][0], []).append(code)
    return {str(status): _error(status, by_status[status]) for status in sorted(by_status)}


def _error(status: int, codes: Sequence[str]) -> dict[str, object]:
    names = [
        "x-request-id",
        *(_RETRY if status in (429, 503) else ()),
        *(["www-authenticate"] if status == 401 else ()),
    ]
    return {
        "description": f"{HTTPStatus(status).phrase}: {', '.join(f'`{code}`' for code in codes)}.",
        "headers": _headers(names),
        "content": {JSON: {"schema": ref("Error")}},
    }


def _headers(names: Iterable[str]) -> dict[str, object]:
    return {name: {"description": _HEADERS[name], "schema": TEXT} for name in names}


def _request_schemas() -> dict[str, Any]:
    """The models that read bodies, and what else is known of their parameters."""
    models: list[type[BaseModel]] = [
        requests.ChatRequest,
        text_completions.TextRequest,
        responses_requests.ResponsesRequest,
        embedding_requests.EmbeddingRequest,
        RouteRequest,
    ]
    _, found = models_json_schema(
        [(model, "validation") for model in models], ref_template="#/components/schemas/{model}"
    )
    schemas: dict[str, Any] = found["$defs"]
    chat = schemas["ChatRequest"]
    _inherit(schemas["TextRequest"], chat, text_completions.NOT_HONOURED, frozenset())
    responses = responses_requests
    renamed = frozenset({"response_format", "logprobs", "max_tokens", "max_completion_tokens"})
    _inherit(schemas["ResponsesRequest"], chat, responses.NOT_HONOURED, responses.IGNORED | renamed)
    for name in ("ChatRequest", "TextRequest", "ResponsesRequest"):
        properties = schemas[name]["properties"]
        for parameter in sorted(requests.IGNORED):
            properties.setdefault(parameter, {"description": "Accepted, without influence."})
        for parameter, harmless in sorted(requests.NOT_HONOURED.items()):
            properties.setdefault(parameter, _not_honoured(harmless))
    embedding = schemas["EmbeddingRequest"]["properties"]
    embedding["user"] = {"description": "Accepted, without influence."}
    embedding |= {name: _not_honoured(harmless) for name, harmless in embedding_requests.NOT_HONOURED.items()}
    return schemas


def _inherit(
    schema: dict[str, Any], chat: dict[str, Any], refused: Mapping[str, tuple[object, ...]], left_out: frozenset[str]
) -> None:
    """Give `schema` the chat's parameters that it does not speak of itself."""
    own = schema["properties"]
    for parameter, harmless in sorted(refused.items()):
        own.setdefault(parameter, _not_honoured(harmless))
    for parameter, described in chat["properties"].items():
        if parameter not in left_out:
            own.setdefault(parameter, described)
    schema["required"] = sorted({"model", *schema.get("required", ())})


def _not_honoured(harmless: Sequence[object]) -> dict[str, object]:
    return {"enum": [None, *harmless], "description": "Not supported: any other value is refused by name."}
