"""GET /openapi.json: what is served here as OpenAPI 3.1, made from the types and tables that requests are checked with."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from http import HTTPStatus
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.types import Receive, Scope, Send

from ryvion_node import __version__
from ryvion_node.knowledge.constants import MAX_LISTED
from ryvion_node.proxy import embedding_requests, requests, responses_requests, text_completions
from ryvion_node.proxy.access import ALLOWED
from ryvion_node.proxy.constants import MAX_IDEMPOTENCY_KEY_CHARACTERS
from ryvion_node.proxy.errors import STATUS_AND_TYPE
from ryvion_node.proxy.exchange import Exchange
from ryvion_node.proxy.knowledge.shapes import KnowledgeBaseRequest, SearchRequest
from ryvion_node.proxy.market_view import RouteRequest
from ryvion_node.proxy.openapi_answers import ANSWERS, TEXT, Schema, ref
from ryvion_node.proxy.openapi_knowledge import KNOWLEDGE
from ryvion_node.proxy.openapi_operations import EVENTS, JSON, OPERATIONS, Operation

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
_OPTIONAL: Final[dict[str, Schema]] = {"limit": {"type": "integer", "minimum": 1, "maximum": MAX_LISTED}}
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
            "schemas": _request_schemas() | ANSWERS | KNOWLEDGE,
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
        "responses": {str(operation.status): _answer(operation)} | _errors(operation),
        "security": [] if operation.action is None else [{"bearer": []}, {"header": []}],
    }
    if operation.action is not None:
        scopes = ", ".join(f"`{scope}`" for scope, actions in ALLOWED.items() if operation.action in actions)
        described["description"] = f"Keys of the scopes {scopes} may do this."
    if parameters := _parameters(operation):
        described["parameters"] = parameters
    if operation.body:
        described["requestBody"] = {"required": True, "content": {operation.media: {"schema": ref(operation.body)}}}
    return described


def _parameters(operation: Operation) -> list[dict[str, object]]:
    in_path = [part[1:-1] for part in operation.path.split("/") if part.startswith("{")]
    parameters = [_parameter(name, "path", TEXT, required=True) for name in in_path]
    parameters += [_parameter(name, "query", TEXT, required=True) for name in operation.query]
    parameters += [_parameter(name, "query", _OPTIONAL.get(name, TEXT), required=False) for name in operation.optional]
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
        KnowledgeBaseRequest,
        SearchRequest,
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
