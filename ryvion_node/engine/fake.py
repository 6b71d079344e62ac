"""A scripted engine and meter: deterministic, no child process, at home under trio's MockClock.

A token is a word with the white space before it, so counts can be read off a text by eye.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

import trio

from ryvion_node.engine.interface import (
    NO_TOOLS,
    Embeddings,
    Ended,
    EngineError,
    EngineModel,
    GenerationEvent,
    GenerationRequest,
    Piece,
    PromptRead,
    ScoringRequest,
    TokenScore,
    ToolUse,
    Turn,
)

_WORD = re.compile(r"\s*\S+|\s+\Z")


@dataclass(frozen=True, slots=True)
class Script:
    """What the fake does with one job: waits, speaks word by word, then ends or fails."""

    answer: str
    reason: Literal["stop", "length"] = "stop"
    prompt_s: float = 0.0
    """Time between PromptRead and the first word's own wait."""
    token_s: float = 0.0
    """Time before each word."""
    error: EngineError | None = None
    """Raised after the last word of `answer`, instead of Ended."""
    hangs: bool = False
    """After the last word nothing comes any more."""


def echo(request: GenerationRequest) -> Script:
    """The default script: repeats the last user turn."""
    said = [turn.content for turn in request.turns if turn.role == "user"]
    return Script(answer=said[-1] if said else "")


class FakeEngine:
    """Implements Engine by a script per job; counts what was asked of it."""

    def __init__(
        self, models: Sequence[EngineModel], script: Callable[[GenerationRequest], Script] | None = None
    ) -> None:
        self._models = {model.name: model for model in models}
        self._slots = {model.name: trio.CapacityLimiter(model.slots) for model in models}
        self._script = script or echo
        self.requests: list[GenerationRequest] = []
        """Every job so far, in order of arrival."""
        self.cancelled = 0
        """Jobs left before their last event."""

    def models(self) -> tuple[EngineModel, ...]:
        return tuple(self._models.values())

    def withdraw(self, name: str) -> None:
        """From now on this model is absent, as after three quick deaths of a real worker."""
        del self._models[name]

    @asynccontextmanager
    async def generate(self, request: GenerationRequest) -> AsyncIterator[AsyncIterator[GenerationEvent]]:
        model = self._model(request.model)
        prompt_tokens = count_turns(request.turns)
        if prompt_tokens + 1 > model.context_tokens:
            raise EngineError(
                "context_overflow", f"prompt of {prompt_tokens} tokens, context of {model.context_tokens}"
            )
        self.requests.append(request)
        run = _Run()
        # A fresh token per job: the same task may run several jobs.
        borrower = object()
        await self._slots[request.model].acquire_on_behalf_of(borrower)
        events = run.events(self._script(request), request.max_tokens, prompt_tokens)
        try:
            yield events
        finally:
            await events.aclose()
            self._slots[request.model].release_on_behalf_of(borrower)
            self.cancelled += not run.over

    async def count_prompt(self, model: str, turns: Sequence[Turn], tools: ToolUse = NO_TOOLS) -> int:
        self._model(model)
        await trio.lowlevel.checkpoint()
        return count_turns(turns)

    async def count_texts(self, model: str, texts: Sequence[str]) -> int:
        self._model(model)
        await trio.lowlevel.checkpoint()
        return sum(map(count_words, texts))

    async def score(self, request: ScoringRequest) -> tuple[TokenScore, ...]:
        self._model(request.model)
        await trio.lowlevel.checkpoint()
        return tuple(TokenScore(margin=0.0, logprob=0.0, rank=0) for _ in request.tokens)

    async def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        self._model(model)
        raise EngineError("unsupported", f"{model} is no embedding model")

    def _model(self, name: str) -> EngineModel:
        try:
            return self._models[name]
        except KeyError:
            raise EngineError("model_unknown", f"no model {name!r}") from None


class FakeCounter:
    """Implements TokenCounter with the fake engine's rule; `extra` makes it disagree on purpose."""

    def __init__(self, digests: Sequence[bytes], extra: int = 0) -> None:
        self._digests = frozenset(digests)
        self._extra = extra

    def knows(self, digest: bytes) -> bool:
        return digest in self._digests

    async def count_prompt(self, digest: bytes, turns: Sequence[Turn], tools: ToolUse = NO_TOOLS) -> int:
        self._check(digest)
        await trio.lowlevel.checkpoint()
        return count_turns(turns) + self._extra

    async def count_texts(self, digest: bytes, texts: Sequence[str]) -> int:
        self._check(digest)
        await trio.lowlevel.checkpoint()
        return sum(map(count_words, texts)) + self._extra

    def _check(self, digest: bytes) -> None:
        if digest not in self._digests:
            raise EngineError("model_unknown", f"no tokenizer for {digest.hex()[:12]}")


def words(text: str) -> tuple[str, ...]:
    """Split a text into the fake's tokens; joined again they are the text."""
    return tuple(_WORD.findall(text))


def count_words(text: str) -> int:
    """Canonical count of a text."""
    return len(words(text))


def count_turns(turns: Sequence[Turn]) -> int:
    """One token to begin, one per turn for its role, and the words."""
    return 1 + sum(1 + count_words(turn.content) for turn in turns)


def fake_model(name: str = "fake", **changes: object) -> EngineModel:
    """An EngineModel with sensible values; `changes` replace single fields."""
    fields: Mapping[str, object] = {
        "name": name,
        "digest": name.encode().ljust(32, b"\0")[:32],
        "quantisation": "Q8_0",
        "kind": "chat",
        "context_tokens": 512,
        "slots": 4,
        "millitokens_per_s": 50_000,
        "prompt_millitokens_per_s": 500_000,
    }
    return EngineModel(**{**fields, **changes})  # type: ignore[arg-type]


class _Run:
    def __init__(self) -> None:
        self.over = False

    async def events(
        self, script: Script, max_tokens: int, prompt_tokens: int
    ) -> AsyncGenerator[GenerationEvent, None]:
        yield PromptRead(prompt_tokens)
        await trio.sleep(script.prompt_s)
        spoken = words(script.answer)
        for number, word in enumerate(spoken[:max_tokens]):
            await trio.sleep(script.token_s)
            yield Piece(text=word, tokens=(number,))
        if script.hangs:
            await trio.sleep_forever()
        if script.error is not None:
            self.over = True
            raise script.error
        cut = len(spoken) > max_tokens
        self.over = True
        yield Ended(reason="length" if cut else script.reason, completion_tokens=min(len(spoken), max_tokens))
