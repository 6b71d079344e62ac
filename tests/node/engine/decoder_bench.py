"""The decode loop in the test's own process, on the real llama.cpp, to be turned step by step."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ryvion_node.engine.constants import CREDIT_TOKENS
from ryvion_node.engine.interface import Sampling
from ryvion_node.engine.wire import JobPiece, JobRead, Message, WireTools, WireTurn
from ryvion_node.engine.worker.calibrate import Measured
from ryvion_node.engine.worker.choosing import Chooser
from ryvion_node.engine.worker.decoder import Decoder
from ryvion_node.engine.worker.emit import TextHold
from ryvion_node.engine.worker.job import EndReason, Job
from ryvion_node.engine.worker.llama import Context, Log, Model
from ryvion_node.engine.worker.prompt import Prompts
from ryvion_node.engine.worker.speech.speech import Speech

SLOTS = 4
CONTEXT = 256
NEAR_TIE = 0.5
"""Batch size and chunking change logits by up to 0.13 (Q8_0); below this two tokens are as good as equal."""


NO_TOOLS: WireTools = ((), "auto", "", True)


def turn(role: str, content: str) -> WireTurn:
    return role, content, "", (), ""


class WatchedContext(Context):
    """Remembers which rows of which sequence were put into steps."""

    rows: list[tuple[int, int, int]]
    """Sequence, first position, number of rows."""

    def put(self, sequence: int, position: int, tokens: Sequence[int], *, want_logits: int) -> int:
        self.rows.append((sequence, position, len(tokens)))
        return super().put(sequence, position, tokens, want_logits=want_logits)


@dataclass
class Bench:
    """A model, a context, and decoders made on it one after the other."""

    model: Model
    context: WatchedContext
    prompts: Prompts
    sent: list[Message] = field(default_factory=list)
    frames: list[tuple[Message, ...]] = field(default_factory=list)
    """What was sent at once."""
    ended: dict[int, EndReason] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def decoder(
        self, step_s: dict[int, float] | None = None, prompt_s: float = 0.001, gather_s: float = 0.0
    ) -> Decoder:
        self.sent.clear()
        self.frames.clear()
        self.ended.clear()
        self.context.rows = []
        for sequence in range(SLOTS):
            self.context.forget(sequence)
        return Decoder(
            self.context,
            self.model.vocabulary,
            slots=SLOTS,
            context_tokens=CONTEXT,
            measured=Measured(step_s or {1: 0.001, SLOTS: 0.001}, prompt_s),
            send=self._send,
            on_end=lambda job, reason: self.ended.update({job.number: reason}),
            gather_s=gather_s,
        )

    def _send(self, messages: list[Message]) -> None:
        self.sent += messages
        self.frames.append(tuple(messages))

    def job(self, content: str, *, max_tokens: int = 24, credit: int = CREDIT_TOKENS, owner: bytes = b"") -> Job:
        return self.chat(turn("user", content), max_tokens=max_tokens, credit=credit, owner=owner)

    def chat(self, *turns: WireTurn, max_tokens: int = 24, credit: int = CREDIT_TOKENS, owner: bytes = b"") -> Job:
        prompt = self.tokens_of(*turns)
        chooser = Chooser(self.model.vocabulary, Sampling(0.0, 1.0, 9), prompt)
        return Job(next(self.numbers), prompt, chooser, max_tokens, TextHold(()), Speech(), credit, owner)

    def tokens_of(self, *turns: WireTurn) -> list[int]:
        return self.prompts.prepare(turns, NO_TOOLS, ("", "")).tokens

    def finish(self, decoder: Decoder, *jobs: Job) -> list[tuple[int, ...]]:
        for job in jobs:
            decoder.post(job)
        return self.run(decoder, *jobs)

    def run(self, decoder: Decoder, *jobs: Job) -> list[tuple[int, ...]]:
        while not all(job.number in self.ended for job in jobs):
            decoder.turn()
        return [self.tokens(job) for job in jobs]

    def tokens(self, job: Job) -> tuple[int, ...]:
        return tuple(
            token
            for said in self.sent
            if isinstance(said, JobPiece) and said.job == job.number
            for token in said.tokens
        )

    def cached(self, job: Job) -> int:
        (read,) = [said for said in self.sent if isinstance(said, JobRead) and said.job == job.number]
        assert read.prompt_tokens == len(job.prompt)
        return read.cached_tokens

    def text(self, job: Job) -> str:
        return "".join(said.text for said in self.sent if isinstance(said, JobPiece) and said.job == job.number)


def open_bench(path: Path) -> Bench:
    log = Log()
    model = Model(path, vocab_only=False, gpu_layers=0, on_progress=lambda _share: None, log=log)
    context = WatchedContext(model, context_tokens=CONTEXT, slots=SLOTS, batch_tokens=128, threads=1, log=log)
    context.rows = []
    return Bench(model, context, Prompts(model))


def same_but_for_near_ties(bench: Bench, job: Job, one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    if one == other:
        return True
    at = next(place for place, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1])
    bench.context.forget(0)
    row = bench.context.put(0, 0, [*job.prompt, *one[:at]], want_logits=True)
    bench.context.decode()
    logits = bench.context.logits(row)
    return bool(abs(float(logits[one[at]]) - float(logits[other[at]])) < NEAR_TIE)


QUESTIONS = ("What is the capital of France?", "Say hello.", "What are you?", "Count to five, please. " * 8)
