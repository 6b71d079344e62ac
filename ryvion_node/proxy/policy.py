"""Which requests are answered at all: Host, Origin, content type, and the headers that let a configured web page read.

Pure. The Host rule is what keeps a web page from reaching the node by re-binding a name of its own to 127.0.0.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from starlette.datastructures import Headers

from ryvion_node.proxy.errors import ApiError
from ryvion_node.proxy.errors import Headers as HeaderPairs

EXPOSED: Final = ", ".join(
    (
        "x-request-id",
        "x-ryvion-job-id",
        "x-ryvion-node",
        "x-ryvion-jurisdiction",
        "x-ryvion-receipt-cid",
        "openai-processing-ms",
        "retry-after",
        "retry-after-ms",
        "x-should-retry",
        "x-ratelimit-limit-requests",
        "x-ratelimit-remaining-requests",
        "x-ratelimit-reset-requests",
        "idempotent-replayed",
    )
)
"""What a web page may read of an answer's headers."""
PREFLIGHT_MAX_AGE_S: Final = 600


@dataclass(frozen=True, slots=True)
class Policy:
    """`hosts`: every legal Host header, with its port; `origins`: web pages that may call, as `https://name:port`."""

    hosts: frozenset[str]
    origins: frozenset[str] = frozenset()

    def check(self, headers: Headers) -> None:
        """Raise ApiError 403 for a Host or an Origin that is not listed."""
        if headers.get("host", "").lower() not in self.hosts or len(headers.getlist("host")) != 1:
            raise ApiError("host_not_allowed", f"This endpoint is not served under that Host; {_add('allowed_hosts')}.")
        if any(origin not in self.origins for origin in headers.getlist("origin")):
            raise ApiError("origin_not_allowed", f"This web origin is not allowed; {_add('allowed_origins')}.")

    def cors(self, headers: Headers) -> HeaderPairs:
        """The headers that let a listed origin read the answer, errors too."""
        if not self.origins:
            return ()
        vary = ("vary", "Origin")
        origin = headers.get("origin")
        if origin not in self.origins:
            return (vary,)
        return (vary, ("access-control-allow-origin", origin), ("access-control-expose-headers", EXPOSED))


def _add(setting: str) -> str:
    return f"the node's owner can add it to `{setting}` under [proxy] in config.toml"


def is_preflight(method: str, headers: Headers) -> bool:
    """Whether a browser asks if it may send the real request."""
    return method == "OPTIONS" and "origin" in headers and "access-control-request-method" in headers


def preflight_headers(headers: Headers) -> HeaderPairs:
    """The answer to a listed origin's preflight; asked-for headers are echoed, new SDKs bring new ones."""
    answer = [
        ("access-control-allow-methods", "GET, POST, DELETE, OPTIONS"),
        ("access-control-max-age", str(PREFLIGHT_MAX_AGE_S)),
    ]
    asked = headers.get("access-control-request-headers")
    if asked:
        answer.append(("access-control-allow-headers", asked))
    if headers.get("access-control-request-private-network") == "true":
        answer.append(("access-control-allow-private-network", "true"))
    return tuple(answer)


def require_json(headers: Headers) -> None:
    """Raise ApiError 415 for a body that is not plain JSON: a web form can be sent from any page without preflight."""
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise ApiError("unsupported_media_type", "Send the body with 'Content-Type: application/json'.")
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise ApiError("unsupported_media_type", "Send the body without Content-Encoding.")
