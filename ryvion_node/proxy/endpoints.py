"""The small endpoints: models on offer, receipts, health."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from ryvion_node.market.interface import Market
from ryvion_node.proxy.access import Keys, admit
from ryvion_node.proxy.aliases import with_aliases
from ryvion_node.proxy.answers import models_json
from ryvion_node.proxy.errors import ApiError
from ryvion_node.proxy.exchange import Exchange
from ryvion_node.proxy.receipts import ReceiptStore

MAX_NAMES_IN_MESSAGE: Final = 20
"""Models named in a 404, so that it stays readable in a large market."""

_COMPLETION_ID: Final = re.compile("[a-z]{1,16}[-_][0-9a-zA-Z-]{1,64}")


class Health:
    """GET /health: the endpoint is up. Needs no key and tells nothing else."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        await Exchange.of(scope).answer_json({"status": "ok"})


class Models:
    """GET /v1/models and /v1/models/{id}: what can be bought now."""

    def __init__(self, market: Market, keys: Keys, aliases: Mapping[str, str]) -> None:
        self._market = market
        self._keys = keys
        self._aliases = aliases

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        exchange = Exchange.of(scope)
        await admit(exchange.headers, self._keys, "list_models")
        models = with_aliases(models_json(self._market.offers()), self._aliases)
        wanted: str | None = scope["path_params"].get("model")
        if wanted is None:
            await exchange.answer_json({"object": "list", "data": list(models.values())})
        elif wanted in models:
            await exchange.answer_json(models[wanted])
        else:
            names = ", ".join(list(models)[:MAX_NAMES_IN_MESSAGE]) or "nothing"
            problem = f"The model '{wanted:.100}' is not on offer now; on offer: {names}."
            raise ApiError("model_not_found", problem, param="model")


class Receipts:
    """GET /api/v1/receipts?completion_id= and /api/v1/receipts/{cid}."""

    def __init__(self, store: ReceiptStore, keys: Keys) -> None:
        self._store = store
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        exchange = Exchange.of(scope)
        await admit(exchange.headers, self._keys, "read_receipts")
        cid: str | None = scope["path_params"].get("cid")
        if cid is not None:
            receipt = await self._store.by_cid(cid)
            if receipt is None:
                raise ApiError(
                    "receipt_not_found",
                    "There is no such receipt here; its whole cid is wanted, ryv1:sha256:<64 hex>.",
                    param="cid",
                )
            await exchange.answer_json(receipt.to_json())
            return
        receipts = await self._store.of_completion(_completion_id(Request(scope)))
        await exchange.answer_json({"object": "list", "data": [receipt.to_json() for receipt in receipts]})


def _completion_id(request: Request) -> str:
    completion_id = request.query_params.get("completion_id")
    if completion_id is None:
        problem = "Missing required parameter: 'completion_id'."
        raise ApiError("missing_required_parameter", problem, param="completion_id")
    if not _COMPLETION_ID.fullmatch(completion_id):
        problem = "'completion_id' is not the id of an answer of this endpoint."
        raise ApiError("invalid_value", problem, param="completion_id")
    return completion_id
