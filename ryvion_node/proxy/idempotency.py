"""The Idempotency-Key header: a repeated request gets the first one's answer, and nothing is bought twice.

A claim is on disk before anything is bought, the answer before the client has all of it. Whoever asks again finds the
answer; or, when the first request broke off, what the ledger says of it: nothing was paid, so it is bought now; or
something was, and then an error says so and nothing is bought.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Awaitable, Callable
from typing import Final, Literal, Protocol

from starlette.datastructures import Headers

from ryvion_node.errors import OperatorError
from ryvion_node.ledger.errors import LedgerError
from ryvion_node.log import log_event
from ryvion_node.proxy.constants import BUSY_RETRY_MS, MAX_IDEMPOTENCY_KEY_CHARACTERS, MAX_STORED_ANSWER_BYTES
from ryvion_node.proxy.errors import ApiError, retry_headers
from ryvion_node.proxy.errors import Headers as HeaderPairs
from ryvion_node.proxy.exchange import Exchange
from ryvion_node.proxy.sealed import Claim, NotOurs, Seal, StoredAnswer
from ryvion_node.proxy.vault import Vault, VaultFull

log = logging.getLogger("ryvion.proxy.idempotency")

HEADER: Final = "idempotency-key"
_NO_RETRY: Final = (("x-should-retry", "false"),)
_REPLAYED: Final = (("idempotent-replayed", "true"),)

Progress = Literal["nothing", "running", "free", "paid"]
"""What came of a completion: no finished job; one that may still cost; answers that cost nothing; ones that did."""


class Purchases(Protocol):
    """The books."""

    async def progress(self, completion_id: str) -> Progress:
        """What came of a completion so far; raises LedgerError."""
        ...


class Idempotency:
    """One per endpoint."""

    def __init__(self, vault: Vault, purchases: Purchases) -> None:
        self._vault = vault
        self._purchases = purchases
        self._under_way: set[str] = set()

    async def serve(self, exchange: Exchange, token: str, claim: Claim, handle: Callable[[], Awaitable[None]]) -> None:
        """Answer once: by `handle`, which buys under the claim's completion id, or as before.

        `token` is the caller's API key, so that keys of different callers never meet. Raises ApiError.
        """
        key = idempotency_key(exchange.headers)
        if key is None:
            await handle()
            return
        seal = Seal(token, key)
        if seal.name in self._under_way:
            raise _in_use()
        self._under_way.add(seal.name)
        try:
            stored = await self._earlier(seal, claim.fingerprint)
            if stored is not None:
                await exchange.start(stored.status, stored.headers + _REPLAYED)
                await exchange.finish(stored.body)
                return
            await self._begin(seal, claim)
            exchange.recorder = _Recorder(self._vault, self._purchases, seal, claim)
            await handle()
        finally:
            self._under_way.discard(seal.name)

    async def _earlier(self, seal: Seal, fingerprint: str) -> StoredAnswer | None:
        """The answer that an earlier request got; None when this is the first that costs anything."""
        sealed_claim = await self._vault.read(seal.name, "claim")
        if sealed_claim is None:
            return None
        try:
            claim = seal.open_claim(sealed_claim)
            sealed = await self._vault.read(seal.name, "answer")
            stored = None if sealed is None else seal.open_answer(sealed)
        except NotOurs:
            raise _lost("What was stored for it is damaged, so it cannot be told what it bought.") from None
        progress = "paid" if stored is not None else await self._purchases.progress(claim.completion_id)
        if progress == "running":
            raise _in_use()
        if progress != "paid":
            return None
        if claim.fingerprint != fingerprint:
            problem = "This Idempotency-Key was used for another request; use a new one for each."
            raise ApiError("idempotency_key_reused", problem, headers=_NO_RETRY)
        if stored is None:
            raise _lost(
                f"The request that had it broke off after part of its answer was paid ({claim.completion_id}), "
                "or the answer had to make room."
            )
        return stored

    async def _begin(self, seal: Seal, claim: Claim) -> None:
        try:
            await self._vault.write(seal.name, "claim", seal.close_claim(claim))
        except VaultFull:
            problem = "Too many Idempotency-Keys were used in the last 24 hours; send this request without one."
            raise ApiError("rate_limit_exceeded", problem, headers=_NO_RETRY) from None


class _Recorder:
    """Notes an answer while it is sent, and stores it before its end is."""

    def __init__(self, vault: Vault, purchases: Purchases, seal: Seal, claim: Claim) -> None:
        self._vault = vault
        self._purchases = purchases
        self._seal = seal
        self._claim = claim
        self._status = 0
        self._headers: HeaderPairs = ()
        self._body = bytearray()

    def start(self, status: int, headers: HeaderPairs) -> None:
        """Note how it begins."""
        self._status, self._headers = status, headers

    def add(self, data: bytes) -> None:
        """Note a piece; comments that only fill silence are left out."""
        if not data.startswith(b":") and len(self._body) <= MAX_STORED_ANSWER_BYTES:
            self._body += data

    async def store(self) -> None:
        """Keep the answer if there was one, or an error after something was paid; an error before is no answer.

        What stands in the way must not keep the answer back.
        """
        try:
            progress = await self._purchases.progress(self._claim.completion_id)
            wanted = progress == "paid" or (progress == "free" and self._status == 200)
            if wanted and len(self._body) <= MAX_STORED_ANSWER_BYTES:
                answer = StoredAnswer(self._status, self._headers, bytes(self._body))
                await self._vault.write(self._seal.name, "answer", self._seal.close_answer(answer))
        except (LedgerError, OperatorError, OSError) as exc:
            log_event(log, "answer_not_stored", level=logging.ERROR, reason=str(exc))


def idempotency_key(headers: Headers) -> str | None:
    """The key that a request was sent with; raises ApiError 400 for one that is none."""
    given = headers.getlist(HEADER)
    if not given:
        return None
    if len(given) > 1 or not 1 <= len(given[0]) <= MAX_IDEMPOTENCY_KEY_CHARACTERS:
        problem = f"Send one Idempotency-Key of 1 to {MAX_IDEMPOTENCY_KEY_CHARACTERS} characters."
        raise ApiError("invalid_value", problem, param="Idempotency-Key")
    return given[0]


def fingerprint_of(path: str, body: bytes) -> str:
    """What a request asks for, in a few bytes."""
    return hashlib.sha256(path.encode() + b"\0" + body).hexdigest()


def _in_use() -> ApiError:
    problem = "The first request with this Idempotency-Key is still being answered; ask again shortly."
    return ApiError("idempotency_key_in_use", problem, headers=retry_headers(BUSY_RETRY_MS))


def _lost(why: str) -> ApiError:
    problem = f"The answer for this Idempotency-Key is not there. {why} Use a new key to buy it anew."
    return ApiError("idempotency_answer_lost", problem, headers=_NO_RETRY)
