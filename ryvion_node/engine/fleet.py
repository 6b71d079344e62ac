"""Several engines as one: each model is served by the engine that has it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import trio

from ryvion_node.engine.interface import (
    NO_TOOLS,
    Embeddings,
    Engine,
    EngineError,
    EngineModel,
    GenerationEvent,
    GenerationRequest,
    ScoringRequest,
    TokenScore,
    ToolUse,
    Turn,
)
from ryvion_node.engine.served_model import ModelStatus


class RunningEngine(Engine, Protocol):
    """An engine that keeps its models alive while it runs."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None: ...

    async def settled(self) -> None: ...

    @property
    def revision(self) -> int: ...

    async def changed(self, seen: int) -> int: ...

    def status(self) -> tuple[ModelStatus, ...]: ...


class Fleet:
    """Implements Engine over engines whose models have different names; one that has none is welcome."""

    def __init__(self, engines: Sequence[RunningEngine]) -> None:
        """Raises ValueError when two engines have a model of the same name."""
        self._engines = tuple(engines)
        self._of: dict[str, RunningEngine] = {}
        for engine in engines:
            for status in engine.status():
                if self._of.setdefault(status.name, engine) is not engine:
                    raise ValueError(f"two engines serve a model {status.name!r}")
        self._changed = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run all engines until cancelled. Started when all are: `settled` waits for their models."""
        async with trio.open_nursery() as nursery:
            for engine in self._engines:
                nursery.start_soon(self._pass_on_changes, engine)
                await nursery.start(engine.run)
            task_status.started()
            await trio.sleep_forever()

    @property
    def revision(self) -> int:
        """Rises whenever `models` or `status` changed."""
        return sum(engine.revision for engine in self._engines)

    async def changed(self, seen: int) -> int:
        """Wait until the revision is another than `seen`; returns it. Works while this runs."""
        while self.revision == seen:
            await self._changed.wait()
        return self.revision

    async def settled(self) -> None:
        """Wait until every engine knows how its models fare."""
        for engine in self._engines:
            await engine.settled()

    def models(self) -> tuple[EngineModel, ...]:
        return tuple(model for engine in self._engines for model in engine.models())

    def status(self) -> tuple[ModelStatus, ...]:
        """Every model of all engines, also those that cannot serve."""
        return tuple(status for engine in self._engines for status in engine.status())

    def generate(self, request: GenerationRequest) -> AbstractAsyncContextManager[AsyncIterator[GenerationEvent]]:
        return self._find(request.model).generate(request)

    async def count_prompt(self, model: str, turns: Sequence[Turn], tools: ToolUse = NO_TOOLS) -> int:
        return await self._find(model).count_prompt(model, turns, tools)

    async def count_texts(self, model: str, texts: Sequence[str]) -> int:
        return await self._find(model).count_texts(model, texts)

    async def score(self, request: ScoringRequest) -> tuple[TokenScore, ...]:
        return await self._find(request.model).score(request)

    async def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        return await self._find(model).embed(model, texts)

    async def _pass_on_changes(self, engine: RunningEngine) -> None:
        seen = engine.revision
        while True:
            seen = await engine.changed(seen)
            self._changed.set()
            self._changed = trio.Event()

    def _find(self, model: str) -> RunningEngine:
        try:
            return self._of[model]
        except KeyError:
            raise EngineError("model_unknown", f"no model {model!r} is served here") from None
