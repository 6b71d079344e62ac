"""Server-sent events, taken apart as the bytes come (WHATWG HTML, section 9.2)."""

from __future__ import annotations

import re
from collections import deque
from typing import Final

from ryvion_node.engine.remote.constants import MAX_LINE_BYTES

_LINE_END: Final = re.compile(rb"\r\n|\n|\r")


class Garbled(Exception):
    """What the server streams is not what it should be; the message holds nothing of it."""


class EventStream:
    """Bytes in, the data of each event out. Comments, which servers send to keep a connection alive, are no events."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._skip_feed = False
        self._events: deque[str] = deque()

    def feed(self, data: bytes) -> None:
        """Take bytes in; `take` gives what they completed. Raises Garbled."""
        if self._skip_feed and data:
            data = data.removeprefix(b"\n")
            self._skip_feed = False
        self._rest += data
        if b"\n" in data or b"\r" in data:
            self._skip_feed = data.endswith(b"\r")
            *lines, rest = _LINE_END.split(self._rest)
            self._rest = bytearray(rest)
            for line in lines:
                self._take_line(line)
        if len(self._rest) > MAX_LINE_BYTES:
            raise Garbled(f"a line of its stream is longer than {MAX_LINE_BYTES} bytes")

    def finish(self) -> None:
        """The connection ended: a last event counts without the empty line after it. Raises Garbled."""
        if self._rest:
            self._take_line(bytes(self._rest))
            self._rest.clear()
        self._dispatch()

    @property
    def has_more(self) -> bool:
        """Has `take` an event to give?"""
        return bool(self._events)

    def take(self) -> str | None:
        """The next event's data, or None until more bytes come."""
        return self._events.popleft() if self._events else None

    def _take_line(self, line: bytes) -> None:
        if not line:
            self._dispatch()
            return
        field, _, value = line.partition(b":")
        if field not in (b"data", b"error"):  # older llama-servers stream their errors as a field of that name
            if field not in (b"", b"event", b"id", b"retry"):
                raise Garbled("it streams something else than events")
            return
        self._data.append(value.removeprefix(b" "))
        self._data_bytes += len(value)
        if self._data_bytes > MAX_LINE_BYTES:
            raise Garbled(f"an event of its stream is longer than {MAX_LINE_BYTES} bytes")

    def _dispatch(self) -> None:
        if self._data:
            try:
                self._events.append(b"\n".join(self._data).decode())
            except UnicodeDecodeError:
                raise Garbled("its stream is not UTF-8") from None
        self._data = []
        self._data_bytes = 0
