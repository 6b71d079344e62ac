"""What runs models, as the rest of the node sees it.

`llama_engine.py` is the real one (a llama.cpp child process per model), `fake.py` a scripted one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

EngineErrorCode = Literal[
    "model_unknown",  # not in the manifest
    "model_broken",  # missing, corrupt, wrong digest, or it died three times at once
    "context_overflow",  # prompt + 1 token does not fit
    "template_failed",  # the chat template refused these messages
    "worker_crashed",  # the child died while the job ran
    "worker_stalled",  # the watchdog killed it
]


class EngineError(Exception):
    """A job could not be run or finished; `code` is stable, the message is for a person."""

    def __init__(self, code: EngineErrorCode, message: str) -> None:
        super().__init__(message)
        self.code: EngineErrorCode = code


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One entry of the owner's manifest. Nothing that a peer sends can name a path."""

    name: str
    path: Path
    digest: bytes | None = None
    """Expected SHA-256 of the file (32 bytes); None: whatever is there."""
    context_tokens: int | None = None
    """Per job; None: what the model was trained with, at most 8192."""
    slots: int = 4
    """Jobs at once."""
    gpu_layers: int = -1
    """Layers to put on the GPU; -1: all, when a GPU backend is there."""
    threads: int | None = None


@dataclass(frozen=True, slots=True)
class EngineModel:
    """A model that is ready to serve."""

    name: str
    digest: bytes
    quantisation: str
    kind: Literal["chat", "embedding"]
    context_tokens: int
    slots: int
    millitokens_per_s: int
    """Measured at start: decode speed of one job alone, in 1/1000 token per second."""
    prompt_millitokens_per_s: int
    """Measured at start: prompt speed."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One chat message; role is system, user, assistant or tool."""

    role: str
    content: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """A chat job. A last turn with role assistant is a prefix to continue. temperature 0 is greedy."""

    model: str
    turns: tuple[Turn, ...]
    max_tokens: int
    temperature: float
    top_p: float
    seed: int
    """0 .. 2^64-1, always given: the requester fixed it in its JobOffer."""
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PromptRead:
    """The job has a slot and its prompt fits, as this many tokens; always the first event, sent before the prompt is
    processed, so that whoever waits knows that it has begun."""

    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class Piece:
    """New text, never a split character, and the sampled token ids behind it. Either may be empty."""

    text: str
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Ended:
    """Always the last event. `completion_tokens`: canonical token count of the whole text sent (spec 04, billing)."""

    reason: Literal["stop", "length"]
    completion_tokens: int


GenerationEvent = PromptRead | Piece | Ended


class Engine(Protocol):
    """Runs chat jobs on the models it was started with."""

    def models(self) -> tuple[EngineModel, ...]:
        """Models that can serve now; a broken one is absent."""
        ...

    def generate(self, request: GenerationRequest) -> AbstractAsyncContextManager[AsyncIterator[GenerationEvent]]:
        """Run a job; leaving the context cancels it within one decode step. Raises EngineError on entry or iteration."""
        ...

    async def count_prompt(self, model: str, turns: Sequence[Turn]) -> int:
        """Tokens of the rendered prompt, BOS and template included."""
        ...

    async def count_text(self, model: str, text: str) -> int:
        """Canonical token count of an answer's text."""
        ...


class TokenCounter(Protocol):
    """The requester's own meter: counts with a vocab-only model in a child process."""

    def knows(self, digest: bytes) -> bool:
        """Is the tokenizer of this model (SHA-256 of its GGUF) at hand?"""
        ...

    async def count_prompt(self, digest: bytes, turns: Sequence[Turn]) -> int: ...

    async def count_text(self, digest: bytes, text: str) -> int: ...
