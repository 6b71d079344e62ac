"""One model of the manifest: loads it, keeps its worker alive, unloads it, and says how it fares."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Final, Literal, get_args

import trio

from ryvion_node.engine import constants as limits
from ryvion_node.engine.figures import FigureBook, Figures
from ryvion_node.engine.files import DigestCache, FileState
from ryvion_node.engine.gguf import GgufError
from ryvion_node.engine.gguf_shape import read_shape
from ryvion_node.engine.interface import EngineError, EngineModel, Feature, ModelSpec
from ryvion_node.engine.jobs import model_broken
from ryvion_node.engine.memory import Memory, MemoryEstimate, context_of, estimate, shown
from ryvion_node.engine.residency import Residency
from ryvion_node.engine.restart import GiveUp, RestartPolicy
from ryvion_node.engine.room import Resident
from ryvion_node.engine.wire import Ready, Speed, Start
from ryvion_node.engine.worker_process import Broken, Died, Timing, Unloaded, WorkerProcess
from ryvion_node.log import log_event

log = logging.getLogger("ryvion.engine")
FEATURES: Final[tuple[Feature, ...]] = get_args(Feature)
"""llama.cpp with our sampler, templates and grammars can do all there is."""

ModelState = Literal["unloaded", "loading", "ready", "restarting", "broken"]


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """How one model of the manifest fares; `reason` says what is wrong and how to mend it."""

    name: str
    state: ModelState
    reason: str
    running: int
    """Jobs and counts under way."""
    worker_pid: int
    """0 while there is no worker."""
    step_us: tuple[int, ...]
    """Measured time of a decode step with 1, 2, ... slots jobs; 0: not measured."""


@dataclass(frozen=True, slots=True)
class Shelf:
    """What all models of an engine share."""

    digests: DigestCache
    figures: FigureBook
    residency: Residency
    timing: Timing
    writer: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(1))
    """One at a time writes what is remembered."""


class _Attempt:
    """One try to load a model, and who waits for it."""

    def __init__(self) -> None:
        self.wanted = trio.Event()
        self.over = trio.Event()
        self.refusal = ""
        """Why it was given up while the model itself is sound."""


class ServedModel:
    """One entry of the manifest and its worker."""

    def __init__(self, spec: ModelSpec, shelf: Shelf, on_change: Callable[[], None]) -> None:
        self._spec = spec
        self._shelf = shelf
        self._on_change = on_change
        self._policy = RestartPolicy()
        self._digest = spec.digest or b""
        """Once known it holds until the node ends: what was offered under it is what runs."""
        self._need = Memory(0)
        self._worker: WorkerProcess | None = None
        """From spawn to death."""
        self._users = 0
        """Jobs that use the worker or wait for it; while there are any the model stays."""
        self._used_at = 0.0
        self._attempt = _Attempt()
        self._figures: Figures | None = None
        self._reason = ""
        self._step_us: tuple[int, ...] = ()
        self.state: ModelState = "loading"
        self.model: EngineModel | None = None
        """What can be served: at once, or after loading."""

    async def supervise(self) -> None:
        """Load the model when it is wanted, again after a death, until it is given up or we are cancelled."""
        try:
            await self._look_up()
        except GgufError as exc:
            self._set("broken", str(exc), None)
            return
        if self._spec.load == "first-use" and self._figures is not None:
            self._become_unloaded("")
        while self.state != "broken":
            if self.state == "unloaded":
                await self._attempt.wanted.wait()
            await self._live()

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[WorkerProcess]:
        """The worker for one job, which waits until the model is loaded. Raises EngineError."""
        self._users += 1
        try:
            yield await self._loaded()
        finally:
            self._users -= 1
            self._used_at = trio.current_time()
            self._shelf.residency.changed()

    def status(self) -> ModelStatus:
        worker = self._worker
        return ModelStatus(
            name=self._spec.name,
            state=self.state,
            reason=self._reason,
            running=worker.running if worker is not None else 0,
            worker_pid=worker.pid if worker is not None else 0,
            step_us=self._step_us,
        )

    def resident(self) -> Resident:
        return Resident(self._spec.name, self._need, self.state == "ready" and not self._users, self._used_at)

    def unload(self) -> None:
        """Only while no job uses it. From here on jobs wait for the next load, so none can meet the end of this one."""
        if self.state != "ready" or self._users or self._worker is None:
            return
        self._worker.unload()
        self._become_unloaded("")

    async def _look_up(self) -> None:
        """What is known without loading: the memory that it takes, and what was measured earlier. Raises GgufError."""
        spec, room = self._spec, self._shelf.residency.room
        if room is not None:
            taken = await trio.to_thread.run_sync(lambda: estimate_of(spec, has_gpu=room.gpu_bytes > 0))
            self._need = taken.need
            if not taken.need.fits(room):
                raise GgufError(_too_large(spec, taken, room))
        digest = self._shelf.digests.get(spec.path)
        figures = self._shelf.figures.get(spec, digest) if digest is not None else None
        if digest is not None and figures is not None and self._digest in (b"", digest):
            self._digest, self._figures = digest, figures

    async def _live(self) -> None:
        """One life of a worker, and what follows."""
        residency = self._shelf.residency
        self._set("loading", "", None if self._figures is None else self._describe(self._figures))
        with trio.move_on_after(limits.ROOM_WAIT_S if self.model is not None else float("inf")) as patience:
            await residency.admit(self)
        if patience.cancelled_caught:
            self._become_unloaded("the models that fill the memory are busy")
            return
        try:
            delay_s = await self._run_worker(trio.current_time())
        finally:
            residency.left(self)
            self._worker = None
        await trio.sleep(delay_s)

    async def _run_worker(self, started_at: float) -> float:
        """Returns how long to wait before the next one."""
        worker = self._worker = WorkerProcess(self._start(), self._shelf.timing, walls=self._spec.walls)
        async with trio.open_nursery() as nursery:
            if self._spec.idle_unload_s is not None:
                nursery.start_soon(self._unload_when_idle, self._spec.idle_unload_s)

            def became_ready(ready: Ready) -> None:
                nursery.start_soon(self._remember, ready, self._became_ready(ready, started_at))

            end = await worker.run(became_ready, self._speed_changed)
            # At once: jobs that failed with the worker may be followed by others before this task goes on.
            delay_s = self._ended(end, trio.current_time() - started_at)
            nursery.cancel_scope.cancel()
        return delay_s

    async def _unload_when_idle(self, idle_s: float) -> None:
        while True:
            busy = self._users or self.state != "ready"
            await trio.sleep_until((trio.current_time() if busy else self._used_at) + idle_s)
            if trio.current_time() >= self._used_at + idle_s:
                self.unload()

    def _ended(self, end: Broken | Died | Unloaded, lived_s: float) -> float:
        if isinstance(end, Unloaded):
            return 0.0
        if isinstance(end, Broken):
            self._set("broken", end.reason, None)
            return 0.0
        decision = self._policy.died(lived_s)
        if isinstance(decision, GiveUp):
            self._set(
                "broken",
                f"{self._spec.path}: withdrawn: its worker died {decision.deaths} times in a row, the last time by {end}. "
                "Check the file and the memory of the machine, then restart the node",
                None,
            )
            return 0.0
        self._set("restarting", f"its worker died: {end}", None)
        return decision.delay_s

    async def _loaded(self) -> WorkerProcess:
        """Raises EngineError."""
        name = self._spec.name
        while self.state != "ready" or self._worker is None:
            if self.state == "broken":
                raise model_broken(name)
            if self.model is None:
                raise EngineError("worker_crashed", f"{name} is {self.state}; try again shortly")
            attempt = self._attempt
            attempt.wanted.set()
            await attempt.over.wait()
            if attempt.refusal:
                raise EngineError("worker_crashed", f"{name} cannot be loaded now: {attempt.refusal}; try again later")
        return self._worker

    def _start(self) -> Start:
        spec = self._spec
        return Start(
            path=str(spec.path.resolve()),
            expected_digest=self._digest,
            known_digest=self._shelf.digests.get(spec.path) or b"",
            context_tokens=spec.context_tokens or 0,
            slots=spec.slots,
            gpu_layers=spec.gpu_layers,
            threads=spec.threads or 0,
            vocab_only=False,
            template="" if spec.template is None else str(spec.template.resolve()),
            template_digest=spec.template_digest or b"",
        )

    async def _remember(self, ready: Ready, figures: Figures) -> None:
        """For the next start; writes files, hence in a thread."""

        def write() -> None:
            if len(ready.file_state) == 3:
                self._shelf.digests.put(self._spec.path, FileState(*ready.file_state), ready.digest)
            self._shelf.figures.put(self._spec, ready.digest, figures)

        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(write, limiter=self._shelf.writer)

    def _became_ready(self, ready: Ready, started_at: float) -> Figures:
        first = self._figures is None
        self._digest, self._step_us = ready.digest, ready.step_us
        self._used_at = trio.current_time()
        figures = self._figures = Figures.of(ready, int(1000 * (self._used_at - started_at)))
        self._set("ready", "", replace(self._describe(figures), load_ms=0))
        if first and self._spec.load == "first-use" and not self._users:
            # It was loaded to be measured, nothing else.
            self.unload()
        self._shelf.residency.changed()
        return figures

    def _speed_changed(self, speed: Speed) -> None:
        if self.state == "ready" and self.model is not None and self._figures is not None:
            now = (speed.millitokens_per_s, speed.prompt_millitokens_per_s)
            self._figures = replace(self._figures, millitokens_per_s=now[0], prompt_millitokens_per_s=now[1])
            self.model = replace(self.model, millitokens_per_s=now[0], prompt_millitokens_per_s=now[1])
            self._on_change()

    def _describe(self, figures: Figures) -> EngineModel:
        kind: Literal["chat", "embedding"] = "embedding" if figures.kind == "embedding" else "chat"
        return EngineModel(
            name=self._spec.name,
            digest=self._digest,
            quantisation=figures.quantisation,
            kind=kind,
            context_tokens=figures.context_tokens,
            slots=self._spec.slots,
            millitokens_per_s=figures.millitokens_per_s,
            prompt_millitokens_per_s=figures.prompt_millitokens_per_s,
            features=features_of(kind, overridden=self._spec.template is not None),
            dimensions=figures.dimensions,
            load_ms=figures.load_ms,
        )

    def _become_unloaded(self, refusal: str) -> None:
        """Sound, offered, and not in memory. Whoever asks from now on waits for the next attempt."""
        assert self._figures is not None
        self._attempt.refusal = refusal
        self._attempt.over.set()
        self._attempt = _Attempt()
        self._set("unloaded", refusal, self._describe(self._figures))

    def _set(self, state: ModelState, reason: str, model: EngineModel | None) -> None:
        """The one place where the state changes. Reasons are ours or llama.cpp's about the file, never a prompt."""
        level = logging.WARNING if state in ("restarting", "broken") else logging.INFO
        log_event(log, "model", level=level, model=self._spec.name, state=state, reason=reason or None)
        self.state, self._reason, self.model = state, reason, model
        if state in ("ready", "restarting", "broken"):
            self._attempt.over.set()
            self._attempt = _Attempt()
        self._on_change()


