"""A scripted engine and meter: deterministic, no child process, at home under trio's MockClock.

A token is a word with the white space before it, so counts can be read off a text by eye.
"""

from __future__ import annotations

import math
import re
import struct
import typing
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Literal

import trio

from ryvion_node.engine.interface import (
    NO_TOOLS,
    Alternative,
    CallPiece,
    Embeddings,
    Ended,
    EngineError,
    EngineModel,
    Feature,
    GenerationEvent,
    GenerationRequest,
    Piece,
    PromptRead,
    ScoringRequest,
    TokenLogprob,
    TokenScore,
    ToolCall,
    ToolUse,
    Turn,
)

_WORD = re.compile(r"\s*\S+|\s+\Z")


@dataclass(frozen=True, slots=True)
class Script:
    """What the fake does with one job: waits, thinks, speaks and calls word by word, then ends or fails."""

    answer: str = ""
    reason: Literal["stop", "length"] = "stop"
    """Without calls; with calls it is tool_calls."""
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()
    cached_tokens: int = 0
    """Said of the prompt."""
    prompt_s: float = 0.0
    """Time between PromptRead and the first word's own wait."""
    token_s: float = 0.0
    """Time before each word."""
    linger_s: float = 0.0
    """Time after the last word, before the end or the error."""
    error: Exception | None = None
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
        self.embedded: list[tuple[str, ...]] = []
        """Every lot of texts so far."""
        self.embed_s = 0.0
        """Time that a lot takes."""
        self.cancelled = 0
        """Jobs left before their last event."""
        self.counts = True
        """False: like an engine that tells only at the end how long a prompt was, and counts nothing else."""

    def models(self) -> tuple[EngineModel, ...]:
        return tuple(self._models.values())

    def withdraw(self, name: str) -> None:
        """From now on this model is absent, as after three quick deaths of a real worker."""
        del self._models[name]

    @asynccontextmanager
    async def generate(self, request: GenerationRequest) -> AsyncIterator[AsyncIterator[GenerationEvent]]:
        model = self._model(request.model)
        prompt_tokens = count_turns(request.turns, request.tools)
        if prompt_tokens + 1 > model.context_tokens:
            raise EngineError(
                "context_overflow", f"prompt of {prompt_tokens} tokens, context of {model.context_tokens}"
            )
        self.requests.append(request)
        run = _Run(self.counts, model.context_tokens)
        # A fresh token per job: the same task may run several jobs.
        borrower = object()
        await self._slots[request.model].acquire_on_behalf_of(borrower)
        events = run.events(self._script(request), request, prompt_tokens)
        try:
            yield events
        finally:
            await events.aclose()
            self._slots[request.model].release_on_behalf_of(borrower)
            self.cancelled += not run.over

    async def count_prompt(self, model: str, turns: Sequence[Turn], tools: ToolUse = NO_TOOLS) -> int:
        self._model(model)
        await trio.lowlevel.checkpoint()
        return count_turns(turns, tools)

    async def count_texts(self, model: str, texts: Sequence[str]) -> int:
        self._model(model)
        await trio.lowlevel.checkpoint()
        if not self.counts:
            raise EngineError("unsupported", f"nobody can count tokens of {model}")
        return sum(map(count_words, texts))

    async def score(self, request: ScoringRequest) -> tuple[TokenScore, ...]:
        self._model(request.model)
        await trio.lowlevel.checkpoint()
        return tuple(TokenScore(margin=0.0, logprob=0.0, rank=0) for _ in request.tokens)

    async def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        known = self._model(model)
        await trio.lowlevel.checkpoint()
        if known.kind != "embedding":
            raise EngineError("unsupported", f"{model} is no embedding model")
        self.embedded.append(tuple(texts))
        await trio.sleep(self.embed_s)
        if any(count_embedded(text) > known.context_tokens for text in texts):
            raise EngineError("context_overflow", f"a text is longer than {known.context_tokens} tokens")
        vectors = tuple(fake_vector(text, known.dimensions) for text in texts)
        return Embeddings(vectors, tuple(map(count_embedded, texts)))

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
        return count_turns(turns, tools) + self._extra

    async def count_texts(self, digest: bytes, texts: Sequence[str]) -> int:
        self._check(digest)
        await trio.lowlevel.checkpoint()
        return sum(map(count_words, texts)) + self._extra

    async def count_embedded(self, digest: bytes, texts: Sequence[str]) -> int:
        self._check(digest)
        await trio.lowlevel.checkpoint()
        return sum(map(count_embedded, texts)) + self._extra

    def _check(self, digest: bytes) -> None:
        if digest not in self._digests:
            raise EngineError("model_unknown", f"no tokenizer for {digest.hex()[:12]}")


