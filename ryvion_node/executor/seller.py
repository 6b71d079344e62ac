"""The executor: answers quote requests, holds slots, runs ordered jobs (spec 04)."""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from ryvion_node.engine.interface import EngineModel
from ryvion_node.executor.chat import SoldChat
from ryvion_node.executor.constants import ORDER_GRACE_S, PAUSED_RETRY_MS, REQUEST_TIMEOUT_S, STANDBY_S
from ryvion_node.executor.embedding import SoldEmbedding
from ryvion_node.executor.job import SoldJob
from ryvion_node.executor.quoting import Shop, busy, fitting_model, quote_for, refusal_of
from ryvion_node.executor.slots import SlotBook
from ryvion_node.executor.workshop import SoldTerms, Workshop
from ryvion_node.ledger.errors import JobExists, LedgerError
from ryvion_node.log import log_event
from ryvion_node.p2p.channel import JobChannel
from ryvion_node.p2p.interface import Stream, StreamBroken
from ryvion_protocol.agreement import check_features, check_job_offer, check_job_request, check_kind
from ryvion_protocol.errors import ProtocolError
from ryvion_protocol.job import job_id_of
from ryvion_protocol.messages import Cancel, EmbedRequest, Error, JobOffer, JobRequest, Quote, QuoteRequest, Refusal
from ryvion_protocol.packet import Packet, pack
from ryvion_protocol.schema import as_note

log = logging.getLogger("ryvion.executor.seller")


Ordered = tuple[SoldTerms, JobRequest | EmbedRequest]


class Seller:
    """Serves the market protocol. One handler task per stream; nothing a peer does escapes it."""

    def __init__(
        self,
        workshop: Workshop,
        shop: Callable[[tuple[EngineModel, ...]], Shop],
        max_queue: int,
        paused: Callable[[], str] = lambda: "",
    ) -> None:
        """`paused` says why nothing is sold now; empty: all is well."""
        self._workshop = workshop
        self._shop = shop
        self._slots = SlotBook(max_queue)
        self._turns: dict[str, trio.CapacityLimiter] = {}
        self._paused = paused

    def free_slots(self, model: str) -> int:
        """Slots that a job could start on at once; what the Offer advertises, also before anybody asked for a quote."""
        self._slots.set_models({served.name: served.slots for served in self._workshop.engine.models()})
        return 0 if self._paused() else self._slots.free(model)

    def load(self) -> tuple[tuple[str, int, int], ...]:
        """Of each model: its name, its slots, and the jobs that hold or wait for one."""
        return tuple(
            (model.name, model.slots, self._slots.taken(model.name)) for model in self._workshop.engine.models()
        )

    async def serve(self, stream: Stream) -> None:
        """Handle one inbound market stream from quote to acceptance."""
        channel = JobChannel(stream, "executor")
        try:
            await self._serve(channel)
        except ProtocolError as exc:
            log_event(log, "peer_broke_protocol", peer=stream.peer.hex(), code=exc.code)
            await _tell(channel, Error(400, exc.code, as_note(str(exc)), 0))
        except JobExists:
            await _tell(channel, Error(409, "job_replayed", "this order was placed before", 0))
        except LedgerError as exc:
            log_event(log, "ledger_unavailable", reason=str(exc))
            await _tell(channel, Error(503, "ledger_unavailable", "this node cannot keep its books now", 60_000))
        except (StreamBroken, trio.TooSlowError):
            return
        finally:
            await channel.close()

    async def _serve(self, channel: JobChannel) -> None:
        with trio.fail_after(STANDBY_S):
            asked = await channel.receive()
        match asked.message:
            case QuoteRequest() as request:
                await self._quote(channel, asked, request)
            case _:
                return

    async def _quote(self, channel: JobChannel, asked: Packet, request: QuoteRequest) -> None:
        shop = self._shop(self._workshop.engine.models())
        self._slots.set_models({model.name: model.slots for model in shop.models})
        model = fitting_model(shop, request)
        refusal = refusal_of(shop, request, model)
        if refusal is not None or model is None:
            await channel.send(pack(refusal or Refusal("model_gone", "", 0)))
            return
        if reason := self._paused():
            await channel.send(pack(Refusal("busy", as_note(f"not selling now: {reason}"), PAUSED_RETRY_MS)))
            return
        depth = self._slots.queue_depth(model.name)
        place = self._slots.hold(model.name, channel.peer)
        if place is None:
            await channel.send(pack(busy(model, full=self._slots.is_full(model.name))))
            return
        try:
            now_ms = self._workshop.clock_ms()
            quote = pack(quote_for(shop, request, asked.hash, model, depth, now_ms), self._workshop.identity)
            await channel.send(quote)
            ordered = await self._await_order(channel, asked, quote)
            if ordered is not None:
                self._slots.order(place)
                turn = self._turns.setdefault(model.name, trio.CapacityLimiter(model.slots))
                job = self._new_job(channel, *ordered, turn)
                await job.generate()
                self._slots.release(place)
                await job.settle()
        finally:
            self._slots.release(place)

    async def _await_order(self, channel: JobChannel, requested: Packet, quote: Packet) -> Ordered | None:
        assert isinstance(quote.message, Quote)
        held_s = (quote.message.expires_ms - quote.message.issued_ms) / 1000 + ORDER_GRACE_S
        with trio.fail_after(held_s):
            ordered = await channel.receive()
        if isinstance(ordered.message, Cancel):
            return None
        with trio.fail_after(REQUEST_TIMEOUT_S):
            asked = await channel.receive()
        if isinstance(asked.message, Cancel):
            return None
        offer, request = ordered.message, asked.message
        if not isinstance(offer, JobOffer) or not isinstance(request, JobRequest | EmbedRequest):
            return None
        check_job_offer(ordered, quote, requested, channel.peer, self._workshop.clock_ms())
        check_job_request(asked, ordered)
        check_kind(asked, ordered, requested)
        check_features(asked, ordered, requested)
        terms = SoldTerms(job_id_of(ordered), ordered, offer, request.chunk_hashes, quote, quote.message)
        return terms, request

    def _new_job(
        self, channel: JobChannel, terms: SoldTerms, request: JobRequest | EmbedRequest, turn: trio.CapacityLimiter
    ) -> SoldJob:
        if isinstance(request, EmbedRequest):
            return SoldEmbedding(self._workshop, channel, terms, request, turn)
        return SoldChat(self._workshop, channel, terms, request, turn)


async def _tell(channel: JobChannel, error: Error) -> None:
    try:
        await channel.send(pack(error))
    except (StreamBroken, ProtocolError):
        return
