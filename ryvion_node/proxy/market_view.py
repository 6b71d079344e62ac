"""The market as this node sees it: offers heard, and the choice that a job would get, explained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema
from pydantic_core import PydanticCustomError
from starlette.types import Receive, Scope, Send

from ryvion_node.market.interface import Account, ChatOrder, EmbeddingOrder, Market, MarketError, Order
from ryvion_node.preferences_object import PreferencesObject
from ryvion_node.proxy.access import Keys, admit
from ryvion_node.proxy.answers import placement_json, plain
from ryvion_node.proxy.constants import MAX_ROUTE_BODY_BYTES
from ryvion_node.proxy.errors import ApiError, from_market
from ryvion_node.proxy.exchange import Exchange
from ryvion_node.proxy.orders import check_model_name, jurisdictions_of, preferences_of
from ryvion_node.proxy.till import Till
from ryvion_node.proxy.validation import api_error
from ryvion_protocol.constants import MAX_FEATURES
from ryvion_protocol.features import FEATURES
from ryvion_protocol.messages import EMBEDDING, ChatMessage


def _known_feature(name: str) -> str:
    if name not in FEATURES:
        raise PydanticCustomError(
            "feature", "no feature is called so; there are {names}", {"names": ", ".join(FEATURES)}
        )
    return name


KnownFeature = Annotated[str, AfterValidator(_known_feature), WithJsonSchema({"enum": list(FEATURES)})]


class RouteRequest(BaseModel):
    """Body of POST /api/v1/route."""

    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True)

    model: str = Field(min_length=1, max_length=96)
    jurisdiction: str | None = None
    ryvion: PreferencesObject | None = None
    features: Annotated[list[KnownFeature], Field(max_length=MAX_FEATURES)] | None = None
    """What the executor must be able to do besides: names of `features` in GET /v1/models."""


class OffersView:
    """GET /api/v1/offers: every live offer heard, newest first."""

    def __init__(self, market: Market, keys: Keys) -> None:
        self._market = market
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        exchange = Exchange.of(scope)
        await admit(exchange.headers, self._keys, "list_models")
        await exchange.answer_json({"offers": [plain(offer) for offer in self._market.offers()]})


class RouteView:
    """POST /api/v1/route: hold the quote round for a short prompt, and explain; nothing runs, nothing is spent."""

    def __init__(self, market: Market, till: Till, aliases: Mapping[str, str]) -> None:
        self._market = market
        self._till = till
        self._aliases = aliases

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        exchange = Exchange.of(scope)
        caller = (await self._till.admit(exchange)).caller
        wanted = _parse(await exchange.body(MAX_ROUTE_BODY_BYTES))
        check_model_name(wanted.model)
        jurisdictions = jurisdictions_of(wanted.jurisdiction, caller.jurisdictions)
        preferences = preferences_of(wanted.ryvion, caller.preferences)
        features = tuple(sorted(set(wanted.features or ())))
        account = Account(caller.id, allowance=caller.limits.allowance)
        meant = self._aliases.get(wanted.model, wanted.model)
        offered = {model.kind for offer in self._market.offers() for model in offer.models if model.name == meant}
        order: Order
        if offered == {EMBEDDING}:
            order = EmbeddingOrder(
                model=wanted.model,
                texts=("a",),
                jurisdictions=jurisdictions,
                max_price=preferences.max_price,
                preferences=preferences,
                features=features,
                account=account,
            )
        else:
            order = ChatOrder(
                model=wanted.model,
                messages=(ChatMessage("user", "", ""),),
                max_completion_tokens=None,
                jurisdictions=jurisdictions,
                max_price=preferences.max_price,
                preferences=preferences,
                features=features,
                account=account,
            )
        try:
            decision = await self._market.route(order)
        except MarketError as error:
            raise from_market(error, order) from error
        await exchange.answer_json(plain(decision))


class JobRoute:
    """GET /api/v1/jobs/{id}/route: who ran one of the last jobs of this node, and why."""

    def __init__(self, market: Market, keys: Keys) -> None:
        self._market = market
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        exchange = Exchange.of(scope)
        await admit(exchange.headers, self._keys, "read_receipts")
        placement = self._market.placement(scope["path_params"]["job_id"])
        if placement is None:
            problem = "No such job is remembered: decisions are kept in memory, those of the last jobs only."
            raise ApiError("job_not_found", problem, param="job_id")
        await exchange.answer_json(placement_json(placement) | {"route": plain(placement.route)})


def _parse(body: bytes) -> RouteRequest:
    try:
        return RouteRequest.model_validate_json(body)
    except ValidationError as exc:
        raise api_error(exc) from None
