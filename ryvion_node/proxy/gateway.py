"""The outermost layer of the endpoint: every request gets an id, a policy check, and exactly one orderly end."""

from __future__ import annotations

import logging
import time
import traceback

import trio
from starlette.types import ASGIApp, Receive, Scope, Send

from ryvion_node.errors import OperatorError
from ryvion_node.log import log_event
from ryvion_node.proxy.errors import ApiError
from ryvion_node.proxy.exchange import ClientGone, Exchange, new_request_id
from ryvion_node.proxy.policy import Policy, is_preflight, preflight_headers

log = logging.getLogger("ryvion.proxy.gateway")


class Gateway:
    """ASGI middleware around the routes. Nothing a client sends gets an exception past it."""

    def __init__(self, app: ASGIApp, policy: Policy) -> None:
        self._app = app
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; other kinds of connection go to the routes, which refuse them."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = Exchange(scope, receive, send, new_request_id())
        try:
            async with trio.open_nursery() as nursery:
                with trio.CancelScope() as handling:
                    nursery.start_soon(exchange.watch, handling)
                    await self._handle(exchange, scope, receive, send)
                nursery.cancel_scope.cancel()
        except Exception as exc:  # noqa: BLE001 - the last guard: a failing handler must not end the node
            log_failure(exchange, exc)
        finally:
            _log_request(exchange, scope)

    async def _handle(self, exchange: Exchange, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            exchange.add_headers(self._policy.cors(exchange.headers))
            self._policy.check(exchange.headers)
            if is_preflight(exchange.method, exchange.headers):
                await exchange.start(204, preflight_headers(exchange.headers))
                await exchange.finish()
            else:
                await self._app(scope, receive, send)
        except ApiError as error:
            await exchange.refuse(error)
        except ClientGone:
            pass
        except Exception as exc:  # noqa: BLE001 - translated: the client gets an error object, the log the place
            log_failure(exchange, exc)
            await exchange.refuse(internal_error(exchange))


def internal_error(exchange: Exchange) -> ApiError:
    """What a client reads when we failed; the log has the rest under the same id."""
    return ApiError("internal_error", f"The node failed on this request; its log names {exchange.request_id}.")


def log_failure(exchange: Exchange, exc: BaseException) -> None:
    """Log where an exception came from. Not its message, which may quote the prompt; an OperatorError's never does."""
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    frames = traceback.extract_tb(exc.__traceback__)[-3:]
    place = " < ".join(f"{frame.name}:{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}" for frame in reversed(frames))
    told = str(exc) if isinstance(exc, OperatorError) else None
    error = type(exc).__name__
    log_event(
        log,
        "request_failed",
        level=logging.ERROR,
        request_id=exchange.request_id,
        error=error,
        state=place,
        reason=told,
    )


def _log_request(exchange: Exchange, scope: Scope) -> None:
    """One line per request. Not its path: a key pasted into it would be logged."""
    log_event(
        log,
        "request",
        request_id=exchange.request_id,
        method=exchange.method,
        name=type(scope.get("endpoint")).__name__ if "endpoint" in scope else "none",
        status=exchange.status,
        ms=int((time.perf_counter() - exchange.started_at) * 1000),
        state="client_gone" if exchange.gone else "answered",
    )
