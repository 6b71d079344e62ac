"""Passing a bought job's events on to whoever shows them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final, Protocol, assert_never

from ryvion_node.market.interface import BoughtJob, Done, MarketError, Outcome, Piece, Placement, Taken

_NOTHING: Final = Piece()


class Sink(Protocol):
    """Who shows an answer."""

    async def taken(self, placement: Placement) -> None:
        """Just before the first piece: who answers."""
        ...

    async def piece(self, piece: Piece) -> None:
        """A piece of the answer, never empty."""
        ...


async def follow(job: BoughtJob, sink: Sink) -> Outcome | Exception:
    """Pass `job`'s events to `sink`; returns how it ended.

    A failure is returned, not raised, so that it cannot be wrapped by the nursery of a context it passes through.
    """
    events = job.events()
    try:
        async for event in events:
            match event:
                case Taken():
                    await sink.taken(event.placement)
                case Piece():
                    if event != _NOTHING:
                        await sink.piece(event)
                case Done():
                    return event.outcome
                case _:
                    assert_never(event)
        return MarketError("node_failed", "The executor's answer broke off.")
    except Exception as exc:  # noqa: BLE001 - handed to the caller, which tells a MarketError from our own failure
        return exc
    finally:
        if isinstance(events, AsyncGenerator):
            await events.aclose()
