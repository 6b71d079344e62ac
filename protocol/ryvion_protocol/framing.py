"""Frames on a stream: u32be length, then that many payload bytes (spec 00, "Frames")."""

from __future__ import annotations

from ryvion_protocol.constants import FRAME_HEADER_BYTES
from ryvion_protocol.errors import FramingError


def frame(raw: bytes) -> bytes:
    """Put the length in front of a packet; `raw` is 1 .. 2^32-1 bytes."""
    if not raw:
        raise ValueError("a frame holds at least one byte")
    return len(raw).to_bytes(FRAME_HEADER_BYTES, "big") + raw


class FrameDecoder:
    """Cuts a byte stream into frame payloads.

    `max_bytes` bounds one payload and may change at any time; it holds for headers that are read afterwards.
    Never buffers more than one frame and what was fed after it. A decoder that raised stays broken.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._buffer = bytearray()
        self._broken: FramingError | None = None

    def feed(self, data: bytes) -> list[bytes]:
        """Take in bytes, give back the payloads they complete; raises FramingError on an illegal header.

        Payloads completed before the illegal header in the same call are given back first; the error is raised
        by the next call or by `finish`, so that no good frame is lost with it.
        """
        if self._broken is not None:
            raise self._broken
        self._buffer += data
        payloads: list[bytes] = []
        start = 0
        while len(self._buffer) - start >= FRAME_HEADER_BYTES:
            body = start + FRAME_HEADER_BYTES
            size = int.from_bytes(self._buffer[start:body], "big")
            self._broken = self._judge(size)
            if self._broken is not None:
                self._buffer.clear()
                if payloads:
                    return payloads
                raise self._broken
            if len(self._buffer) - body < size:
                break
            payloads.append(bytes(self._buffer[body : body + size]))
            start = body + size
        del self._buffer[:start]
        return payloads

    def finish(self) -> None:
        """The stream has ended; raises FramingError inside a frame."""
        if self._broken is not None:
            raise self._broken
        if self._buffer:
            raise FramingError("frame_truncated", f"the stream ended {len(self._buffer)} bytes into a frame")

    def _judge(self, size: int) -> FramingError | None:
        if size == 0:
            return FramingError("frame_empty", "a frame of length 0")
        if size > self.max_bytes:
            return FramingError("frame_too_large", f"a frame of {size} bytes, at most {self.max_bytes} are allowed")
        return None
