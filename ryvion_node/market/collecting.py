"""Taking in a bought embedding whole."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from ryvion_node.market.interface import (
    BoughtEmbedding,
    Done,
    MarketError,
    Outcome,
    Placement,
    Taken,
    VectorsPiece,
)


@dataclass(frozen=True, slots=True)
class Embedded:
    """Everything that came."""

    placement: Placement
    outcome: Outcome
    dimensions: int
    values: bytes
    """Little-endian float32, one vector after the other."""


class OtherDimensions(Exception):
    """The model makes vectors of another length than was wanted; those that had come by then are paid for."""

    def __init__(self, placement: Placement, found: int) -> None:
        super().__init__(f"the model makes vectors of {found} numbers")
        self.placement = placement
        self.found = found


async def collect(job: BoughtEmbedding, dimensions: int | None = None) -> Embedded | Exception:
    """All vectors of a job. A failure is returned, not raised, so that no nursery on the way wraps it."""
    placement, values, found = job.placement, bytearray(), 0
    events = job.events()
    try:
        async for event in events:
            match event:
                case Taken():
                    placement = event.placement
                    values.clear()  # another executor's vectors are not mixed with those that came
                case VectorsPiece():
                    found = event.dimensions
                    values += event.values
                    if dimensions not in (None, found):
                        return OtherDimensions(placement, found)
                case Done():
                    return Embedded(placement, event.outcome, found, bytes(values))
        return MarketError("node_failed", "The executor's answer broke off.")
    except Exception as exc:  # noqa: BLE001 - handed to the caller, which tells a MarketError from our own failure
        return exc
    finally:
        if isinstance(events, AsyncGenerator):
            await events.aclose()
