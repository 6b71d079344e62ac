"""An engine for tests of whole nodes: models whose names say which failure a client of the market is to meet.

`ryvion-node up --engine scripted` serves them, for real: they are offered, auctioned and billed like any other, and only
the words are made up. So it starts where RYVION_TEST_ENGINE=1 is set, and nowhere else.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import trio

from ryvion_node.engine import scripted_tools
from ryvion_node.engine.fake import FakeEngine, Script, echo, fake_model
from ryvion_node.engine.interface import EngineError, EngineModel, Feature, GenerationEvent, GenerationRequest
from ryvion_node.engine.served_model import ModelStatus
from ryvion_node.errors import EXIT_USAGE, OperatorError

VARIABLE: Final = "RYVION_TEST_ENGINE"
KEEP_ALIVES: Final = 4
"""So many of the endpoint's keep-alive intervals are over before mock-slow-start's first word."""

TOKEN_S: Final = 0.02
"""From word to word."""
_QUICK_TOKEN_S: Final = 0.001
"""Of mock-tools: whole test suites of others go through it."""
_LINGER_S: Final = 1.0
"""Before an answer breaks: its words have left for the requester by then, on a busy machine too."""
_ANSWER: Final = "one two three four five six"
_CONTEXT_TOKENS: Final = 8192
_SLOTS: Final = 32
_MAX_TURNED_AWAY: Final = 4096
_FEATURES: Final[tuple[Feature, ...]] = (
    "counted",
    "top_k",
    "min_p",
    "penalties",
    "repetition_penalty",
    "logit_bias",
    "logprobs",
)
"""No word is drawn, so any rule for drawing them holds; tools and formats only where they are looked at."""
_TOOL_FEATURES: Final[tuple[Feature, ...]] = (*_FEATURES, "tools", "json_object", "json_schema")


class ScriptedEngineRefused(OperatorError):
    """The scripted engine makes its answers up and is for tests only. Set RYVION_TEST_ENGINE=1 to sell them
    nevertheless, in a market of your own; leave --engine out to serve real models.
    """

    exit_code = EXIT_USAGE


class Vanished(Exception):
    """Ends a job as if the executor had gone: its stream closes, and nothing more is said about it."""


class ScriptedEngine(FakeEngine):
    """Implements RunningEngine. Every model's name tells what happens to its jobs."""

    def __init__(self, keep_alive_s: float, environment: Mapping[str, str] = os.environ) -> None:
        """`keep_alive_s`: of the endpoint whose silence mock-slow-start tries. Raises ScriptedEngineRefused."""
        if environment.get(VARIABLE) != "1":
            raise ScriptedEngineRefused
        self._slow_s = (KEEP_ALIVES + 0.5) * keep_alive_s
        self._seen: dict[bytes, None] = {}
        """Prompts that mock-429-once has turned away."""
        super().__init__(
            [
                _model("mock-echo"),
                _model("mock-tools", features=_TOOL_FEATURES),
                _model("mock-midstream-error"),
                _model("mock-drop"),
                _model("mock-slow-start", load_ms=round(self._slow_s * 1000)),
                _model("mock-429-once"),
                _model("mock-503"),
            ],
            self._script_of,
        )

    @asynccontextmanager
    async def generate(self, request: GenerationRequest) -> AsyncIterator[AsyncIterator[GenerationEvent]]:
        """As FakeEngine, which would remember every job for tests to look at: here nobody does."""
        if request.model == "mock-503":
            raise EngineError("busy", "mock-503 is always full")
        if request.model == "mock-429-once" and self._is_first(request):
            raise EngineError("rate_limited", "mock-429-once turns every prompt away once")
        async with super().generate(request) as events:
            self.requests.clear()
            yield events

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """There is nothing to keep alive."""
        task_status.started()
        await trio.sleep_forever()

    async def settled(self) -> None:
        """At once."""
        await trio.lowlevel.checkpoint()

    @property
    def revision(self) -> int:
        """Nothing ever changes."""
        return 0

    async def changed(self, seen: int) -> int:
        """Waits for ever unless the first look is late."""
        if seen == self.revision:
            await trio.sleep_forever()
        return self.revision

    def status(self) -> tuple[ModelStatus, ...]:
        """All are ready."""
        return tuple(ModelStatus(model.name, "ready", "", 0, 0, ()) for model in self.models())

    def _is_first(self, request: GenerationRequest) -> bool:
        """Is it the first time that this requester asks this?"""
        prompt = hashlib.sha256(repr((request.owner, request.turns)).encode()).digest()
        if prompt in self._seen:
            return False
        self._seen[prompt] = None
        if len(self._seen) > _MAX_TURNED_AWAY:
            del self._seen[next(iter(self._seen))]
        return True

    def _script_of(self, request: GenerationRequest) -> Script:
        match request.model:
            case "mock-midstream-error":
                error = EngineError("worker_crashed", "mock-midstream-error breaks every answer")
                return Script(_ANSWER, token_s=TOKEN_S, linger_s=_LINGER_S, error=error)
            case "mock-drop":
                return Script(_ANSWER, token_s=TOKEN_S, linger_s=_LINGER_S, error=Vanished())
            case "mock-slow-start":
                return Script(_said(request), prompt_s=self._slow_s, token_s=TOKEN_S)
            case "mock-tools":
                calls = scripted_tools.calls_of(request)
                return Script("" if calls else _answered(request), calls=calls, token_s=_QUICK_TOKEN_S)
            case _:
                return Script(_said(request), token_s=TOKEN_S)


def _said(request: GenerationRequest) -> str:
    """What the user said last, up to the first stop text."""
    text = echo(request).answer
    ends = [text.find(stop) for stop in request.stop]
    return text[: min((end for end in ends if end >= 0), default=len(text))]


def _answered(request: GenerationRequest) -> str:
    """What the tools found, JSON when it was asked for, else what the user said."""
    if request.output is not None:
        return scripted_tools.text_of(request, request.output)
    return request.turns[-1].content if request.turns[-1].role == "tool" else _said(request)


def _model(name: str, *, load_ms: int = 0, features: tuple[Feature, ...] = _FEATURES) -> EngineModel:
    return fake_model(
        name,
        quantisation="none",
        context_tokens=_CONTEXT_TOKENS,
        slots=_SLOTS,
        millitokens_per_s=round(1000 / TOKEN_S),
        features=features,
        load_ms=load_ms,
    )
