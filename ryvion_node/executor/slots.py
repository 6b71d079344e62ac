"""Room for jobs: slots and a bounded queue per model, held by quotes and taken by jobs (pure, no clock)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ryvion_node.executor.constants import MAX_HOLDS_PER_PEER
from ryvion_protocol.schema import NodeKey


@dataclass(frozen=True, slots=True)
class Place:
    """One job's room on one model, from its quote until it ends."""

    number: int
    model: str
    peer: NodeKey


class SlotBook:
    """Who holds room where. A place is one that runs, waits, or has only been quoted."""

    def __init__(self, max_queue: int) -> None:
        self._max_queue = max_queue
        self._slots: dict[str, int] = {}
        self._places: dict[int, Place] = {}
        self._quoted: set[int] = set()
        """Numbers of the places that were quoted and not ordered yet."""
        self._next = 0

    def set_models(self, slots: Mapping[str, int]) -> None:
        """Jobs at once per model; places of models that went away stay until their jobs end."""
        self._slots = dict(slots)

    def taken(self, model: str) -> int:
        return sum(place.model == model for place in self._places.values())

    def free(self, model: str) -> int:
        """Slots that a job could start on at once."""
        return max(0, self._slots.get(model, 0) - self.taken(model))

    def queue_depth(self, model: str) -> int:
        """Jobs that the next one would wait behind."""
        return max(0, self.taken(model) + 1 - self._slots.get(model, 0))

    def is_full(self, model: str) -> bool:
        """Is there no room, whoever asks?"""
        return self.taken(model) >= self._room(model)

    def hold(self, model: str, peer: NodeKey) -> Place | None:
        """Reserve room for a quote; None when slots and queue are full, or the peer holds enough without ordering."""
        quoted = sum(self._places[number].peer == peer for number in self._quoted)
        if self.is_full(model) or quoted >= min(MAX_HOLDS_PER_PEER, max(1, self._room(model) - 1)):
            return None
        place = Place(self._next, model, peer)
        self._next += 1
        self._places[place.number] = place
        self._quoted.add(place.number)
        return place

    def order(self, place: Place) -> None:
        """The quote was taken up: it no longer counts among those its peer holds open."""
        self._quoted.discard(place.number)

    def release(self, place: Place) -> None:
        """Give room back; twice does no harm."""
        self._places.pop(place.number, None)
        self._quoted.discard(place.number)

    def _room(self, model: str) -> int:
        return self._slots.get(model, 0) + self._max_queue
