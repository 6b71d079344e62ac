"""Who may do what: the token of a request, and the scopes of keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, Protocol, get_args

from starlette.datastructures import Headers

from ryvion_node.keys import KeyLimits
from ryvion_node.preferences import KnowledgeAssurance, Preferences
from ryvion_node.proxy.errors import ApiError

Action = Literal[
    "list_models",
    "buy",
    "read_receipts",
    "read_metrics",
    "list_knowledge_bases",
    "search_knowledge_bases",
    "change_knowledge_bases",
]

ALLOWED: Final[dict[str, frozenset[Action]]] = {
    "buyer": frozenset(get_args(Action)),
    "read-only": frozenset({"list_models", "read_receipts", "read_metrics", "list_knowledge_bases"}),
    "write-only": frozenset({"list_models", "buy"}),
    "operator": frozenset(get_args(Action)),
}
"""Scope of a key -> what it may do. A scope that is not here may do nothing. Documents tell more than receipts do, so a
key that reads no receipts gets to see nothing of them either."""


class Caller(Protocol):
    """A valid key, as the endpoint sees it."""

    @property
    def id(self) -> str:
        """Public name of the key; may be logged."""
        ...

    @property
    def scope(self) -> str:
        """One of ALLOWED."""
        ...

    @property
    def jurisdictions(self) -> tuple[str, ...]:
        """Where the key may buy; empty: anywhere."""
        ...

    @property
    def preferences(self) -> Preferences:
        """Whom the key may buy from."""
        ...

    @property
    def knowledge_assurance(self) -> KnowledgeAssurance:
        """Which nodes may get passages of knowledge bases."""
        ...

    @property
    def limits(self) -> KeyLimits:
        """How much it may be used."""
        ...


@dataclass(frozen=True, slots=True)
class Visitor:
    """A caller who was let in, and the token that opened; never logged or kept."""

    caller: Caller
    token: str


class Keys(Protocol):
    """The key store."""

    async def authenticate(self, token: str) -> Caller | None:
        """The key that `token` is, compared in constant time; None when it is none, or revoked."""
        ...


async def admit(headers: Headers, keys: Keys, action: Action) -> Caller:
    """The caller, when one of its tokens is valid and its scope allows `action`; else raises ApiError 401 or 403."""
    return (await identify(headers, keys, action)).caller


async def identify(headers: Headers, keys: Keys, action: Action) -> Visitor:
    """As `admit`, with the token that was valid."""
    for token in _tokens(headers):
        caller = await keys.authenticate(token)
        if caller is not None:
            break
    else:
        wrong = (
            "it is not one of this node's." if _tokens(headers) else "none came. Send 'Authorization: Bearer <key>'."
        )
        raise ApiError(
            "invalid_api_key",
            f"{wrong} `ryvion-node keys create` makes one.",
            headers=(("www-authenticate", 'Bearer realm="ryvion-node"'),),
        )
    require(caller, action)
    return Visitor(caller, token)


def require(caller: Caller, action: Action) -> None:
    """Raise ApiError 403 unless the caller's scope allows the action."""
    if action not in ALLOWED.get(caller.scope, frozenset()):
        problem = f"This key has the scope '{caller.scope}', which may not {action.replace('_', ' ')}."
        raise ApiError("insufficient_scope", problem)


def _tokens(headers: Headers) -> list[str]:
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    given = [bearer.strip() if scheme.lower() == "bearer" else "", headers.get("x-api-key", "").strip()]
    return [token for token in given if token]
