"""What an API key may spend and what it has spent (pure): the rule that no two jobs at once can get around.

A job counts from the moment it is begun: running, with the most that it may cost; finished, with what it did cost.
So what is spent and what runs never pass a limit together, however many jobs are begun at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from ryvion_node.ledger.errors import LedgerConflict

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS

Limit = Literal["total", "day", "hour"]


@dataclass(frozen=True, slots=True)
class Allowance:
    """Most micro-credits that the jobs of a key may cost; None: no limit."""

    hour: int | None = None
    """In any 60 minutes."""
    day: int | None = None
    """In one day of UTC."""
    total: int | None = None

    @property
    def limited(self) -> bool:
        """Is there any limit?"""
        return (self.hour, self.day, self.total) != (None, None, None)


UNLIMITED: Final = Allowance()


@dataclass(frozen=True, slots=True)
class Spending:
    """Micro-credits that a key has spent, and the most that its running jobs may still cost."""

    hour: int = 0
    """By jobs that finished in the last 60 minutes."""
    day: int = 0
    """Since 0:00 UTC."""
    total: int = 0
    running: int = 0


@dataclass(frozen=True, slots=True)
class Overrun:
    """A limit that a job would pass; `held`: only because of what runs, whose rest may come back."""

    limit: Limit
    held: bool


class AllowanceExceeded(LedgerConflict):
    """The job may cost more than its key has left; it was not begun."""

    def __init__(self, overrun: Overrun) -> None:
        super().__init__(f"the key has too little left of its {overrun.limit} limit")
        self.overrun = overrun


def left(allowance: Allowance, spent: Spending) -> int | None:
    """What the next job may cost at most; None: anything."""
    return min((limit - used - spent.running for _, limit, used in _limits(allowance, spent)), default=None)


def overrun(allowance: Allowance, spent: Spending, max_price: int) -> Overrun | None:
    """The limit that a job of `max_price` would pass, the one that lasts longest first; None when it passes none.

    A job that may cost something needs room; one that costs nothing always passes.
    """
    if max_price == 0:
        return None
    for name, limit, used in _limits(allowance, spent):
        if used + spent.running + max_price > limit:
            return Overrun(name, held=used + max_price <= limit)
    return None


def day_of(now_ms: int) -> int:
    """The day of UTC, counted from 1970."""
    return now_ms // DAY_MS


def _limits(allowance: Allowance, spent: Spending) -> list[tuple[Limit, int, int]]:
    """(name, limit, spent) of those that are set."""
    rows: tuple[tuple[Limit, int | None, int], ...] = (
        ("total", allowance.total, spent.total),
        ("day", allowance.day, spent.day),
        ("hour", allowance.hour, spent.hour),
    )
    return [(name, limit, used) for name, limit, used in rows if limit is not None]
