"""The worker's two ends to the node."""

from __future__ import annotations

import os
import threading
import time

from ryvion_node.engine.wire import Frames, Loading, Message, pack


class Pipes:
    """The two ends to the node. Sending is thread-safe; a closed pipe ends the process, as nobody is left to serve."""

    def __init__(self, frames_out: int) -> None:
        self._out = frames_out
        self._lock = threading.Lock()
        self._frames = Frames()
        self._last_progress = 0.0

    def send(self, messages: list[Message]) -> None:
        """One frame, one flush."""
        data = memoryview(pack(messages))
        try:
            with self._lock:
                while data:
                    data = data[os.write(self._out, data) :]
        except OSError:
            os._exit(0)

    def progress(self, stage: str) -> None:
        """At most twice a second."""
        now = time.monotonic()
        if now - self._last_progress > 0.5:
            self._last_progress = now
            self.send([Loading(stage)])

    def receive(self) -> list[Message]:
        """Blocks for the next messages."""
        data = os.read(0, 1 << 16)
        if not data:
            os._exit(0)
        return self._frames.feed(data)
