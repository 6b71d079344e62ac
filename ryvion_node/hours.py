"""Hours of the week as an owner writes them. Pure: the caller brings the local time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY_MINUTES: Final = 24 * 60
_WINDOW: Final = re.compile(
    r"(?:(?P<first>[a-z]{3})(?:-(?P<last>[a-z]{3}))?\s+)?(?P<h1>\d{2}):(?P<m1>\d{2})-(?P<h2>\d{2}):(?P<m2>\d{2})"
)


@dataclass(frozen=True, slots=True)
class Window:
    """Hours of the week: from a minute of each of these days, for so many minutes, perhaps into the next day."""

    days: frozenset[int]
    """0 is Monday."""
    start_minute: int
    minutes: int

    def holds(self, local: datetime) -> bool:
        """Is this local time in it?"""
        minute = local.hour * 60 + local.minute
        today = local.weekday() in self.days and 0 <= minute - self.start_minute < self.minutes
        since_yesterday = minute + _DAY_MINUTES - self.start_minute
        return today or ((local - timedelta(days=1)).weekday() in self.days and since_yesterday < self.minutes)


def parse_window(text: str) -> Window:
    """`22:00-07:00`, `mon-fri 18:00-08:00` or `sat 00:00-24:00`; raises ValueError with what is wrong."""
    found = _WINDOW.fullmatch(text.strip().lower())
    if found is None:
        raise ValueError(f"{text!r:.60} is no window; write it as `22:00-07:00` or `mon-fri 18:00-08:00`")
    start, end = _minute(found["h1"], found["m1"]), _minute(found["h2"], found["m2"])
    if start in (_DAY_MINUTES, end):
        raise ValueError(f"{text!r:.60}: a window begins before 24:00 and does not end when it begins")
    return Window(_days(found["first"], found["last"]), start, (end - start) % _DAY_MINUTES or _DAY_MINUTES)


def _minute(hours: str, minutes: str) -> int:
    minute = int(hours) * 60 + int(minutes)
    if int(minutes) > 59 or minute > _DAY_MINUTES:
        raise ValueError(f"{hours}:{minutes} is no time of day: 00:00 to 24:00")
    return minute


def _days(first: str | None, last: str | None) -> frozenset[int]:
    if first is None:
        return frozenset(range(7))
    for name in (first, last or first):
        if name not in DAYS:
            raise ValueError(f"{name} is no day; write {', '.join(DAYS)}")
    begin, end = DAYS.index(first), DAYS.index(last or first)
    return frozenset((begin + step) % 7 for step in range((end - begin) % 7 + 1))
