"""Keeps the node's signed Offer in the market: first, on change, refreshed, and withdrawn at the end (spec 03)."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import trio

from ryvion_node.engine.interface import EngineModel
from ryvion_node.executor.constants import (
    OFFER_CHANGE_S,
    OFFER_FIRST_S,
    OFFER_REFRESH_MAX_S,
    OFFER_REFRESH_MIN_S,
)
from ryvion_node.executor.quoting import speed_of
from ryvion_node.log import log_event
from ryvion_protocol.constants import MAX_ADDRESSES_PER_OFFER, MAX_MODELS_PER_OFFER, OFFER_LIFETIME_MS
from ryvion_protocol.errors import FramingError
from ryvion_protocol.messages import Hardware, ModelOffer, Offer, Withdraw
from ryvion_protocol.packet import Packet, pack
from ryvion_protocol.schema import NodeKey
from ryvion_protocol.signing import SigningIdentity

log = logging.getLogger("ryvion.executor.announcer")


@dataclass(frozen=True, slots=True)
class Advert:
    """What does not change while the node runs."""

    network: str
    software: str
    hardware: Hardware
    jurisdiction: str
    location: str
    price_in: int
    price_out: int


def draw_up_offer(
    advert: Advert,
    identity: SigningIdentity,
    models: Sequence[EngineModel],
    free: Callable[[str], int],
    addresses: Sequence[str],
    now_ms: int,
) -> Packet | None:
    """The signed Offer as of now, or None with nothing to sell. Its seq is the time, so that it rises across restarts."""
    for count in range(min(len(models), MAX_MODELS_PER_OFFER), 0, -1):
        try:
            return pack(_offer(advert, identity.public_key, models[:count], free, addresses, now_ms), identity)
        except FramingError:  # long names: the models that fit are offered
            continue
    return None


def _offer(
    advert: Advert,
    key: NodeKey,
    models: Sequence[EngineModel],
    free: Callable[[str], int],
    addresses: Sequence[str],
    now_ms: int,
) -> Offer:
    return Offer(
        network=advert.network,
        node_key=key,
        seq=now_ms,
        issued_ms=now_ms,
        expires_ms=now_ms + OFFER_LIFETIME_MS,
        software=advert.software,
        hardware=advert.hardware,
        jurisdiction=advert.jurisdiction,
        location=advert.location,
        models=tuple(
            ModelOffer(
                name=model.name,
                digest=model.digest,
                quantisation=model.quantisation,
                kind=model.kind,
                context_tokens=model.context_tokens,
                price_in=advert.price_in,
                price_out=advert.price_out,
                slots_total=model.slots,
                slots_free=free(model.name),
                millitokens_per_s=speed_of(model),
                features=tuple(sorted(set(model.features))),
            )
            for model in models
        ),
        addresses=tuple(addresses[:MAX_ADDRESSES_PER_OFFER]),
    )


class Announcer:
    """Publishes the offer while there is something to sell."""

    def __init__(
        self,
        draw_up: Callable[[int], Packet | None],
        publish: Callable[[Packet], Awaitable[None]],
        identity: SigningIdentity,
        network_id: str,
        clock_ms: Callable[[], int],
    ) -> None:
        self._draw_up = draw_up
        self._publish = publish
        self._identity = identity
        self._network_id = network_id
        self._clock_ms = clock_ms
        self._announced: Offer | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Announce until cancelled, then withdraw."""
        task_status.started()
        try:
            await self._announce()
            await trio.sleep(OFFER_FIRST_S)
            while True:
                await self._announce()
                await self._wait_for_change()
        finally:
            with trio.move_on_after(2, shield=True):
                await self._withdraw()

    async def _wait_for_change(self) -> None:
        refresh_s = random.uniform(OFFER_REFRESH_MIN_S, OFFER_REFRESH_MAX_S)
        await trio.sleep(OFFER_CHANGE_S)
        for _ in range(math.ceil(refresh_s - OFFER_CHANGE_S)):
            if self._changed():
                return
            await trio.sleep(1)

    def _changed(self) -> bool:
        """Would a buyer decide otherwise? Models came or went, can do something else, or became full or free again."""
        packet = self._draw_up(self._clock_ms())
        return _essence(packet) != _essence_of(self._announced)

    async def _announce(self) -> None:
        packet = self._draw_up(self._clock_ms())
        if packet is None or not isinstance(packet.message, Offer):
            await self._withdraw()
            return
        self._announced = packet.message
        await self._publish(packet)
        log_event(log, "offer_announced", models=len(packet.message.models))

    async def _withdraw(self) -> None:
        if self._announced is None:
            return
        now_ms = self._clock_ms()
        seq = max(now_ms, self._announced.seq + 1)
        withdraw = Withdraw(self._network_id, self._identity.public_key, seq, now_ms)
        self._announced = None
        await self._publish(pack(withdraw, self._identity))


_Essence = frozenset[tuple[str, bytes, bool, tuple[str, ...]]]


def _essence(packet: Packet | None) -> _Essence:
    return _essence_of(packet.message if packet is not None and isinstance(packet.message, Offer) else None)


def _essence_of(offer: Offer | None) -> _Essence:
    models = offer.models if offer else ()
    return frozenset((model.name, model.digest, model.slots_free > 0, model.features) for model in models)
