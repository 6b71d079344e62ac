"""The engine on servers that the owner runs: jobs go to an OpenAI-compatible URL, one per model."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import trio

from ryvion_node.engine.counter import VocabCounter
from ryvion_node.engine.interface import (
    NO_TOOLS,
    Embeddings,
    EngineError,
    EngineModel,
    GenerationEvent,
    GenerationRequest,
    ScoringRequest,
    TokenScore,
    ToolUse,
    Turn,
)
from ryvion_node.engine.remote import constants as limits
from ryvion_node.engine.remote.http import HttpServer
from ryvion_node.engine.remote.key import load_key
from ryvion_node.engine.remote.served import RemoteModel
from ryvion_node.engine.remote.spec import RemoteSpec, ServerAddress, parse_url
from ryvion_node.engine.remote.stream import Timing
from ryvion_node.engine.roster import Roster
from ryvion_node.engine.served_model import ModelStatus


class RemoteEngine:
    """Implements Engine. A model whose server is away disappears from `models` until it is back."""

    def __init__(
        self,
        specs: Sequence[RemoteSpec],
        *,
        timing: Timing | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """Raises ValueError for specs that no configuration lets through, KeyMissing or TooOpen for a key."""
        self._timing = timing or Timing()
        self._counter = VocabCounter({spec.name.encode(): spec.tokenizer for spec in specs if spec.tokenizer})
        servers: dict[tuple[ServerAddress, str], HttpServer] = {}
        self._roster: Roster[RemoteModel] = Roster()
        for spec in specs:
            _check(spec)
            address, key = parse_url(spec.url), load_key(spec, environ)
            server = servers.get((address, key))
            if server is None:
                server = HttpServer(address, key, connect_s=self._timing.connect_s, answer_s=self._timing.answer_s)
                servers[address, key] = server
            counter = self._counter if spec.tokenizer is not None else None
            self._roster.add(spec.name, RemoteModel(spec, server, counter, self._timing, self._roster.bump))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Watch the servers until cancelled. Started at once: `settled` waits for the first look at each."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._counter.run)
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
        """Wait until every server was looked at; one that is away does not hold the node up."""
        await self._roster.settled("loading")

    def models(self) -> tuple[EngineModel, ...]:
        return self._roster.models()

    def status(self) -> tuple[ModelStatus, ...]:
        """Every model of the owner's, also those that cannot serve."""
        return self._roster.status()

    @asynccontextmanager
    async def generate(self, request: GenerationRequest) -> AsyncIterator[AsyncIterator[GenerationEvent]]:
        """Jobs beyond the model's slots wait here, so that the server never has more of ours."""
        async with self._roster.find(request.model).generate(request) as events:
            yield events

    async def count_prompt(self, model: str, turns: Sequence[Turn], tools: ToolUse = NO_TOOLS) -> int:
        return await self._roster.find(model).meter().prompt(turns, tools)

    async def count_texts(self, model: str, texts: Sequence[str]) -> int:
        return await self._roster.find(model).meter().texts(texts)

    async def score(self, request: ScoringRequest) -> tuple[TokenScore, ...]:
        self._roster.find(request.model)
        raise EngineError("unsupported", f"the engine behind {request.model} cannot score tokens")

    async def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        self._roster.find(model)
        raise EngineError("unsupported", f"{model} is no embedding model")


def _check(spec: RemoteSpec) -> None:
    if not 1 <= spec.slots <= limits.MAX_REMOTE_SLOTS:
        raise ValueError(f"{spec.name}: slots must be 1 .. {limits.MAX_REMOTE_SLOTS}")
