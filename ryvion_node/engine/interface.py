"""What runs models, as the rest of the node sees it.

`llama_engine.py` runs GGUF files in llama.cpp child processes, `remote/` passes jobs on to an OpenAI-compatible server
that the owner runs, `fleet.py` puts both behind one Engine, and `fake.py` is a scripted one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol

EngineErrorCode = Literal[
    "model_unknown",  # not in the manifest
    "model_broken",  # missing, corrupt, wrong digest, or it died three times at once
    "context_overflow",  # prompt + 1 token does not fit
    "template_failed",  # the chat template refused these messages
    "grammar_invalid",  # the schema, grammar or expression is malformed, too large or too deep
    "unsupported",  # this model or the engine behind it cannot do what was asked; never dropped silently
    "worker_crashed",  # the child died while the job ran
    "worker_stalled",  # the watchdog killed it
    "busy",  # the engine behind is full just now
    "rate_limited",  # this requester asks more often than it may just now
]


class EngineError(Exception):
    """A job could not be run or finished; `code` is stable, the message is for a person."""

    def __init__(self, code: EngineErrorCode, message: str) -> None:
        super().__init__(message)
        self.code: EngineErrorCode = code


Feature = Literal[
    "seeded",  # tokens are drawn by the specified sampler (spec 05), so that anyone with the model can check them
    "counted",  # prompt and completion are counted by the model's own tokenizer under its pinned template
    "top_k",
    "min_p",
    "penalties",  # presence and frequency
    "repetition_penalty",
    "logit_bias",
    "logprobs",
    "json_object",
    "json_schema",
    "regex",
    "lark",
    "tools",
    "prefix",  # continues a last assistant message
]
"""What an engine can do beyond temperature, top_p, seed and stop. Offers carry the list (spec 03)."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One entry of the owner's manifest, run by llama.cpp. Nothing that a peer sends can name a path."""

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
    template: Path | None = None
    """A Jinja chat template to use in place of the file's own."""
    template_digest: bytes | None = None
    """Expected SHA-256 of the template's file; None: whatever is there."""
    load: Literal["start", "first-use"] = "start"
    """When the weights are loaded. In both cases the model is loaded once to measure it where that was never done."""
    idle_unload_s: float | None = None
    """Unload after so long without a job, load again with the next one; None: stays loaded."""
    walls: bool = True
    """Keep its process from the network, other programs and all files but its own (Linux)."""


@dataclass(frozen=True, slots=True)
class EngineModel:
    """A model that is ready to serve, or that will be loaded with its first job."""

    name: str
    digest: bytes
    """SHA-256 of the GGUF; 32 zero bytes where the weights lie behind an engine that cannot tell."""
    quantisation: str
    kind: Literal["chat", "embedding"]
    context_tokens: int
    slots: int
    millitokens_per_s: int
    """Measured: decode speed of one job alone, in 1/1000 token per second."""
    prompt_millitokens_per_s: int
    """Measured: prompt speed."""
    features: tuple[Feature, ...] = ()
    dimensions: int = 0
    """Of an embedding model's vectors."""
    load_ms: int = 0
    """The next job first waits so long, as measured last time, until the model is loaded; 0: it is."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that an assistant turn made; `arguments` is JSON text as the model wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Turn:
    """One chat message; role is system, user, assistant or tool."""

    role: str
    content: str
    name: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    """Of a tool turn: which call it answers."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call; `parameters` is a JSON Schema as text, empty for none."""

    name: str
    description: str
    parameters: str


@dataclass(frozen=True, slots=True)
class ToolUse:
    """Which tools there are and whether they must be called. No tools: the other fields mean nothing."""

    tools: tuple[Tool, ...] = ()
    choice: Literal["auto", "none", "required", "named"] = "auto"
    name: str = ""
    """The tool that must be called, when `choice` is named."""
    parallel: bool = True
    """May one answer hold several calls?"""


