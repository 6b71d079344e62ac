"""The decode loop: N sequences in one context, one step after the other, in one thread."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ryvion_node.engine.constants import MIN_CHUNK_TOKENS
from ryvion_node.engine.wire import Cancel, Credit, JobFailed, JobPiece, JobRead, Message, Ping, Pong, WireLogprob
from ryvion_node.engine.worker.calibrate import Measured
from ryvion_node.engine.worker.choosing import Chooser, MaskFailed, NotFinite
from ryvion_node.engine.worker.emit import TextHold
from ryvion_node.engine.worker.llama import Context, Vocabulary
from ryvion_node.engine.worker.plan import PromptPace, StepTimes, share_rows
from ryvion_node.engine.worker.speech.parts import Parts
from ryvion_node.engine.worker.speech.speech import Speech


@dataclass(slots=True, eq=False)
class Job:
    """One sequence: first its prompt is read, then it decodes token by token."""

    number: int
    prompt: list[int]
    chooser: Chooser
    max_tokens: int
    hold: TextHold
    speech: Speech
    credit: int
    sequence: int = -1
    position: int = 0
    """Tokens in the cache; also the index that the next sampled token gets."""
    next_token: int | None = None
    """Sampled, not yet decoded; None while the prompt is read."""
    sampled: int = 0
    passed_over: int = 0
    """Prompt rows given to others while this one waited."""
    last_step: int = 0


Command = Job | Cancel | Credit | Ping
EndReason = Literal["stop", "length", "tool_calls"]


class Decoder:
    """Owns the context. `run` belongs to one thread, `post` may be called by any."""

    def __init__(
        self,
        context: Context,
        vocabulary: Vocabulary,
        *,
        slots: int,
        context_tokens: int,
        measured: Measured,
        send: Callable[[list[Message]], None],
        on_end: Callable[[Job, EndReason], None],
    ) -> None:
        self._context = context
        self._vocabulary = vocabulary
        self._context_tokens = context_tokens
        self._times = StepTimes(measured.step_s)
        self._pace = PromptPace(measured.prompt_s_per_token)
        self._send = send
        self._on_end = on_end
        self._free = list(reversed(range(slots)))
        self._queue: deque[Job] = deque()
        self._jobs: dict[int, Job] = {}
        self._steps = 0
        self._out: list[Message] = []
        self._ended: list[tuple[Job, EndReason]] = []
        self._inbox: list[Command] = []
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
        for command in self._commands():
            self._apply(command)
        while self._queue and self._free:
            self._admit(self._queue.popleft())
        self._flush()
        self._step()
        self._flush()

    def _commands(self) -> list[Command]:
        with self._wake:
            while not self._inbox and not self._runnable():
                self._wake.wait()
            commands, self._inbox = self._inbox, []
        return commands

    def _runnable(self) -> bool:
        if self._queue and self._free:
            return True
        return any(job.next_token is None or job.credit > 0 for job in self._jobs.values())

    def _apply(self, command: Command) -> None:
        match command:
            case Job():
                self._queue.append(command)
            case Cancel(job=number):
                if (job := self._jobs.get(number)) is not None:
                    self._release(job)
                else:
                    self._queue = deque(job for job in self._queue if job.number != number)
            case Credit(job=number, tokens=tokens):
                if (job := self._jobs.get(number)) is not None:
                    job.credit += tokens
            case Ping(number=number):
                self._out.append(Pong(number))

    def _admit(self, job: Job) -> None:
        job.sequence = self._free.pop()
        self._jobs[job.number] = job
        self._out.append(JobRead(job.number, len(job.prompt), 0))

    def _release(self, job: Job) -> None:
        del self._jobs[job.number]
        self._context.forget(job.sequence)
        self._free.append(job.sequence)

    def _step(self) -> None:
        """Decode one token of some jobs and read a chunk of waiting prompts."""
        reading = [job for job in self._jobs.values() if job.next_token is None]
        ready = [job for job in self._jobs.values() if job.next_token is not None and job.credit > 0]
        if not reading and not ready:
            return
        if not reading:
            # In turns: whoever waited longest comes first.
            ready.sort(key=lambda job: job.last_step)
            del ready[self._times.next_size(len(ready)) :]
        self._steps += 1
        wanted = [(job, self._put_next(job)) for job in ready]
        if reading:
            wanted += self._put_prompts(reading, len(ready))
        rows = self._context.batch_tokens - self._context.room
        start = time.perf_counter()
        self._context.decode()
        seconds = time.perf_counter() - start
        if reading:
            self._pace.observe(rows, seconds)
        else:
            self._times.observe(rows, seconds)
        for job, row in wanted:
            self._sample(job, row)

    def _put_next(self, job: Job) -> int:
        assert job.next_token is not None
        row = self._context.put(job.sequence, job.position, (job.next_token,), want_logits=True)
        job.position += 1
        job.last_step = self._steps
        return row

    def _put_prompts(self, reading: list[Job], decoding: int) -> list[tuple[Job, int]]:
        """Adds prompt chunks; returns the jobs whose prompt is complete with this step."""
        rows = max(MIN_CHUNK_TOKENS, self._pace.rows(self._context.batch_tokens) - decoding)
        rows = min(rows, self._context.room)
        left = [len(job.prompt) - job.position for job in reading]
        shares = share_rows(rows, left, [job.passed_over for job in reading])
        complete = []
        for job, share in zip(reading, shares, strict=True):
            job.passed_over += sum(shares) - share
            if not share:
                continue
            part = job.prompt[job.position : job.position + share]
            last = job.position + share == len(job.prompt)
            row = self._context.put(job.sequence, job.position, part, want_logits=last)
            job.position += share
            if last:
                job.last_step = self._steps
                complete.append((job, row))
        return complete

    def _sample(self, job: Job, row: int) -> None:
        try:
            choice = job.chooser.choose(self._context.logits(row), job.position)
        except NotFinite:
            self._fail(job, "model_broken", "the model computed something that is no number")
            return
        except MaskFailed as exc:
            self._fail(job, "grammar_invalid", str(exc))
            return
        token = choice.token
        if self._vocabulary.ends(token):
            if parts := job.speech.finish(job.hold.rest()):
                self._say(job, parts)
            self._end(job, "stop")
            return
        job.next_token = token
        job.sampled += 1
        job.credit -= 1
        text, stopped = job.hold.add(job.speech.marker(token) or self._vocabulary.piece(token))
        full = job.sampled >= job.max_tokens or job.position + 1 >= self._context_tokens
        if full and not stopped:
            text += job.hold.rest()
        parts = job.speech.add(text)
        ends = stopped or job.speech.done
        if ends or full:
            parts += job.speech.finish()
        # The token that completes a stop string is no part of the answer.
        logprobs = () if choice.logprob is None or stopped else (choice.logprob,)
        self._say(job, parts, (token,), logprobs)
        if ends or full:
            self._end(job, "stop" if ends else "length")

    def _say(
        self, job: Job, parts: Parts, tokens: tuple[int, ...] = (), logprobs: tuple[WireLogprob, ...] = ()
    ) -> None:
        self._out.append(JobPiece(job.number, parts.content, tokens, parts.reasoning, parts.calls, logprobs))

    def _end(self, job: Job, reason: EndReason) -> None:
        self._release(job)
        self._ended.append((job, "tool_calls" if reason == "stop" and job.speech.called else reason))

    def _fail(self, job: Job, code: str, message: str) -> None:
        self._out.append(JobFailed(job.number, code, message))
        self._release(job)

    def _flush(self) -> None:
        if self._out:
            self._send(self._out)
            self._out = []
        # Only now, so that a job's end comes after its last piece.
        for job, reason in self._ended:
            self._on_end(job, reason)
        self._ended.clear()
