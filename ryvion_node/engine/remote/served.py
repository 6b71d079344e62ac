"""Watches one model behind a URL, and runs its jobs: there while its server has it, withdrawn while not."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

import trio

from ryvion_node.engine.interface import (
    NO_TOOLS,
    EngineError,
    EngineModel,
    GenerationEvent,
    GenerationRequest,
    TokenCounter,
    Turn,
)
from ryvion_node.engine.remote import constants as limits
from ryvion_node.engine.remote.connections import ServerLost, ServerSlow
from ryvion_node.engine.remote.dialect import needed
from ryvion_node.engine.remote.faults import told_by
from ryvion_node.engine.remote.http import HttpServer, ServerRefused
from ryvion_node.engine.remote.job import Backend, job_events
from ryvion_node.engine.remote.meter import Meter, OwnMeter, servers_meter
from ryvion_node.engine.remote.probe import (
    Listed,
    Speed,
    Unusable,
    find_context,
    find_features,
    find_flavour,
    find_model,
    measure,
    repeats_prefix,
)
from ryvion_node.engine.remote.spec import Flavour, RemoteSpec
from ryvion_node.engine.remote.stream import Timing
from ryvion_node.engine.served_model import ModelState, ModelStatus
from ryvion_node.log import log_event
from ryvion_protocol.schema import as_note

log = logging.getLogger("ryvion.engine.remote")

_DOUBTFUL = ("worker_crashed", "worker_stalled", "model_broken")
"""Errors of a job after which its server is looked at without delay."""


_AWAY = ("busy", "worker_crashed", "worker_stalled")
"""Errors of a question that say nothing about what the server can do."""


class RemoteModel:
    """One model of the owner's, and what is known of its server."""

    def __init__(
        self,
        spec: RemoteSpec,
        server: HttpServer,
        counter: TokenCounter | None,
        timing: Timing,
        on_change: Callable[[], None],
    ) -> None:
        """`counter` knows the tokenizer under the model's name, when the owner gave one."""
        self._spec = spec
        self._server = server
        self._counter = counter
        self._timing = timing
        self._on_change = on_change
        self._slots = trio.Semaphore(spec.slots)
        self._running = 0
        self._doubt = trio.Event()
        self._backend: Backend | None = None
        self._speed: Speed | None = None
        self._measured_at = -limits.REMEASURE_S
        self._reason = ""
        self.state: ModelState = "loading"
        self.model: EngineModel | None = None
        """What can be served now."""

    async def supervise(self) -> None:
        """Look at the server again and again until cancelled. While jobs run, they are the look."""
        self._server.connections.open()
        try:
            while True:
                if self._running == 0 or self._doubt.is_set():
                    self._doubt = trio.Event()
                    await self._look()
                with trio.move_on_after(self._timing.check_every_s):
                    await self._doubt.wait()
                self._server.connections.drop_old()
        finally:
            self._server.connections.close()

    @asynccontextmanager
    async def generate(self, request: GenerationRequest) -> AsyncIterator[AsyncIterator[GenerationEvent]]:
        """Run a job when a slot is free; leaving the context closes its request. Raises EngineError."""
        self._check(request)
        async with self._slots:
            backend = self._check(request)
            self._running += 1
            events = self._watched(backend, request)
            try:
                yield events
            finally:
                self._running -= 1
                with trio.CancelScope(shield=True):  # closing takes no time: connections are dropped
                    await events.aclose()

    def meter(self) -> Meter:
        """Who counts tokens of this model. Raises EngineError."""
        meter = self._ready().meter
        if meter is None:
            raise EngineError("unsupported", f"nobody can count tokens of {self._spec.name} beforehand")
        return meter

    def status(self) -> ModelStatus:
        return ModelStatus(
            name=self._spec.name, state=self.state, reason=self._reason, running=self._running, worker_pid=0, step_us=()
        )

    def _gather_s(self) -> float:
        return min(limits.GATHER_MAX_S, limits.GATHER_BASE_S + limits.GATHER_PER_JOB_S * self._running)

    def _check(self, request: GenerationRequest) -> Backend:
        backend = self._ready()
        offered = () if self.model is None else self.model.features
        lacking = [feature for feature in needed(request) if feature not in offered]
        if lacking:
            raise EngineError("unsupported", f"the engine behind {self._spec.name} has no {', '.join(lacking)}")
        if request.max_tokens < 1:
            raise ValueError("max_tokens out of range")
        return backend

    def _ready(self) -> Backend:
        if self._backend is not None and self.model is not None:
            return self._backend
        raise EngineError(
            "model_broken" if self.state == "broken" else "worker_crashed",
            f"{self._spec.name} cannot be served now; try again shortly",
        )

    async def _watched(self, backend: Backend, request: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]:
        try:
            async with aclosing(job_events(backend, request)) as events:
                async for event in events:
                    yield event
        except EngineError as exc:
            if exc.code in _DOUBTFUL:
                self._doubt.set()
            raise

    async def _look(self) -> None:
        try:
            listed = await find_model(self._server, self._spec)
            if self.model is None or self._backend is None or self._backend.served_as != listed.served_as:
                await self._learn(listed)
        except Unusable as exc:
            self._set("broken", str(exc))
        except (ServerLost, ServerSlow) as exc:
            self._set("restarting", f"its server is away: {exc}")
        except ServerRefused as exc:
            told = self._server.without_key(told_by(exc))
            if exc.status in (401, 403):
                self._set("broken", f"its server refuses the key: check key_file or key_env ({told})")
            else:
                self._set("restarting", f"its server refuses a job that was only to try it ({told})")
        except EngineError as exc:
            self._set("restarting" if exc.code in _AWAY else "broken", f"its tokens cannot be counted: {exc}")

    async def _learn(self, listed: Listed) -> None:
        """Find out what can be offered, then offer it."""
        flavour = await find_flavour(self._server, self._spec, listed)
        backend = Backend(
            name=self._spec.name,
            server=self._server,
            flavour=flavour,
            served_as=listed.served_as,
            context_tokens=await find_context(self._server, self._spec, listed, flavour),
            meter=await self._find_meter(flavour, listed.served_as),
            timing=self._timing,
            gather_s=self._gather_s,
        )
        features = await find_features(backend, self._spec)
        if "prefix" in features:
            backend = replace(backend, echoes_prefix=await repeats_prefix(backend))
        speed = await self._measured(backend)
        if backend.meter is None and not speed.reports_usage:
            raise Unusable("its server reports no usage when it streams, so nothing could be billed: set tokenizer")
        self._backend = backend
        self._set(
            "ready",
            "",
            EngineModel(
                name=self._spec.name,
                digest=self._spec.digest or bytes(32),
                quantisation=self._spec.quantisation,
                kind="chat",
                context_tokens=backend.context_tokens,
                slots=self._spec.slots,
                millitokens_per_s=speed.millitokens_per_s,
                prompt_millitokens_per_s=speed.prompt_millitokens_per_s,
                features=tuple(sorted((*features, "counted"))) if self._counter is not None else features,
            ),
        )

    async def _measured(self, backend: Backend) -> Speed:
        if self._speed is None or trio.current_time() - self._measured_at > limits.REMEASURE_S:
            self._speed = await measure(backend)
            self._measured_at = trio.current_time()
        return self._speed

    async def _find_meter(self, flavour: Flavour, served_as: str) -> Meter | None:
        """Our own, or the server's when it lets us: a gateway may pass nothing but /v1 on. Raises EngineError."""
        if self._counter is not None:
            return OwnMeter(self._counter, self._spec.name.encode())
        meter = servers_meter(flavour, self._server, self._spec.name, served_as)
        if meter is None:
            return None
        try:
            await meter.texts(["Hello"])
            await meter.prompt([Turn("user", "Hello")], NO_TOOLS)
        except EngineError as exc:
            if exc.code in _AWAY:
                raise
            return None
        return meter

    def _set(self, state: ModelState, reason: str, model: EngineModel | None = None) -> None:
        reason = as_note(reason)  # it may hold words of the server's, and is shown on terminals
        if (state, reason, model) == (self.state, self._reason, self.model):
            return
        self.state, self._reason, self.model = state, reason, model
        log_event(log, "remote_model", model=self._spec.name, state=state, reason=reason)
        self._on_change()
