"""Watches the machine and says whether jobs may be taken now. Running jobs are never stopped."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from datetime import datetime

import trio

from ryvion_node.executor.backoff import Backoff
from ryvion_node.executor.constants import SENSOR_EVERY_S
from ryvion_node.log import log_event
from ryvion_node.machine.constants import SENSOR_TIMEOUT_S
from ryvion_node.machine.interface import Reading, Sensors

log = logging.getLogger("ryvion.executor.availability")


class Availability:
    """`paused` is why nothing is sold now; empty: all is well."""

    def __init__(
        self,
        sensors: Sensors,
        backoff: Backoff,
        own_pids: Callable[[], Collection[int]],
        clock: Callable[[], datetime] = datetime.now,
    ) -> None:
        """`clock` gives the local time."""
        self._sensors = sensors
        self._backoff = backoff
        self._own_pids = own_pids
        self._clock = clock
        self.paused = ""
        self.reading: Reading | None = None
        """The newest one; None while the sensors do not answer."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Read the sensors until cancelled; started after the first reading."""
        await self._look()
        task_status.started()
        while True:
            await trio.sleep(SENSOR_EVERY_S)
            await self._look()

    async def _look(self) -> None:
        self.reading = None
        with trio.move_on_after(SENSOR_TIMEOUT_S):
            self.reading = await self._sensors.read(self._own_pids())
        if self.reading is None:
            return  # what was true a moment ago is the best guess
        reason = self._backoff.reason(self.reading, trio.current_time(), self._clock())
        if reason != self.paused:
            self.paused = reason
            log_event(log, "selling_paused" if reason else "selling_resumed", reason=reason)
