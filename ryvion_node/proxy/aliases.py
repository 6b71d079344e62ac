"""Names that the owner gives to models on offer, for clients that ask for the names they know."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import TypeVar

from ryvion_node.market.interface import (
    BoughtEmbedding,
    BoughtJob,
    ChatOrder,
    EmbeddingOrder,
    Market,
    Order,
    Placement,
    Route,
)
from ryvion_protocol.messages import Offer

OrderT = TypeVar("OrderT", bound=Order)


class AliasedMarket:
    """Implements Market by another one: what is ordered by an alias is bought by the name that it stands for."""

    def __init__(self, market: Market, aliases: Mapping[str, str]) -> None:
        self._market = market
        self._aliases = aliases

    def buy(self, order: ChatOrder) -> AbstractAsyncContextManager[BoughtJob]:
        """As the other one. The answer names the model that was bought."""
        return self._market.buy(self._meant(order))

    def embed(self, order: EmbeddingOrder) -> AbstractAsyncContextManager[BoughtEmbedding]:
        """As the other one."""
        return self._market.embed(self._meant(order))

    async def route(self, order: Order) -> Route:
        """As the other one."""
        return await self._market.route(self._meant(order))

    async def fits(self, order: ChatOrder) -> bool:
        """As the other one."""
        return await self._market.fits(self._meant(order))

    def placement(self, job_id: str) -> Placement | None:
        """As the other one."""
        return self._market.placement(job_id)

    def offers(self) -> tuple[Offer, ...]:
        """As the other one: nodes offer models by their own names."""
        return self._market.offers()

    def _meant(self, order: OrderT) -> OrderT:
        return replace(order, model=self._aliases.get(order.model, order.model))


def with_aliases(models: Mapping[str, dict[str, object]], aliases: Mapping[str, str]) -> dict[str, dict[str, object]]:
    """Models by name, and once more by each alias of one that is on offer, which says what it stands for."""
    listed = dict(models)
    for alias, name in aliases.items():
        if name in models:
            about = models[name]["ryvion"]
            assert isinstance(about, dict)
            listed[alias] = models[name] | {"id": alias, "ryvion": about | {"alias_of": name}}
    return listed
