"""Keeps the worker of one model alive, and says how the model fares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, get_args

import trio

from ryvion_node.engine.files import DigestCache, FileState
from ryvion_node.engine.interface import EngineError, EngineModel, Feature, ModelSpec
from ryvion_node.engine.restart import GiveUp, RestartPolicy
from ryvion_node.engine.wire import Ready, Start
from ryvion_node.engine.worker_process import Broken, Timing, WorkerProcess

FEATURES: Final = get_args(Feature)
"""llama.cpp with our sampler, templates and grammars can do all there is."""

ModelState = Literal["starting", "ready", "restarting", "broken"]


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


class ServedModel:
    """One entry of the manifest and its worker."""

    def __init__(self, spec: ModelSpec, digests: DigestCache, timing: Timing, on_change: Callable[[], None]) -> None:
        self._spec = spec
        self._digests = digests
        self._timing = timing
        self._on_change = on_change
        self._policy = RestartPolicy()
        self._worker: WorkerProcess | None = None
        self._ready: Ready | None = None
        self._reason = ""
        self.state: ModelState = "starting"
        self.model: EngineModel | None = None
        """What can be served now."""

    async def supervise(self) -> None:
        """Start the worker, again after a death, until the model is given up or we are cancelled."""
        while True:
            started_at = trio.current_time()
            self._worker = WorkerProcess(self._start(), self._timing)
            end = await self._worker.run(self._became_ready)
            if isinstance(end, Broken):
                self._set("broken", end.reason)
                return
            decision = self._policy.died(trio.current_time() - started_at)
            if isinstance(decision, GiveUp):
                self._set(
                    "broken",
                    f"withdrawn: its worker died {decision.deaths} times in a row, the last time by {end.reason}. "
                    "Check the file and the memory of the machine, then restart the node",
                )
                return
            self._set("restarting", f"its worker died: {end.reason}")
            await trio.sleep(decision.delay_s)

    def worker(self) -> WorkerProcess:
        """The worker to run a job on. Raises EngineError."""
        if self._worker is not None and self.model is not None:
            return self._worker
        if self.state == "broken":
            raise EngineError("model_broken", self._reason)
        raise EngineError("worker_crashed", f"{self._spec.name} is {self.state}; try again shortly")

    def status(self) -> ModelStatus:
        worker = self._worker
        return ModelStatus(
            name=self._spec.name,
            state=self.state,
            reason=self._reason,
            running=worker.running if worker is not None else 0,
            worker_pid=worker.pid if worker is not None else 0,
            step_us=self._ready.step_us if self._ready is not None else (),
        )

    def _start(self) -> Start:
        spec = self._spec
        return Start(
            path=str(spec.path.resolve()),
            expected_digest=spec.digest or b"",
            known_digest=self._digests.get(spec.path) or b"",
            context_tokens=spec.context_tokens or 0,
            slots=spec.slots,
            gpu_layers=spec.gpu_layers,
            threads=spec.threads or 0,
            vocab_only=False,
            template="" if spec.template is None else str(spec.template.resolve()),
        )

    def _became_ready(self, ready: Ready) -> None:
        self._ready = ready
        if len(ready.file_state) == 3:
            self._digests.put(self._spec.path, FileState(*ready.file_state), ready.digest)
        model = EngineModel(
            name=self._spec.name,
            digest=ready.digest,
            quantisation=ready.quantisation,
            kind="embedding" if ready.kind == "embedding" else "chat",
            context_tokens=ready.context_tokens,
            slots=self._spec.slots,
            millitokens_per_s=ready.millitokens_per_s,
            prompt_millitokens_per_s=ready.prompt_millitokens_per_s,
            features=() if ready.kind == "embedding" else FEATURES,
            dimensions=ready.dimensions,
        )
        self._set("ready", "", model)

    def _set(self, state: ModelState, reason: str, model: EngineModel | None = None) -> None:
        self.state, self._reason, self.model = state, reason, model
        if model is None:
            self._worker = None
        self._on_change()
