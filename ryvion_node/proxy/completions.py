"""Selling an answer: read what is asked, buy it, and pass it on as it comes or as a whole.

The job's context is left as soon as the client goes away, which cancels this handler (see `Exchange.watch`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from functools import partial
from typing import ClassVar

import trio
from starlette.types import Receive, Scope, Send

from ryvion_node.market.interface import BoughtJob, ChatOrder, Market, MarketError, Outcome, Placement
from ryvion_node.proxy.constants import SHUTDOWN_SEND_S
from ryvion_node.proxy.dialect import Asked
from ryvion_node.proxy.errors import ApiError, Headers, from_market
from ryvion_node.proxy.exchange import Exchange
from ryvion_node.proxy.gateway import internal_error, log_failure
from ryvion_node.proxy.orders import order_of
from ryvion_node.proxy.relay import follow
from ryvion_node.proxy.settings import Settings
from ryvion_node.proxy.stream import AnswerStream
from ryvion_node.proxy.till import Till, Visit
from ryvion_node.proxy.whole import WholeAnswer

_STREAM_HEADERS: Headers = (
    ("content-type", "text/event-stream; charset=utf-8"),
    ("cache-control", "no-cache"),
    ("x-accel-buffering", "no"),
)


class Completions(ABC):
    """An ASGI endpoint that sells answers, in its own dialect."""

    id_prefix: ClassVar[str]
    """Begins the ids of its answers."""

    def __init__(self, market: Market, till: Till, settings: Settings) -> None:
        self._market = market
        self._till = till
        self._settings = settings

    @abstractmethod
    def read(self, body: bytes) -> Asked:
        """The request; raises ApiError."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check the caller and the request, then answer."""
        await self._till.serve(scope, self._serve, self.id_prefix)

    async def _serve(self, visit: Visit) -> None:
        asked = self.read(visit.body)
        try:
            order = order_of(asked.chat, visit.caller.jurisdictions, self._settings.default_max_completion_tokens)
        except ApiError as error:
            raise asked.told(error) from None
        order = replace(order, account=visit.account)
        if asked.chat.stream:
            await self._stream(visit.exchange, asked, order)
        else:
            await self._answer(visit.exchange, asked, order)

    async def _answer(self, exchange: Exchange, asked: Asked, order: ChatOrder) -> None:
        """The whole answer at once."""
        try:
            async with self._market.buy(order) as job:
                whole = WholeAnswer(job.placement)
                ended = await follow(job, whole)
        except MarketError as error:
            raise asked.told(from_market(error, order)) from error
        headers = job_headers(whole.placement)
        match ended:
            case Outcome():
                answer = asked.whole(order.account.completion_id, whole.placement, whole.pieces, ended)
                await exchange.answer_json(answer, (*headers, ("x-ryvion-receipt-cid", ended.cid)))
            case MarketError():
                raise asked.told(from_market(ended, order, charged=bool(whole.pieces), headers=headers)) from ended
            case _:
                raise ended

    async def _stream(self, exchange: Exchange, asked: Asked, order: ChatOrder) -> None:
        """The answer as it comes. The status is sent once an executor accepted; until then errors are plain HTTP."""
        try:
            async with self._market.buy(order) as job:
                await exchange.start(200, _STREAM_HEADERS + job_headers(job.placement))
                stream = AnswerStream(
                    exchange,
                    job.placement,
                    partial(asked.frames, order.account.completion_id),
                    self._settings.keep_alive_s,
                )
                ended = await _run(stream, job, exchange)
        except MarketError as error:
            raise asked.told(from_market(error, order)) from error
        match ended:
            case Outcome():
                await stream.finish(ended)
            case MarketError():
                await stream.fail(asked.told(from_market(ended, order)))
            case _:
                log_failure(exchange, ended)
                await stream.fail(internal_error(exchange))


async def _run(stream: AnswerStream, job: BoughtJob, exchange: Exchange) -> Outcome | Exception:
    """Stream the job; when the node stops meanwhile, the client is told so as the last thing."""
    ended: Outcome | Exception | None = None
    try:
        ended = await stream.run(job)
        return ended
    finally:
        if ended is None and not exchange.gone:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + SHUTDOWN_SEND_S):
                await stream.fail(ApiError("node_failed", "This node was stopped before the answer was complete."))


def job_headers(placement: Placement) -> Headers:
    """Which job, on whose node, where."""
    return (
        ("x-ryvion-job-id", placement.job_id),
        ("x-ryvion-node", placement.node_key.hex()),
        ("x-ryvion-jurisdiction", placement.jurisdiction),
    )
