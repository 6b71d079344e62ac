"""What stands between a request that costs money and the purchase: the key, its limits, the body, repetition."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import trio
from starlette.types import Scope

from ryvion_node.market.interface import Account
from ryvion_node.proxy.access import Action, Caller, Keys, Visitor, identify
from ryvion_node.proxy.answers import COMPLETION_PREFIX
from ryvion_node.proxy.errors import ApiError
from ryvion_node.proxy.exchange import Exchange
from ryvion_node.proxy.idempotency import Idempotency, fingerprint_of
from ryvion_node.proxy.limits import Limits
from ryvion_node.proxy.sealed import Claim
from ryvion_node.proxy.settings import Settings


@dataclass(frozen=True, slots=True)
class Visit:
    """A request that may be served."""

    exchange: Exchange
    caller: Caller
    body: bytes
    account: Account
    """For its orders; all jobs of one answer share its completion id."""


class Till:
    """One for all endpoints that buy. At most `settings.max_in_flight` choices are under way at once."""

    def __init__(self, keys: Keys, settings: Settings, idempotency: Idempotency) -> None:
        self._keys = keys
        self._settings = settings
        self._idempotency = idempotency
        self._limits = Limits()
        self._in_flight = 0

    async def admit(self, exchange: Exchange, action: Action = "buy") -> Visitor:
        """The caller, who may do that; the request counts against its rate. Raises ApiError 401, 403 or 429."""
        visitor = await identify(exchange.headers, self._keys, action)
        exchange.add_headers(self._limits.take(visitor.caller, trio.current_time()))
        return visitor

    async def serve(
        self, scope: Scope, handle: Callable[[Visit], Awaitable[None]], id_prefix: str = COMPLETION_PREFIX
    ) -> None:
        """Check the caller and its limits, read the body, and let `handle` answer, or answer as before.

        `id_prefix` begins the id of the answer. Raises ApiError.
        """
        exchange = Exchange.of(scope)
        visitor = await self.admit(exchange)
        caller = visitor.caller
        with self.further(caller, 1):
            body = await exchange.body(self._settings.max_body_bytes)
            claim = Claim(fingerprint_of(scope["path"], body), f"{id_prefix}{secrets.token_hex(16)}")
            account = Account(caller.id, claim.completion_id, caller.limits.allowance)
            visit = Visit(exchange, caller, body, account)
            await self._idempotency.serve(exchange, visitor.token, claim, partial(handle, visit))

    @contextmanager
    def further(self, caller: Caller, choices: int) -> Iterator[None]:
        """Hold room for so many choices besides those that are under way; raises ApiError 429."""
        if choices and self._in_flight + choices > self._settings.max_in_flight:
            most = f"{self._in_flight} answers are under way, of at most {self._settings.max_in_flight}"
            raise ApiError("rate_limit_exceeded", f"{most}; try again shortly.")
        with self._limits.under_way(caller, choices):
            self._in_flight += choices
            try:
                yield
            finally:
                self._in_flight -= choices
