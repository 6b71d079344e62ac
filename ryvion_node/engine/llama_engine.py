"""The engine on llama.cpp: a supervised worker process per model."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import trio

from ryvion_node.engine import constants as limits
from ryvion_node.engine.figures import FigureBook
from ryvion_node.engine.files import DigestCache
from ryvion_node.engine.interface import (
    NO_TOOLS,
    Embeddings,
    EngineModel,
    GenerationEvent,
    GenerationRequest,
    ModelSpec,
    ScoringRequest,
    TokenScore,
    ToolUse,
    Turn,
)
from ryvion_node.engine.jobs import (
    count,
    embeddings,
    generation_events,
    plain_text,
    scores,
    wire_request,
    wire_tools,
    wire_turns,
    worker_error,
)
from ryvion_node.engine.memory import Memory
from ryvion_node.engine.residency import Residency
from ryvion_node.engine.roster import Roster
from ryvion_node.engine.served_model import ModelStatus, ServedModel, Shelf
from ryvion_node.engine.wire import Cancel, CountPrompt, CountTexts
from ryvion_node.engine.worker_process import Timing, WorkerGone


class LlamaEngine:
    """Implements Engine. Models that break disappear from `models`; one that is not loaded is loaded by its next job."""

    def __init__(
        self,
        specs: Sequence[ModelSpec],
        *,
        digests: DigestCache | None = None,
        figures: FigureBook | None = None,
        room: Memory | None = None,
        timing: Timing | None = None,
    ) -> None:
        """Names must be unique and slots in 1 .. MAX_SLOTS. Without `room` all models are loaded at once."""
        for spec in specs:
            if not 1 <= spec.slots <= limits.MAX_SLOTS:
                raise ValueError(f"{spec.name}: slots must be 1 .. {limits.MAX_SLOTS}")
        shelf = Shelf(digests or DigestCache(), figures or FigureBook(), Residency(room), timing or Timing())
        self._roster: Roster[ServedModel] = Roster()
        for spec in specs:
            self._roster.add(spec.name, ServedModel(spec, shelf, self._roster.bump))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep a worker per model alive until cancelled. Started at once: `settled` waits for the models."""
        async with trio.open_nursery() as nursery:
            for served in self._roster.entries.values():
                nursery.start_soon(served.supervise)
            task_status.started()
            await trio.sleep_forever()

    @property
    def revision(self) -> int:
        """Rises whenever `models` or `status` changed."""
        return self._roster.revision

    async def changed(self, seen: int) -> int:
        """Wait until the revision is another than `seen`; returns it."""
        return await self._roster.changed(seen)

    async def settled(self) -> None:
        """Wait until every model is ready, broken, or unloaded."""
        await self._roster.settled("loading", "restarting")

    def models(self) -> tuple[EngineModel, ...]:
        return self._roster.models()

    def status(self) -> tuple[ModelStatus, ...]:
        """Every model of the manifest, also those that cannot serve."""
        return self._roster.status()

    @asynccontextmanager
    async def generate(self, request: GenerationRequest) -> AsyncIterator[AsyncIterator[GenerationEvent]]:
        """Jobs beyond the model's slots wait their turn in the worker."""
        async with self._roster.find(request.model).worker() as worker:
            try:
                inbox = worker.open()
            except WorkerGone as exc:
                raise worker_error(request.model, exc.end) from exc
            events = generation_events(request.model, worker, inbox)
            try:
                worker.post(wire_request(request, inbox.number))
                yield events
            finally:
                worker.close(inbox)
                worker.post(Cancel(inbox.number))
                await events.aclose()

    async def count_prompt(self, model: str, turns: Sequence[Turn], tools: ToolUse = NO_TOOLS) -> int:
        wired, wired_tools = wire_turns(turns), wire_tools(tools)
        return await self._count(model, lambda number: CountPrompt(number, wired, wired_tools))

    async def count_texts(self, model: str, texts: Sequence[str]) -> int:
        plain = tuple(map(plain_text, texts))
        return await self._count(model, lambda number: CountTexts(number, plain, False))

    async def score(self, request: ScoringRequest) -> tuple[TokenScore, ...]:
        async with self._roster.find(request.model).worker() as worker:
            return await scores(worker, request)

    async def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        async with self._roster.find(model).worker() as worker:
            return await embeddings(worker, model, texts)

    async def _count(self, model: str, make: Callable[[int], CountPrompt | CountTexts]) -> int:
        async with self._roster.find(model).worker() as worker:
            return await count(worker, make, model)