NO_TOOLS: Final = ToolUse()


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """What the answer's text must be. `text` is a JSON Schema, a regular expression or a Lark grammar."""

    kind: Literal["json_object", "json_schema", "regex", "lark"]
    text: str = ""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen (spec 05). The defaults switch everything but temperature off."""

    temperature: float
    """0 is greedy."""
    top_p: float = 1.0
    seed: int = 0
    """0 .. 2^64-1: the requester fixed it in its JobOffer."""
    top_k: int = 0
    """0: all tokens."""
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    """Token id, and what is added to its logit."""


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """A chat job. A last turn with role assistant is a prefix to continue."""

    model: str
    turns: tuple[Turn, ...]
    max_tokens: int
    sampling: Sampling
    stop: tuple[str, ...] = ()
    tools: ToolUse = NO_TOOLS
    output: OutputFormat | None = None
    logprobs: int | None = None
    """None: none; else with each token its log-probability and so many alternatives (0 .. 20)."""
    owner: bytes = b""
    """Whose job it is: prompts already read are reused between jobs of one owner only. Empty: never."""


@dataclass(frozen=True, slots=True)
class PromptRead:
    """The job has a slot and its prompt fits, as this many tokens; always the first event, sent before the prompt is
    processed, so that whoever waits knows that it has begun."""

    prompt_tokens: int
    cached_tokens: int = 0
    """Of these, read for an earlier job of the same owner."""
    is_exact: bool = True
    """False: `prompt_tokens` is an upper bound, and `Ended` tells the count."""


@dataclass(frozen=True, slots=True)
class CallPiece:
    """Part of a tool call: `id` and `name` come with its first piece and are empty after it."""

    index: int
    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Alternative:
    """A token as bytes, and the natural logarithm of its probability before any sampling rule."""

    piece: bytes
    logprob: float


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """The chosen token, and the most likely ones in falling order."""

    chosen: Alternative
    top: tuple[Alternative, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """What was generated: text that never splits a character, and the sampled token ids behind it. Any may be empty."""

    text: str
    tokens: tuple[int, ...] = ()
    reasoning: str = ""
    """Thoughts before the answer, where the model's family marks them."""
    calls: tuple[CallPiece, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Ended:
    """Always the last event. `completion_tokens`: canonical token count of everything sent (spec 04, billing)."""

    reason: Literal["stop", "length", "tool_calls"]
    completion_tokens: int
    reasoning_tokens: int = 0
    prompt_tokens: int | None = None
    """The prompt's count where PromptRead had none."""


GenerationEvent = PromptRead | Piece | Ended


@dataclass(frozen=True, slots=True)
class ScoringRequest:
    """Claimed output to check against a model: the same fields as the job had, and the tokens that were returned."""

    model: str
    turns: tuple[Turn, ...]
    tokens: tuple[int, ...]
    sampling: Sampling
    tools: ToolUse = NO_TOOLS
    output: OutputFormat | None = None


@dataclass(frozen=True, slots=True)
class TokenScore:
    """One claimed token under the model."""

    margin: float
    """How far it is behind the token that the sampler (spec 05) chooses there; 0 when it is that one, in the sampler's
    own units (logit / temperature + noise; greedy: logits). Infinite when the rules exclude it."""
    logprob: float
    rank: int
    """Tokens that the model finds more likely."""


@dataclass(frozen=True, slots=True)
class Embeddings:
    """One unit vector (float32) per text in the order asked, and the tokens read."""

    vectors: tuple[bytes, ...]
    """Little-endian float32, `dimensions` numbers each."""
    tokens: tuple[int, ...]
    """Of each text."""


class Engine(Protocol):
    """Runs jobs on the models it was started with. Everything here raises EngineError."""

    def models(self) -> tuple[EngineModel, ...]:
        """Models that can serve now; a broken one is absent."""
        ...

    def generate(self, request: GenerationRequest) -> AbstractAsyncContextManager[AsyncIterator[GenerationEvent]]:
        """Run a job; leaving the context cancels it within one decode step. Raises EngineError on entry or iteration."""
        ...

    async def count_prompt(self, model: str, turns: Sequence[Turn], tools: ToolUse = NO_TOOLS) -> int:
        """Tokens of the rendered prompt, BOS and template included."""
        ...

    async def count_texts(self, model: str, texts: Sequence[str]) -> int:
        """Sum of the canonical token counts of these texts, each by itself."""
        ...

    async def score(self, request: ScoringRequest) -> tuple[TokenScore, ...]:
        """One teacher-forced pass over prompt and claimed tokens; a score per token. Only where `seeded` is a feature."""
        ...

    async def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        """Vectors of an embedding model."""
        ...


class TokenCounter(Protocol):
    """The requester's own meter: counts with a vocab-only model in a child process."""

    def knows(self, digest: bytes) -> bool:
        """Is the tokenizer of this model (SHA-256 of its GGUF) at hand?"""
        ...

    async def count_prompt(self, digest: bytes, turns: Sequence[Turn], tools: ToolUse = NO_TOOLS) -> int: ...

    async def count_texts(self, digest: bytes, texts: Sequence[str]) -> int: ...

    async def count_embedded(self, digest: bytes, texts: Sequence[str]) -> int:
        """Sum of the tokens of texts that are embedded, each with the marks that the model wants around it."""
        ...