def words(text: str) -> tuple[str, ...]:
    """Split a text into the fake's tokens; joined again they are the text."""
    return tuple(_WORD.findall(text))


def count_words(text: str) -> int:
    """Canonical count of a text."""
    return len(words(text))


def count_embedded(text: str) -> int:
    """Tokens of a text that is embedded: a mark at each end."""
    return count_words(text) + 2


def fake_vector(text: str, dimensions: int) -> bytes:
    """A unit vector of its own for each text, all in one plane."""
    angle = zlib.crc32(text.encode()) / 2**32
    return struct.pack(f"<{dimensions}f", math.cos(angle), math.sin(angle), *[0.0] * (dimensions - 2))


def count_turns(turns: Sequence[Turn], tools: ToolUse = NO_TOOLS) -> int:
    """One token to begin, one per turn for its role, one per tool or call, and the words."""
    count = 1 + sum(1 + count_words(turn.content) for turn in turns)
    for call in (call for turn in turns for call in turn.tool_calls):
        count += 1 + count_words(f"{call.name} {call.arguments}")
    return count + sum(1 + count_words(f"{tool.name} {tool.description} {tool.parameters}") for tool in tools.tools)


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
        "features": typing.get_args(Feature),
    }
    return EngineModel(**{**fields, **changes})  # type: ignore[arg-type]


class _Run:
    def __init__(self, counts: bool, context_tokens: int) -> None:
        self.over = False
        self._counts = counts
        self._context_tokens = context_tokens

    async def events(
        self, script: Script, request: GenerationRequest, prompt_tokens: int
    ) -> AsyncGenerator[GenerationEvent, None]:
        bound = self._context_tokens - 1
        yield PromptRead(prompt_tokens, script.cached_tokens) if self._counts else PromptRead(bound, is_exact=False)
        await trio.sleep(script.prompt_s)
        pieces = _pieces(script, request.logprobs)
        for piece in pieces[: request.max_tokens]:
            await trio.sleep(script.token_s)
            yield piece
        await trio.sleep(script.linger_s)
        if script.hangs:
            await trio.sleep_forever()
        if script.error is not None:
            self.over = True
            raise script.error
        self.over = True
        yield Ended(
            reason=_reason(script, cut=len(pieces) > request.max_tokens),
            completion_tokens=min(len(pieces), request.max_tokens),
            reasoning_tokens=min(count_words(script.reasoning), request.max_tokens),
            prompt_tokens=None if self._counts else prompt_tokens,
        )


def _reason(script: Script, *, cut: bool) -> Literal["stop", "length", "tool_calls"]:
    if cut:
        return "length"
    return "tool_calls" if script.calls else script.reason


def _pieces(script: Script, alternatives: int | None) -> list[Piece]:
    """One piece per token: thoughts, the answer, then each call's name and arguments."""
    pieces = [Piece("", reasoning=word) for word in words(script.reasoning)]
    pieces += [Piece(word) for word in words(script.answer)]
    for index, call in enumerate(script.calls):
        pieces.append(Piece("", calls=(CallPiece(index, call.id, call.name, ""),)))
        pieces += [Piece("", calls=(CallPiece(index, "", "", word),)) for word in words(call.arguments)]
    return [
        replace(piece, tokens=(number,), logprobs=_logprobs(piece, alternatives)) for number, piece in enumerate(pieces)
    ]


def _logprobs(piece: Piece, alternatives: int | None) -> tuple[TokenLogprob, ...]:
    """Made up: the token itself is likeliest, each further alternative less so."""
    if alternatives is None:
        return ()
    token = (piece.reasoning + piece.text + "".join(call.name + call.arguments for call in piece.calls)).encode()
    top = (Alternative(token, -0.5), *(Alternative(b"%d" % rank, -0.5 - rank) for rank in range(1, alternatives)))
    return (TokenLogprob(top[0], top[:alternatives]),)
