"""The error object of the endpoint: one table from code to HTTP status and type (OpenAI's own wording of both)."""

from __future__ import annotations

import json
from typing import Final

from ryvion_node.market.interface import EmbeddingOrder, MarketError, Order
from ryvion_node.proxy.constants import DEFAULT_RETRY_AFTER_MS, MAX_RETRY_AFTER_MS

INVALID_REQUEST: Final = "invalid_request_error"
SERVER: Final = "server_error"

STATUS_AND_TYPE: Final[dict[str, tuple[int, str]]] = {
    "malformed_http": (400, INVALID_REQUEST),
    "invalid_json": (400, INVALID_REQUEST),
    "invalid_type": (400, INVALID_REQUEST),
    "invalid_value": (400, INVALID_REQUEST),
    "missing_required_parameter": (400, INVALID_REQUEST),
    "unsupported_parameter": (400, INVALID_REQUEST),
    "context_length_exceeded": (400, INVALID_REQUEST),
    "knowledge_limit": (400, INVALID_REQUEST),
    "invalid_api_key": (401, INVALID_REQUEST),
    "price_limit": (402, "insufficient_quota"),
    "insufficient_quota": (402, "insufficient_quota"),
    "jurisdiction_not_allowed": (403, "permission_error"),
    "preferences_not_met": (403, "permission_error"),
    "insufficient_scope": (403, "permission_error"),
    "host_not_allowed": (403, "permission_error"),
    "origin_not_allowed": (403, "permission_error"),
    "model_not_found": (404, INVALID_REQUEST),
    "receipt_not_found": (404, INVALID_REQUEST),
    "job_not_found": (404, INVALID_REQUEST),
    "knowledge_base_not_found": (404, INVALID_REQUEST),
    "document_not_found": (404, INVALID_REQUEST),
    "knowledge_disabled": (404, INVALID_REQUEST),
    "unknown_url": (404, INVALID_REQUEST),
    "method_not_allowed": (405, INVALID_REQUEST),
    "request_timeout": (408, INVALID_REQUEST),
    "request_too_large": (413, INVALID_REQUEST),
    "unsupported_media_type": (415, INVALID_REQUEST),
    "headers_too_large": (431, INVALID_REQUEST),
    "idempotency_key_reused": (400, INVALID_REQUEST),
    "idempotency_key_in_use": (409, INVALID_REQUEST),
    "idempotency_answer_lost": (409, INVALID_REQUEST),
    "rate_limit_exceeded": (429, "rate_limit_error"),
    "spending_velocity_exceeded": (429, "rate_limit_error"),
    "internal_error": (500, SERVER),
    "node_failed": (502, SERVER),
    "no_capacity": (503, SERVER),
    "knowledge_unavailable": (503, SERVER),
    "node_timeout": (504, SERVER),
}

_PARAM_OF_MARKET_CODE: Final = {
    "model_not_found": "model",
    "jurisdiction_not_allowed": "jurisdiction",
    "context_length_exceeded": "messages",
    "prompt_refused": "messages",
}

_CODE_OF_MARKET_CODE: Final = {
    "unsupported": "unsupported_parameter",
    "grammar_invalid": "invalid_value",
    "prompt_refused": "invalid_value",
    "budget_exhausted": "insufficient_quota",
    "budget_held": "rate_limit_exceeded",
    "rate_limited": "rate_limit_exceeded",
    "spending_velocity": "spending_velocity_exceeded",
}

_OPENINGS: Final = {
    "context_length_exceeded": "This is longer than the model's context length: ",
    "invalid_api_key": "Incorrect API key provided: ",
}
"""How some messages begin: LiteLLM, and what is built on it, tells these errors from others by these words alone."""

Headers = tuple[tuple[str, str], ...]


class ApiError(Exception):
    """A request that ends in the error object. `code` must stand in the table above."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after_ms: int | None = None,
        headers: Headers = (),
    ) -> None:
        opening = _OPENINGS.get(code, "")
        message = message if message.startswith(opening) else opening + message
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param
        self.status, self.type = STATUS_AND_TYPE[code]
        self.headers = headers + (retry_headers(retry_after_ms) if self.status in (429, 503) else ())

    def at(self, param: str | None) -> ApiError:
        """The same with another name for the parameter, in its text too."""
        named = f"'{self.param}'"
        renamed = ApiError(self.code, self.message.replace(named, f"'{param}'"), param=param)
        renamed.headers = self.headers
        return renamed

    def body(self) -> bytes:
        """The JSON error object, all four keys always."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return json.dumps({"error": error}).encode()


def from_market(error: MarketError, order: Order, *, charged: bool = False, headers: Headers = ()) -> ApiError:
    """A market's refusal as the client sees it; `charged`: text was delivered, so the client must not simply retry."""
    return ApiError(
        _CODE_OF_MARKET_CODE.get(error.code, error.code),
        str(error),
        param=_param(error, order),
        retry_after_ms=error.retry_after_ms,
        headers=(*headers, ("x-should-retry", "false")) if charged else headers,
    )


def _param(error: MarketError, order: Order) -> str | None:
    """The parameter to change."""
    if error.code == "preferences_not_met":
        return "ryvion" if error.preference is None else f"ryvion.{error.preference}"
    if error.code == "price_limit":
        return None if order.max_price is None else "ryvion.max_price"
    if isinstance(order, EmbeddingOrder):
        param = _PARAM_OF_MARKET_CODE.get(error.code)
        return "input" if param == "messages" else param
    shape = "response_format" if order.output.kind != "text" else "tools"
    if error.code == "grammar_invalid":
        return shape
    if error.code != "unsupported" or not error.features:
        return _PARAM_OF_MARKET_CODE.get(error.code)
    feature = error.features[0]
    if feature == "penalties":
        return "presence_penalty" if order.presence_penalty else "frequency_penalty"
    return {"prefix": "messages", "json_object": shape, "json_schema": shape}.get(feature, feature)


def retry_headers(retry_after_ms: int | None = None) -> Headers:
    """When to try again, in both forms that clients know."""
    wait_ms = min(max(retry_after_ms or DEFAULT_RETRY_AFTER_MS, 1), MAX_RETRY_AFTER_MS)
    return (("retry-after-ms", str(wait_ms)), ("retry-after", str(-(-wait_ms // 1000))))
