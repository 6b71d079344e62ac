"""The endpoint's routes, as one ASGI application."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ryvion_node.market.interface import Market
from ryvion_node.proxy.access import Keys
from ryvion_node.proxy.aliases import AliasedMarket
from ryvion_node.proxy.chat import ChatCompletions
from ryvion_node.proxy.counting import CountedMarket, RequestCounter
from ryvion_node.proxy.embeddings import Embeddings
from ryvion_node.proxy.endpoints import Health, Models, Receipts
from ryvion_node.proxy.errors import ApiError, Headers
from ryvion_node.proxy.gateway import Gateway
from ryvion_node.proxy.idempotency import Idempotency
from ryvion_node.proxy.knowledge.endpoints import ROUTES as KNOWLEDGE_ROUTES
from ryvion_node.proxy.knowledge.grounding import Grounding
from ryvion_node.proxy.knowledge.service import Knowledge
from ryvion_node.proxy.market_view import JobRoute, OffersView, RouteView
from ryvion_node.proxy.metrics import Metrics, MetricsView
from ryvion_node.proxy.openapi import Description
from ryvion_node.proxy.policy import Policy
from ryvion_node.proxy.receipts import ReceiptStore
from ryvion_node.proxy.responses import Responses
from ryvion_node.proxy.settings import Settings
from ryvion_node.proxy.text_completions import TextCompletions
from ryvion_node.proxy.till import Till
from ryvion_node.proxy.vault import Vault


def create_app(
    market: Market,
    keys: Keys,
    receipts: ReceiptStore,
    settings: Settings,
    vault: Vault,
    metrics: Metrics,
    ports: Iterable[int],
    knowledge: Knowledge | None = None,
) -> Starlette:
    """The application as served on `ports`; it needs trio, and no lifespan."""
    market = CountedMarket(AliasedMarket(market, settings.aliases), metrics)
    hosts = frozenset(f"{host.lower()}:{port}" for host in settings.allowed_hosts for port in ports)
    policy = Policy(hosts, frozenset(settings.allowed_origins))
    till = Till(keys, settings, Idempotency(vault, receipts))
    grounding = Grounding(market, knowledge)
    models, stored = Models(market, keys, settings.aliases), Receipts(receipts, keys)
    routes = [
        Route("/v1/chat/completions", ChatCompletions(market, till, settings, grounding), methods=["POST"]),
        Route("/v1/completions", TextCompletions(market, till, settings, grounding), methods=["POST"]),
        Route("/v1/responses", Responses(market, till, settings, grounding), methods=["POST"]),
        Route("/v1/embeddings", Embeddings(market, till), methods=["POST"]),
        Route("/v1/models", models, methods=["GET"]),
        Route("/v1/models/{model:path}", models, methods=["GET"]),
        Route("/api/v1/offers", OffersView(market, keys), methods=["GET"]),
        Route("/api/v1/route", RouteView(market, till, settings.aliases), methods=["POST"]),
        Route("/api/v1/receipts", stored, methods=["GET"]),
        Route("/api/v1/receipts/{cid}", stored, methods=["GET"]),
        Route("/api/v1/jobs/{job_id}/route", JobRoute(market, keys), methods=["GET"]),
        *(
            Route(path, endpoint(knowledge, keys, till), methods=list(methods))
            for path, endpoint, *methods in KNOWLEDGE_ROUTES
        ),
        Route("/health", Health(), methods=["GET"]),
        Route("/metrics", MetricsView(metrics, keys), methods=["GET"]),
        Route("/openapi.json", Description(), methods=["GET"]),
    ]
    paths: dict[object, str] = {route.endpoint: route.path for route in reversed(routes)}
    app = Starlette(
        routes=routes,
        middleware=[Middleware(RequestCounter, metrics=metrics, paths=paths), Middleware(Gateway, policy=policy)],
        exception_handlers={HTTPException: _no_route},
    )
    app.router.redirect_slashes = False
    return app


async def _no_route(request: Request, exc: Exception) -> Response:
    """Starlette's own 404 and 405 as our error object, which the gateway writes."""
    assert isinstance(exc, HTTPException)
    if exc.status_code == 405:
        allow: Headers = tuple(("allow", value) for name, value in (exc.headers or {}).items() if name == "Allow")
        instead = "".join(f"; send {value}" for _, value in allow)
        raise ApiError("method_not_allowed", f"{request.method} is not possible here{instead}.", headers=allow)
    mend = "A client's base URL is http://HOST:PORT/v1; GET /openapi.json describes what there is."
    raise ApiError("unknown_url", f"There is nothing at {request.method} {request.url.path[:200]!a}. {mend}")
