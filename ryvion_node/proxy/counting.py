"""What the endpoint sees of every request and every order, put into its metrics."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, Generic, Protocol, TypeVar

import trio
from starlette.types import ASGIApp, Receive, Scope, Send

from ryvion_node.market.interface import (
    BoughtEmbedding,
    BoughtJob,
    ChatOrder,
    Done,
    EmbeddingEvent,
    EmbeddingOrder,
    JobEvent,
    Market,
    MarketError,
    Piece,
    Placement,
)
from ryvion_node.proxy.exchange import Exchange
from ryvion_node.proxy.metrics import Metrics

E_co = TypeVar("E_co", bound=JobEvent | EmbeddingEvent, covariant=True)

_NOT_COUNTED: Final = ("/metrics", "/health")
"""They look at the node; counting them would show the looking."""


class RequestCounter:
    """ASGI middleware around everything. `paths`: the route's path of each endpoint, for there are few of these."""

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: Mapping[object, str]) -> None:
        self._app = app
        self._metrics = metrics
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, and count it once it is over."""
        if scope["type"] != "http" or scope["path"] in _NOT_COUNTED:
            await self._app(scope, receive, send)
            return
        with self._metrics.in_flight.track_inprogress():
            try:
                await self._app(scope, receive, send)
            finally:
                self._count(scope)

    def _count(self, scope: Scope) -> None:
        exchange = Exchange.of(scope)
        path = self._paths.get(scope.get("endpoint"), "other")
        status = "client_gone" if exchange.gone else str(exchange.status)
        self._metrics.requests.labels(path, status).inc()
        if exchange.failure:
            self._metrics.errors.labels(exchange.failure).inc()


class CountedMarket:
    """Implements Market by another one, and counts how its orders end and at what pace their answers come."""

    def __init__(self, market: Market, metrics: Metrics) -> None:
        self._market = market
        self._metrics = metrics
        self.route = market.route
        self.fits = market.fits
        self.offers = market.offers
        self.placement = market.placement

    def buy(self, order: ChatOrder) -> AbstractAsyncContextManager[BoughtJob]:
        """As the other one."""
        return self._counted(self._market.buy(order))

    def embed(self, order: EmbeddingOrder) -> AbstractAsyncContextManager[BoughtEmbedding]:
        """As the other one; an embedding has no pace, so only its end is counted."""
        return self._counted(self._market.embed(order))

    @asynccontextmanager
    async def _counted(self, placing: AbstractAsyncContextManager[_Bought[E_co]]) -> AsyncIterator[_CountedJob[E_co]]:
        asked_at = trio.current_time()
        counted: _CountedJob[E_co] | None = None
        result = "left"
        try:
            async with placing as job:
                counted = _CountedJob(job, self._metrics, asked_at)
                yield counted
        except MarketError as error:
            result = error.code
            raise
        finally:
            self._metrics.orders.labels(result if counted is None else counted.result).inc()


class _Bought(Protocol[E_co]):
    """A job of either kind."""

    @property
    def placement(self) -> Placement: ...

    def events(self) -> AsyncIterator[E_co]: ...


class _CountedJob(Generic[E_co]):
    """A bought job, and what came of it so far."""

    def __init__(self, job: _Bought[E_co], metrics: Metrics, asked_at: float) -> None:
        self._job = job
        self._metrics = metrics
        self._asked_at = asked_at
        self.result = "left"
        """Until its end: whoever leaves before it has left the job."""

    @property
    def placement(self) -> Placement:
        """Who runs it."""
        return self._job.placement

    async def events(self) -> AsyncIterator[E_co]:
        """As they come."""
        last_at: float | None = None
        events = self._job.events()
        try:
            async for event in events:
                match event:
                    case Piece():
                        now = trio.current_time()
                        if last_at is None:
                            self._metrics.first_token.observe(now - self._asked_at)
                        else:
                            self._metrics.inter_token.observe(now - last_at)
                        last_at = now
                    case Done():
                        self.result = "done"
                yield event
        except MarketError as error:
            self.result = error.code
            raise
        finally:
            if isinstance(events, AsyncGenerator):
                await events.aclose()
