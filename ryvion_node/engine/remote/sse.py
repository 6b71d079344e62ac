"""Server-sent events, taken apart as the bytes come (WHATWG HTML, section 9.2)."""

from __future__ import annotations

from collections import deque

from ryvion_node.engine.remote.constants import MAX_LINE_BYTES


class Garbled(Exception):
    """What the server streams is not what it should be; the message holds nothing of it."""


class EventStream:
    """Bytes in, the data of each event out. Comments, which servers send to keep a connection alive, are no events."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._scanned = 0
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._skip_feed = False
        self._events: deque[str] = deque()

    def feed(self, data: bytes) -> None:
        """Take bytes in; `take` gives what they completed. Raises Garbled."""
        self._rest += data
        while (line := self._next_line()) is not None:
            self._take_line(line)
        if len(self._rest) > MAX_LINE_BYTES:
            raise Garbled(f"a line of its stream is longer than {MAX_LINE_BYTES} bytes")

    def finish(self) -> None:
        """The connection ended: a last event counts without the empty line after it. Raises Garbled."""
        if self._rest:
            self._take_line(bytes(self._rest))
            self._rest.clear()
        self._dispatch()

    def take(self) -> str | None:
        """The next event's data, or None until more bytes come."""
        return self._events.popleft() if self._events else None

    def _next_line(self) -> bytes | None:
        """A line without its end, which is CR LF, LF or CR."""
        if self._skip_feed and self._rest:
            if self._rest[0] == 0x0A:
                del self._rest[0]
            self._skip_feed = False
        ends = [found for end in (b"\n", b"\r") if (found := self._rest.find(end, self._scanned)) >= 0]
        if not ends:
            self._scanned = len(self._rest)
            return None
        end = min(ends)
        line = bytes(self._rest[:end])
        self._skip_feed = self._rest[end] == 0x0D
        del self._rest[: end + 1]
        self._scanned = 0
        return line

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
