"""What every engine keeps of its models: which there are, how they fare, and when that changed."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

import trio

from ryvion_node.engine.interface import EngineError, EngineModel
from ryvion_node.engine.served_model import ModelState, ModelStatus


class Entry(Protocol):
    """One model of an engine, with the task that looks after it."""

    @property
    def model(self) -> EngineModel | None:
        """What can be served."""
        ...

    @property
    def state(self) -> ModelState: ...

    def status(self) -> ModelStatus: ...


Served = TypeVar("Served", bound=Entry)


class Roster(Generic[Served]):
    """Models by name, in the owner's order."""

    def __init__(self) -> None:
        self.entries: dict[str, Served] = {}
        self.revision = 0
        """Rises whenever `models` or `status` changed."""
        self._changed = trio.Event()

    def add(self, name: str, served: Served) -> None:
        """Raises ValueError when the name is taken."""
        if name in self.entries:
            raise ValueError("two models of the same name")
        self.entries[name] = served

    def bump(self) -> None:
        """Something changed."""
        self.revision += 1
        self._changed.set()
        self._changed = trio.Event()

    async def changed(self, seen: int) -> int:
        """Wait until the revision is another than `seen`; returns it."""
        while self.revision == seen:
            await self._changed.wait()
        return self.revision

    async def settled(self, *unsettled: ModelState) -> None:
        """Wait until no model is in one of these states."""
        while any(served.state in unsettled for served in self.entries.values()):
            await self.changed(self.revision)

    def models(self) -> tuple[EngineModel, ...]:
        """Those that can be served."""
        return tuple(served.model for served in self.entries.values() if served.model is not None)

    def status(self) -> tuple[ModelStatus, ...]:
        """Every model, also those that cannot serve."""
        return tuple(served.status() for served in self.entries.values())

    def find(self, model: str) -> Served:
        """Raises EngineError."""
        try:
            return self.entries[model]
        except KeyError:
            raise EngineError("model_unknown", f"no model {model!r} is served here") from None
