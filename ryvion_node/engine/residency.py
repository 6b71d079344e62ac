"""Keeps the loaded models within the machine's memory: admits one after the other, and has idle ones unloaded."""

from __future__ import annotations

from typing import Protocol

import trio

from ryvion_node.engine.memory import Memory
from ryvion_node.engine.room import Resident, make_room


class Tenant(Protocol):
    """A model that wants to be loaded, or is."""

    def resident(self) -> Resident: ...

    def unload(self) -> None:
        """Only while it is idle: no new job may reach what is loaded from this moment on."""


class Residency:
    """Who is in memory. What leaves counts until its process is gone."""

    def __init__(self, room: Memory | None) -> None:
        """Without a limit everybody is admitted at once."""
        self.room = room
        self._tenants: list[Tenant] = []
        self._one_at_a_time = trio.Lock()
        self._news = trio.Event()

    async def admit(self, tenant: Tenant) -> None:
        """Wait until there is room for it, in the order of asking; the caller must say when it has `left`."""
        need, room = tenant.resident().need, self.room
        if room is None:
            self._tenants.append(tenant)
            return
        # In turn, so that many small models cannot keep a large one waiting for ever.
        async with self._one_at_a_time:
            while (names := make_room(need, room, self._residents())) != ():
                for name in names or ():
                    next(one for one in self._tenants if one.resident().name == name).unload()
                self._news = trio.Event()
                await self._news.wait()
            self._tenants.append(tenant)

    def left(self, tenant: Tenant) -> None:
        """Its memory is free again."""
        self._tenants.remove(tenant)
        self._news.set()

    def changed(self) -> None:
        """A tenant is idle now: whoever waits may look again."""
        self._news.set()

    def _residents(self) -> list[Resident]:
        return [tenant.resident() for tenant in self._tenants]
