"""Selling an answer: read what is asked, buy it, and pass it on as it comes or as a whole.

The context of every job is left as soon as the client goes away, which cancels this handler (see `Exchange.watch`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar

import trio
from starlette.types import Receive, Scope, Send

from ryvion_node.market.interface import ChatOrder, Market, MarketError, Placement
from ryvion_node.proxy.choices import buy_choices
from ryvion_node.proxy.constants import SHUTDOWN_SEND_S
from ryvion_node.proxy.dialect import Asked
from ryvion_node.proxy.errors import ApiError, Headers, from_market
from ryvion_node.proxy.exchange import Exchange
from ryvion_node.proxy.gateway import internal_error, log_failure
from ryvion_node.proxy.knowledge.grounding import Grounding
from ryvion_node.proxy.orders import order_of, orders_of_choices
from ryvion_node.proxy.settings import Settings
from ryvion_node.proxy.stream import AnswerStream
from ryvion_node.proxy.till import Till, Visit
from ryvion_node.proxy.whole import WholeChoice

_STREAM_HEADERS: Headers = (
    ("content-type", "text/event-stream; charset=utf-8"),
    ("cache-control", "no-cache"),
    ("x-accel-buffering", "no"),
)


class Completions(ABC):
    """An ASGI endpoint that sells answers, in its own dialect."""

    id_prefix: ClassVar[str]
    """Begins the ids of its answers."""

    def __init__(self, market: Market, till: Till, settings: Settings, grounding: Grounding) -> None:
        self._market = market
        self._till = till
        self._settings = settings
        self._grounding = grounding

    @abstractmethod
    def read(self, body: bytes) -> Asked:
        """The request; raises ApiError."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check the caller and the request, then answer."""
        await self._till.serve(scope, self._serve, self.id_prefix)

    async def _serve(self, visit: Visit) -> None:
        asked = self.read(visit.body)
        prompts, choices = self._prompts(asked, visit), asked.chats[0].choices
        with self._till.further(visit.caller, len(prompts) * choices - 1):
            grounds = await self._grounding.of(asked, prompts, visit.caller)
            orders = orders_of_choices([ground.order for ground in grounds], choices)
            about = [ground.about for ground in grounds for _ in range(choices)]
            if asked.chats[0].stream:
                await self._stream(visit.exchange, asked, orders, about)
            else:
                await self._answer(visit.exchange, asked, orders, about)

    def _prompts(self, asked: Asked, visit: Visit) -> list[ChatOrder]:
        """An order for each prompt, which all its choices share."""
        default_max_tokens = self._settings.default_max_completion_tokens
        try:
            orders = [
                order_of(chat, visit.caller.jurisdictions, default_max_tokens, visit.caller.preferences)
                for chat in asked.chats
            ]
        except ApiError as error:
            raise asked.told(error) from None
        return [replace(order, account=visit.account) for order in orders]

    async def _answer(
        self, exchange: Exchange, asked: Asked, orders: Sequence[ChatOrder], about: Sequence[dict[str, object]]
    ) -> None:
        """The whole answer at once. `about`: what `ryvion` says of each choice besides who ran it."""
        choices = [WholeChoice(one) for one in about]
        first = choices[0]
        failure = await buy_choices(self._market, orders, choices)
        headers = job_headers(first.placement) if first.is_placed else ()
        match failure:
            case None:
                answer = asked.whole(orders[0].account.completion_id, choices)
                await exchange.answer_json(answer, (*headers, ("x-ryvion-receipt-cid", first.outcome.cid)))
            case MarketError():
                charged = any(choice.pieces for choice in choices)
                raise asked.told(from_market(failure, orders[0], charged=charged, headers=headers)) from failure
            case _:
                raise failure

    async def _stream(
        self, exchange: Exchange, asked: Asked, orders: Sequence[ChatOrder], about: Sequence[dict[str, object]]
    ) -> None:
        """The answer as it comes. The status is sent once an executor accepted; until then errors are plain HTTP."""
        stream = AnswerStream(
            exchange,
            lambda placement: _STREAM_HEADERS + job_headers(placement),
            partial(asked.frames, orders[0].account.completion_id, about=about),
            self._settings.keep_alive_s,
        )
        failure = await self._run(stream, orders, exchange)
        match failure:
            case None:
                await stream.finish()
            case MarketError():
                error = asked.told(from_market(failure, orders[0]))
                if not stream.is_open:
                    raise error from failure
                await stream.fail(error)
            case _:
                if not stream.is_open:
                    raise failure
                log_failure(exchange, failure)
                await stream.fail(internal_error(exchange))

    async def _run(self, stream: AnswerStream, orders: Sequence[ChatOrder], exchange: Exchange) -> Exception | None:
        """Stream the jobs; when the node stops meanwhile, the client is told so as the last thing."""
        over = False
        try:
            failure = await stream.run(self._market, orders)
            over = True
            return failure
        finally:
            if stream.is_open and not over and not exchange.gone:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + SHUTDOWN_SEND_S):
                    await stream.fail(ApiError("node_failed", "This node was stopped before the answer was complete."))


def job_headers(placement: Placement) -> Headers:
    """Which job, on whose node, where."""
    return (
        ("x-ryvion-job-id", placement.job_id),
        ("x-ryvion-node", placement.node_key.hex()),
        ("x-ryvion-jurisdiction", placement.jurisdiction),
    )
