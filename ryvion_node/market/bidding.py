"""The quote round: ask several executors at once, wait no longer than it pays (spec 04)."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import trio

from ryvion_node.market.constants import (
    MAX_FIRST_TOKEN_S,
    QUOTE_GRACE_MAX_S,
    QUOTE_GRACE_MIN_S,
    QUOTE_TIMEOUT_S,
    QUOTE_TURN_S,
)
from ryvion_node.market.filters import Eligible, candidate
from ryvion_node.market.interface import Candidate, Order
from ryvion_node.market.open_quotes import Hold, OpenQuotes
from ryvion_node.market.selection import Bid, bid_cost
from ryvion_node.market.wanted import expected_completion, most_completion, needed_features
from ryvion_node.p2p.channel import JobChannel
from ryvion_node.p2p.interface import Network, PeerUnreachable, StreamBroken
from ryvion_protocol.agreement import check_quote
from ryvion_protocol.constants import MARKET_PROTOCOL
from ryvion_protocol.errors import ProtocolError
from ryvion_protocol.messages import Error, Quote, QuoteRequest, Refusal
from ryvion_protocol.packet import Packet, pack

log = logging.getLogger("ryvion.market.bidding")


@dataclass(frozen=True, slots=True)
class LiveBid:
    """A quote whose slot is held, and the open stream to take it up on."""

    bid: Bid
    packet: Packet
    channel: JobChannel
    hold: Hold
    """Given back once the quote is ordered, or not wanted."""


@dataclass(slots=True)
class Round:
    """What came back from one round of questions."""

    bids: list[LiveBid] = field(default_factory=list)
    lines: list[Candidate] = field(default_factory=list)
    """Those that did not bid, and why."""
    late: list[Eligible] = field(default_factory=list)
    """Of these, those that were slower than the winner; worth another question when it breaks."""
    retry_after_ms: list[int] = field(default_factory=list)
    """When those that refused for now said to come again."""


@dataclass(frozen=True, slots=True)
class Declined:
    """No bid, and why."""

    line: Candidate
    retry_after_ms: int = 0
    """When it says that asking again may help; 0: it does not."""


Answer = LiveBid | Declined


class Bidding:
    """Holds quote rounds. Streams that lose or answer late are closed in the owner's nursery, off the hot path."""

    def __init__(self, network: Network, network_id: str, nursery: trio.Nursery, clock_ms: Callable[[], int]) -> None:
        self._clock_ms = clock_ms
        self._network = network
        self._network_id = network_id
        self._nursery = nursery
        self._open_quotes = OpenQuotes()

    def release(self, live: LiveBid) -> None:
        """Leave a bid: its stream is closed in the background."""
        live.hold.release()
        self._nursery.start_soon(live.channel.close)

    async def hold_round(self, asked: Sequence[Eligible], order: Order, nonce: bytes) -> Round:
        """Ask all of `asked`; return when all answered, or a grace time after the first good bid."""
        answers_in, answers = trio.open_memory_channel[Answer](len(asked))
        for eligible in asked:
            self._nursery.start_soon(self._ask, eligible, order, nonce, answers_in)
        result = Round()
        try:
            await self._gather(asked, answers, result, patient=order.preferences.ranking == "price")
        except BaseException:
            for live in result.bids:
                self.release(live)
            raise
        finally:
            self._close(answers)
        return result

    def _close(self, answers: trio.MemoryReceiveChannel[Answer]) -> None:
        """Take no more answers; the streams of bids that came and were not looked at are closed."""
        while answers.statistics().current_buffer_used:
            answer = answers.receive_nowait()
            if isinstance(answer, LiveBid):
                self.release(answer)
        answers.close()

    async def _gather(
        self, asked: Sequence[Eligible], answers: trio.MemoryReceiveChannel[Answer], into: Round, *, patient: bool
    ) -> None:
        """`patient`: who wants the lowest price waits the whole grace time for it."""
        shortest_s = QUOTE_GRACE_MAX_S if patient else QUOTE_GRACE_MIN_S
        started = trio.current_time()
        waiting = {eligible.key: eligible for eligible in asked}
        with trio.move_on_after(QUOTE_TURN_S + QUOTE_TIMEOUT_S) as scope:
            while waiting:
                answer = await answers.receive()
                if isinstance(answer, LiveBid):
                    del waiting[answer.bid.eligible.key]
                    into.bids.append(answer)
                    took_s = trio.current_time() - started
                    grace_s = min(max(took_s, shortest_s), QUOTE_GRACE_MAX_S)
                    scope.deadline = min(scope.deadline, trio.current_time() + grace_s)
                else:
                    del waiting[answer.line.node_key]
                    into.lines.append(answer.line)
                    if answer.retry_after_ms:
                        into.retry_after_ms.append(answer.retry_after_ms)
        into.lines += [candidate(e.offer, e.model, "no_answer", "no quote in time") for e in waiting.values()]
        if into.bids:
            into.late += waiting.values()

    async def _ask(
        self, eligible: Eligible, order: Order, nonce: bytes, answers: trio.MemorySendChannel[Answer]
    ) -> None:
        """Get one quote and hand it over; close the stream when nobody waits for it any more."""
        answer = await self._quote_from(eligible, order, nonce)
        try:
            answers.send_nowait(answer)
        except trio.BrokenResourceError:
            if isinstance(answer, LiveBid):
                self.release(answer)

    async def _quote_from(self, eligible: Eligible, order: Order, nonce: bytes) -> Answer:
        def line(outcome: str, reason: str, retry_after_ms: int = 0) -> Declined:
            return Declined(candidate(eligible.offer, eligible.model, outcome, reason), retry_after_ms)

        self._network.learn_addresses(eligible.key, eligible.offer.addresses)
        hold: Hold | None = None
        channel: JobChannel | None = None
        kept = False
        try:
            hold = await self._turn(eligible)
            if hold is None:
                return line(
                    "not_asked", f"no turn to ask within {QUOTE_TURN_S:g} s: too many requests of this node wait"
                )
            with trio.fail_after(QUOTE_TIMEOUT_S):
                channel = JobChannel(await self._network.open_stream(eligible.key, MARKET_PROTOCOL), "requester")
                request = pack(self._request(eligible, order, nonce))
                await channel.send(request)
                packet = await channel.receive()
            match packet.message:
                case Quote() as quote:
                    check_quote(packet, request, channel.peer, self._clock_ms())
                    reason = unacceptable(quote, eligible, order)
                    if reason is not None:
                        return line("refused", reason)
                    kept = True
                    return LiveBid(Bid(eligible, quote), packet, channel, hold)
                case Refusal() as refusal:
                    return line("refused", f"{refusal.code}: {refusal.message}", refusal.retry_after_ms)
                case Error() as error:
                    return line("refused", f"{error.code}: {error.message}", error.retry_after_ms)
                case other:
                    return line("refused", f"unexpected {type(other).__name__}")
        except PeerUnreachable as exc:
            return line("unreachable", str(exc))
        except trio.TooSlowError:
            return line("no_answer", f"no quote within {QUOTE_TIMEOUT_S:g} s")
        except StreamBroken as exc:
            return line("no_answer", str(exc))
        except ProtocolError as exc:
            return line("refused", f"broke the protocol ({exc.code}): {exc}")
        finally:
            if hold is not None and not kept:
                hold.release()
            if channel is not None and not kept:
                self._nursery.start_soon(channel.close)

    async def _turn(self, eligible: Eligible) -> Hold | None:
        """The right to ask; None when too many of this node's requests come before."""
        with trio.move_on_after(QUOTE_TURN_S):
            return await self._open_quotes.hold(eligible.key, eligible.model.slots_total)
        return None

    def _request(self, eligible: Eligible, order: Order, nonce: bytes) -> QuoteRequest:
        room = eligible.completion_room
        return QuoteRequest(
            network=self._network_id,
            nonce=nonce,
            model=eligible.model.name,
            digest=eligible.model.digest,
            kind=order.kind,
            prompt_tokens_max=eligible.prompt_limit,
            completion_tokens_max=min(most_completion(order) or room, room),
            jurisdictions=order.jurisdictions,
            max_price=(order.max_price or 0) if order.tells_max_price else 0,
            patience_ms=math.ceil(QUOTE_TIMEOUT_S * 1000),
            features=needed_features(order),
        )


def unacceptable(quote: Quote, eligible: Eligible, order: Order) -> str | None:
    """Why a proper quote is still not good enough for this order; None when it is."""
    if quote.jurisdiction != eligible.offer.jurisdiction:
        return f"the quote says jurisdiction {quote.jurisdiction}, the offer said {eligible.offer.jurisdiction}"
    if not eligible.embeds and eligible.prompt_limit + 1 > quote.context_tokens:
        return f"the quoted context of {quote.context_tokens} tokens is too small"
    if quote.first_token_ms > MAX_FIRST_TOKEN_S * 1000:
        return f"its first token would come in {quote.first_token_ms} ms, {MAX_FIRST_TOKEN_S:g} s are the limit"
    if quote.price_in > eligible.model.price_in or quote.price_out > eligible.model.price_out:
        said, offered = (quote.price_in, quote.price_out), (eligible.model.price_in, eligible.model.price_out)
        return f"price: the quote says {said[0]}/{said[1]} per million tokens, the offer said {offered[0]}/{offered[1]}"
    cost = bid_cost(Bid(eligible, quote), expected_completion(order))
    if order.max_price is not None and cost > order.max_price:
        return f"price: it would cost {cost} micro-credits, the limit is {order.max_price}"
    return None
