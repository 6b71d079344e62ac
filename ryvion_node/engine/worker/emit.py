"""Turns the bytes of sampled tokens into text that may be shown: no split character, no part of a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class TextHold:
    """Holds back what may still become a stop string or a character. Bytes that are no UTF-8 become U+FFFD."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stops = tuple(text.encode() for text in stop if text)
        self._pending = b""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, piece: bytes) -> tuple[str, bool]:
        """Text that is safe to show now, and whether a stop string was met; after that nothing may be added."""
        if not self._stops:
            return self._decoder.decode(piece), False
        self._pending += piece
        hits = [at for stop in self._stops if (at := self._pending.find(stop)) >= 0]
        if hits:
            shown, self._pending = self._pending[: min(hits)], b""
            return self._decoder.decode(shown), True
        keep = max(_overlap(self._pending, stop) for stop in self._stops)
        shown, self._pending = self._pending[: len(self._pending) - keep], self._pending[len(self._pending) - keep :]
        return self._decoder.decode(shown), False

    def rest(self) -> str:
        """What was held back, when the answer ends for another reason; an unfinished character is dropped."""
        rest, self._pending = self._pending, b""
        return self._decoder.decode(rest)


def _overlap(data: bytes, stop: bytes) -> int:
    """Length of the longest end of `data` that is a proper beginning of `stop`."""
    for length in range(min(len(data), len(stop) - 1), 0, -1):
        if data.endswith(stop[:length]):
            return length
    return 0
