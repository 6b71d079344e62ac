"""The headings that a text stands under, while it is read from top to bottom."""

from __future__ import annotations


class Outline:
    """A stack of headings; an inner one ends with the next of its level or above."""

    def __init__(self) -> None:
        self._open: list[tuple[int, str]] = []

    @property
    def path(self) -> tuple[str, ...]:
        """Outermost first."""
        return tuple(title for _level, title in self._open)

    def enter(self, level: int, title: str) -> tuple[str, ...]:
        """A new heading; returns the path above it."""
        self.leave(level)
        above = self.path
        self._open.append((level, " ".join(title.split())))
        return above

    def leave(self, level: int) -> None:
        """Nothing that was opened at this level or below goes on."""
        while self._open and self._open[-1][0] >= level:
            self._open.pop()
