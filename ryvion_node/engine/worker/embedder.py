"""The loop of an embedding model: whole texts of all jobs, several per step, one unit vector each."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from ryvion_node.engine.constants import (
    CALIBRATION_S,
    EMBED_STEP_TEXTS,
    MAX_EMBED_TEXTS,
    MIN_CHUNK_TOKENS,
)
from ryvion_node.engine.wire import Cancel, Credit, Embed, Embedded, JobFailed, Message, Ping, Pong
from ryvion_node.engine.worker.llama import Context, LlamaError, Vector, Vocabulary
from ryvion_node.engine.worker.plan import PromptPace

_PROBE_TOKENS: Final = 32
"""Of each text that is read to measure the speed: a long sentence."""
_CHARS_PER_TOKEN: Final = 32
"""Texts with so many on average are rare, so of a longer text only the beginning is tokenised at first."""


@dataclass(slots=True, eq=False)
class EmbedJob:
    """Texts to read, as tokens, and the vectors so far."""

    number: int
    texts: tuple[list[int], ...]
    vectors: list[bytes] = field(default_factory=list)
    begun: int = 0
    """Texts that were put into a step."""
    served: int = 0
    """Tokens read for it, counted from where the least served job stood when it came."""


Command = EmbedJob | Cancel | Credit | Ping


def embed_job(request: Embed, vocabulary: Vocabulary, context_tokens: int) -> EmbedJob | JobFailed:
    """The job that a request asks for, or why it cannot be run. Texts are never cut."""
    if len(request.texts) > MAX_EMBED_TEXTS:
        return JobFailed(request.job, "unsupported", f"at most {MAX_EMBED_TEXTS} texts at once")
    texts = []
    for text in request.texts:
        beginning = text[: _CHARS_PER_TOKEN * context_tokens]
        tokens = vocabulary.tokenise_alone(beginning)
        # The cut may change a few tokens at its end, never half of them.
        if len(beginning) < len(text) and len(tokens) < 2 * context_tokens:
            tokens = vocabulary.tokenise_alone(text)
        if len(tokens) > context_tokens:
            count = f"more than {context_tokens}" if len(beginning) < len(text) else f"{len(tokens)}"
            problem = f"a text has {count} tokens, the model reads {context_tokens}: cut it into parts"
            return JobFailed(request.job, "context_overflow", problem)
        if not tokens:
            return JobFailed(request.job, "unsupported", "this model makes no vector of an empty text")
        texts.append(tokens)
    return EmbedJob(request.job, tuple(texts))


@dataclass(frozen=True, slots=True)
class Reading:
    """How a context reads best."""

    seconds_per_token: float
    step_tokens: int
    """Tokens of a step at most, unless a single text has more: beyond it, attention over the whole step costs more
    than larger matrices save."""


def measure_reading(context: Context, step_tokens: int, on_stage: Callable[[str], None]) -> Reading:
    """The speed of a full step of short texts. Raises LlamaError if the output is no numbers."""
    on_stage("testing")
    _timed_step(context, [[0]])
    step_tokens = min(step_tokens, context.batch_tokens)
    length = min(_PROBE_TOKENS, step_tokens)
    texts = [[0] * length] * min(EMBED_STEP_TEXTS, step_tokens // length)
    on_stage("measuring")
    end = time.perf_counter() + CALIBRATION_S
    best = _timed_step(context, texts)
    while time.perf_counter() < end:
        on_stage("measuring")
        best = min(best, _timed_step(context, texts))
    return Reading(best / (length * len(texts)), step_tokens)


def _timed_step(context: Context, texts: Sequence[Sequence[int]]) -> float:
    start = time.perf_counter()
    for sequence, tokens in enumerate(texts):
        context.put(sequence, 0, tokens, want_logits=True)
    context.encode()
    # Backends may compute behind our back: reading a vector waits for them.
    if _unit(context.vector(len(texts) - 1)) is None:
        raise LlamaError("the weights give no numbers: the file is damaged")
    return time.perf_counter() - start


def _unit(vector: Vector) -> bytes | None:
    """The vector of length 1 as little-endian float32; None when it has no direction."""
    length = float(np.linalg.norm(vector.astype(np.float64)))
    if not np.isfinite(length) or length == 0:
        return None
    return (vector / length).astype("<f4").tobytes()


class Embedder:
    """Owns the context. `run` belongs to one thread, `post` may be called by any."""

    def __init__(self, context: Context, reading: Reading, send: Callable[[list[Message]], None]) -> None:
        self._context = context
        self._step_tokens = reading.step_tokens
        self._pace = PromptPace(reading.seconds_per_token)
        self._send = send
        self._jobs: dict[int, EmbedJob] = {}
        self._out: list[Message] = []
        self._inbox: deque[Command] = deque()
        self._wake = threading.Condition()

    def post(self, command: Command) -> None:
        """Hand over a command; it takes effect between two steps."""
        with self._wake:
            self._inbox.append(command)
            self._wake.notify()

    def run(self) -> None:
        """Never returns; the process ends it. Raises LlamaError when llama.cpp fails."""
        while True:
            self.turn()

    def turn(self) -> None:
        """Take in commands (waiting for some if there is nothing to do), make one step, report."""
        with self._wake:
            while not self._inbox and not self._jobs:
                self._wake.wait()
            commands = list(self._inbox)
            self._inbox.clear()
        for command in commands:
            self._apply(command)
        if self._jobs:
            self._step()
        if self._out:
            self._send(self._out)
            self._out = []

    def _apply(self, command: Command) -> None:
        match command:
            case EmbedJob():
                command.served = min((job.served for job in self._jobs.values()), default=0)
                self._jobs[command.number] = command
                self._end_if_complete(command)
            case Cancel(job=number):
                self._jobs.pop(number, None)
            case Credit():
                # An embedding comes as one answer: there is nothing to be ahead of.
                pass
            case Ping(number=number):
                self._out.append(Pong(number))

    def _step(self) -> None:
        """Read the next texts, one after the other of the job that was served least, as many as fit the step's time."""
        rows = self._pace.rows(self._step_tokens)
        taken: list[EmbedJob] = []
        used = 0
        while len(taken) < EMBED_STEP_TEXTS:
            waiting = [job for job in self._jobs.values() if job.begun < len(job.texts)]
            if not waiting:
                break
            job = min(waiting, key=lambda job: job.served)
            tokens = job.texts[job.begun]
            if used and used + len(tokens) > rows:
                break
            self._context.put(len(taken), 0, tokens, want_logits=True)
            job.begun += 1
            job.served += len(tokens)
            used += len(tokens)
            taken.append(job)
        start = time.perf_counter()
        self._context.encode()
        vectors = [_unit(self._context.vector(sequence)) for sequence in range(len(taken))]
        if used >= MIN_CHUNK_TOKENS:
            self._pace.observe(used, time.perf_counter() - start)
        for job, vector in zip(taken, vectors, strict=True):
            self._keep(job, vector)

    def _keep(self, job: EmbedJob, vector: bytes | None) -> None:
        if job.number not in self._jobs:
            return
        if vector is None:
            self._out.append(JobFailed(job.number, "model_broken", "the model computed something that is no direction"))
            del self._jobs[job.number]
            return
        job.vectors.append(vector)
        self._end_if_complete(job)

    def _end_if_complete(self, job: EmbedJob) -> None:
        if len(job.vectors) == len(job.texts):
            self._out.append(Embedded(job.number, tuple(job.vectors), tuple(map(len, job.texts))))
            del self._jobs[job.number]
