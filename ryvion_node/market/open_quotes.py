"""Quotes that we hold open at one executor: no more at once than it grants one requester without orders."""

from __future__ import annotations

from dataclasses import dataclass

import trio

from ryvion_node.market.constants import MAX_OPEN_QUOTES
from ryvion_protocol.schema import NodeKey


@dataclass(slots=True)
class _Window:
    seats: trio.Semaphore
    users: int = 0
    """Holds and those who wait for one; the window is forgotten with the last."""


class Hold:
    """The right to one open quote; giving it back twice does no harm."""

    def __init__(self, windows: dict[NodeKey, _Window], executor: NodeKey) -> None:
        self._windows = windows
        self._executor = executor
        self._window: _Window | None = None

    async def acquire(self, most: int) -> None:
        """Wait in turn."""
        window = self._windows.setdefault(self._executor, _Window(trio.Semaphore(most)))
        window.users += 1
        try:
            await window.seats.acquire()
        except BaseException:
            self._leave(window)
            raise
        self._window = window

    def release(self) -> None:
        """The quote was ordered, or is not wanted."""
        window, self._window = self._window, None
        if window is not None:
            window.seats.release()
            self._leave(window)

    def _leave(self, window: _Window) -> None:
        window.users -= 1
        if not window.users:
            del self._windows[self._executor]


class OpenQuotes:
    """Lets requests for quotes through as earlier quotes are ordered, which takes milliseconds: without it, clients
    that all ask at once would be refused where there is room for all of them."""

    def __init__(self) -> None:
        self._windows: dict[NodeKey, _Window] = {}

    async def hold(self, executor: NodeKey, slots: int) -> Hold:
        """Wait until one more may be open at an executor that offers so many slots."""
        hold = Hold(self._windows, executor)
        await hold.acquire(max(1, min(MAX_OPEN_QUOTES, slots // 2)))
        return hold