def features_of(kind: Literal["chat", "embedding"], *, overridden: bool) -> tuple[Feature, ...]:
    """What a model can do here. Under a template of the owner's own nobody else can count its prompts."""
    if kind == "embedding":
        return ("counted",)
    return tuple(feature for feature in FEATURES if feature != "counted" or not overridden)


def estimate_of(spec: ModelSpec, *, has_gpu: bool) -> MemoryEstimate:
    """Memory that a model takes under its settings; reads its header. Raises GgufError."""
    shape = read_shape(spec.path)
    context_tokens = context_of(shape, spec.context_tokens)
    return estimate(shape, slots=spec.slots, context_tokens=context_tokens, gpu_layers=spec.gpu_layers, has_gpu=has_gpu)


def _too_large(spec: ModelSpec, taken: MemoryEstimate, room: Memory) -> str:
    where, need, there = (
        ("main", taken.need.host_bytes, room.host_bytes)
        if taken.need.host_bytes > room.host_bytes
        else ("GPU", taken.need.gpu_bytes, room.gpu_bytes)
    )
    return (
        f"{spec.path}: takes {shown(need)} of {where} memory (weights {shown(taken.weights_bytes)}, cache of "
        f"{spec.slots} slots {shown(taken.cache_bytes)}, computing {shown(taken.compute_bytes)}), and there is room "
        f"for {shown(there)}: configure fewer slots or a smaller context, take a smaller quantisation, or raise "
        "memory_budget"
    )
