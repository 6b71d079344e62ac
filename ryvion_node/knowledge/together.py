"""Two small helpers of searches: doing two things at once, and remembering a few of the last."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import trio

A = TypeVar("A")
B = TypeVar("B")
T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")


async def together(one: Callable[[], Awaitable[A]], other: Callable[[], Awaitable[B]]) -> tuple[A, B]:
    """Run both side by side to their ends; a failure is raised as it is, not in a group."""
    ones: list[A] = []
    others: list[B] = []
    failures: list[Exception] = []

    async def run(task: Callable[[], Awaitable[T]], results: list[T]) -> None:
        try:
            results.append(await task())
        except Exception as exc:  # noqa: BLE001 - raised below, out of the nursery
            failures.append(exc)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, one, ones)
        nursery.start_soon(run, other, others)
    if failures:
        raise failures[0]
    return ones[0], others[0]


class Recent(Generic[K, V]):
    """A dictionary of at most `size` entries: the one that was not asked for longest makes room. For one thread at a time
    or several: each step is one operation of the interpreter's.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        """None when it is not there, or not any more."""
        value = self._kept.pop(key, None)
        if value is not None:
            self._kept[key] = value
        return value

    def put(self, key: K, value: V) -> None:
        """Remember it."""
        self._kept[key] = value
        while len(self._kept) > self._size:
            self._kept.popitem(last=False)
