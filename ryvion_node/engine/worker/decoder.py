"""The decode loop: N sequences in one context, one step after the other, in one thread."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import chain

from ryvion_node.engine.constants import GRAMMAR_PATIENCE_S, PIECES_EVERY_S, PIECES_MOST_JOBS
from ryvion_node.engine.wire import (
    Cancel,
    Credit,
    JobFailed,
    JobPiece,
    JobRead,
    Message,
    Ping,
    Pong,
    Scored,
    Speed,
    WireLogprob,
)
from ryvion_node.engine.worker.calibrate import Measured
from ryvion_node.engine.worker.choosing import Choice, MaskFailed, NotFinite
from ryvion_node.engine.worker.job import EndReason, Job
from ryvion_node.engine.worker.llama import Context, Vocabulary
from ryvion_node.engine.worker.plan import Gathering, PromptPace, StepTimes, share_rows, spans
from ryvion_node.engine.worker.prompt_ends import PromptEnds
from ryvion_node.engine.worker.sampler import Logits
from ryvion_node.engine.worker.scoring import Scoring, rows_at_once
from ryvion_node.engine.worker.sequences import Sequences
from ryvion_node.engine.worker.speech.parts import Parts
from ryvion_node.engine.worker.speedometer import Speedometer, Speeds

Command = Job | Cancel | Credit | Ping


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
        gather_s: float = PIECES_EVERY_S,
    ) -> None:
        self._context = context
        self._vocabulary = vocabulary
        self._context_tokens = context_tokens
        # A step may need a row in every sequence besides its prompts.
        self._prompt_rows = context.batch_tokens - slots
        self._score_rows = rows_at_once(vocabulary.size)
        self._patience_s = GRAMMAR_PATIENCE_S
        self._times = StepTimes(measured.step_s)
        self._pace = PromptPace(measured.prompt_s_per_token)
        self._speedometer = Speedometer(Speeds(measured.step_s[1], measured.prompt_s_per_token))
        self._send = send
        self._on_end = on_end
        self._sequences = Sequences(slots)
        self._prompt_ends = PromptEnds()
        self._gathering = Gathering()
        self._fillers: list[tuple[int, int]] = []
        self._queue: deque[Job] = deque()
        self._jobs: dict[int, Job] = {}
        self._steps = 0
        self._out: list[Message] = []
        self._urgent = False
        self._gather_s = gather_s
        self._gathered_until_s = 0.0
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
        while self._queue and self._sequences:
            self._admit(self._queue.popleft())
        self._flush()
        self._catch_up()
        self._flush()
        self._step()
        self._flush()

    def _commands(self) -> list[Command]:
        with self._wake:
            while not self._inbox and not self._runnable():
                self._speedometer.rest()
                self._wake.wait()
            commands, self._inbox = self._inbox, []
        return commands

    def _runnable(self) -> bool:
        if self._queue and self._sequences:
            return True
        return self._able() or any(job.waiting for job in self._jobs.values())

    def _able(self) -> bool:
        """Can any job take part in a step now?"""
        return any(not job.waiting and (job.next_token is None or job.credit > 0) for job in self._jobs.values())

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
                self._tell(Pong(number))

    def _admit(self, job: Job) -> None:
        job.sequence, kept = self._sequences.take(job.owner, job.prompt)
        self._jobs[job.number] = job
        logits = self._prompt_ends.find(job.sequence, job.prompt, kept)
        job.position = self._context.cut(job.sequence, kept if logits is None else len(job.prompt))
        if logits is not None and job.position:
            job.waiting.append(logits)
        if job.scoring is None:
            self._tell(JobRead(job.number, len(job.prompt), min(job.position, kept)))

    def _release(self, job: Job, *, keep: bool = True) -> None:
        del self._jobs[job.number]
        job.waiting.clear()
        owner = job.owner if keep and self._context.can_cut else b""
        if not self._sequences.give_back(job.sequence, owner, (job.prompt + job.made)[: job.position]):
            self._context.forget(job.sequence)
            self._prompt_ends.forget(job.sequence)

    def _step(self) -> None:
        """Decode one token of some jobs and read a chunk of waiting prompts."""
        jobs = [job for job in self._jobs.values() if not job.waiting]
        reading = [job for job in jobs if job.next_token is None]
        ready = [job for job in jobs if job.next_token is not None and job.credit > 0]
        if self._gathers([job for job in reading if job.scoring is None]):
            ready = []
        if not reading and not ready:
            return
        if not reading:
            # In turns: whoever waited longest comes first.
            ready.sort(key=lambda job: job.last_step)
            del ready[self._times.next_size(len(ready)) :]
        self._steps += 1
        lone = not reading and len(self._jobs) == 1
        shares = dict.fromkeys(ready, 1) | self._prompt_shares(reading, len(ready))
        passes = spans(sorted(job.sequence for job in ready), self._times, fill=self._context.can_cut)
        wanted = self._put(shares, passes)
        seconds = self._decode()
        if ready and reading:
            taken = sum(self._times.of(len(span)) for span in passes)
            self._pace.observe(sum(shares.values()) - len(ready), max(seconds - taken, seconds / 2))
        elif reading:
            self._pace.observe(sum(shares.values()), seconds)
        elif len(passes) == 1:
            self._times.observe(len(passes[0]), seconds)
        for job, rows in wanted:
            for row in rows:
                self._take(job, row)
        self._tell_speed(lone=lone)

    def _tell_speed(self, *, lone: bool) -> None:
        now_s = time.perf_counter()
        self._speedometer.step(lone=lone, now_s=now_s)
        if speeds := self._speedometer.news(self._pace.seconds_per_token, now_s):
            self._tell(Speed(int(1000 / speeds.token_s), int(1000 / speeds.prompt_token_s)))

    def _gathers(self, reading: list[Job]) -> bool:
        if not reading or any(len(job.made) > 1 for job in self._jobs.values()):
            self._gathering.over()
            return False
        pace = self._pace.seconds_per_token
        return self._gathering.waits([(len(job.prompt) - job.position) * pace for job in reading], time.perf_counter())

    def _prompt_shares(self, reading: list[Job], decoding: int) -> dict[Job, int]:
        """Rows of each prompt in this step."""
        if not reading:
            return {}
        rows = self._pace.rows(self._prompt_rows, self._times.of(decoding) if decoding else 0.0)
        left = [self._left(job) for job in reading]
        passed_over = [job.passed_over for job in reading]
        shares = share_rows(min(rows, self._prompt_rows), self._prompt_rows, left, passed_over)
        for job, share in zip(reading, shares, strict=True):
            job.passed_over += sum(shares) - share
        return {job: share for job, share in zip(reading, shares, strict=True) if share}

    def _left(self, job: Job) -> int:
        """Rows that its prompt may have in a step."""
        left = len(job.prompt) - job.position
        return left if job.scoring is None else min(left, job.scoring.next_row - job.position + self._score_rows)

    def _put(self, shares: dict[Job, int], passes: list[range]) -> list[tuple[Job, range]]:
        """Fill the batch in rising order of sequences; returns the jobs that get a token, and their rows."""
        served = {job.sequence: job for job in shares}
        wanted = []
        for sequence in sorted(set(chain.from_iterable(passes)) | served.keys()):
            job = served.get(sequence)
            if job is None:
                self._put_filler(sequence)
                continue
            tokens = job.prompt[job.position : job.position + shares[job]]
            if job.next_token is not None:
                tokens = [job.next_token]
            end = job.position + len(tokens)
            first = len(job.prompt) - 1 if job.scoring is None else job.scoring.next_row
            rows = max(0, min(len(tokens), end - first))
            row = self._context.put(sequence, job.position, tokens, want_logits=rows)
            job.position = end
            if rows:
                job.last_step = self._steps
                wanted.append((job, range(row + 1 - rows, row + 1)))
        return wanted

    def _put_filler(self, sequence: int) -> None:
        """A row of no meaning behind what a sequence holds, taken off again after the step."""
        users = (job.position for job in self._jobs.values() if job.sequence == sequence)
        position = next(users, None)
        if position is None:
            position = self._sequences.held(sequence)
        self._context.put(sequence, position, (0,), want_logits=False)
        self._fillers.append((sequence, position))

    def _decode(self) -> float:
        """Seconds that the step took."""
        start = time.perf_counter()
        self._context.decode()
        seconds = time.perf_counter() - start
        for sequence, position in self._fillers:
            self._context.cut(sequence, position)
        self._fillers.clear()
        return seconds

    def _take(self, job: Job, row: int) -> None:
        """Use the logits of a row, now or when its job's grammar is ready."""
        if job.number not in self._jobs:
            return
        logits = self._context.logits(row)
        if job.owner and job.scoring is None and job.next_token is None:
            self._prompt_ends.keep(job.sequence, job.prompt, logits)
        if not job.waiting and self._is_ready(job):
            self._use(job, logits)
        else:
            job.waiting.append(logits.copy())

    def _catch_up(self) -> None:
        waiting = [job for job in self._jobs.values() if job.waiting]
        if waiting:
            # How long its grammar takes says nothing of the model's speed.
            self._speedometer.rest()
        # Waiting is for when no other job can go on meanwhile.
        self._patience_s = 0.0 if self._able() else GRAMMAR_PATIENCE_S
        for job in waiting:
            while job.waiting and self._is_ready(job):
                self._use(job, job.waiting.popleft())
        self._patience_s = GRAMMAR_PATIENCE_S

    def _is_ready(self, job: Job) -> bool:
        if job.chooser.ready():
            return True
        start = time.perf_counter()
        ready = job.chooser.ready(self._patience_s)
        self._patience_s = max(0.0, self._patience_s - (time.perf_counter() - start))
        return ready

    def _use(self, job: Job, logits: Logits) -> None:
        try:
            if job.scoring is not None:
                self._score(job, job.scoring, logits)
                return
            choice = job.chooser.choose(logits, job.position)
        except NotFinite:
            self._fail(job, "model_broken", "the model computed something that is no number")
            return
        except MaskFailed as exc:
            self._fail(job, "grammar_invalid", str(exc))
            return
        self._go_on(job, choice)

    def _score(self, job: Job, scoring: Scoring, logits: Logits) -> None:
        scoring.add(logits)
        if scoring.complete:
            self._tell(Scored(job.number, tuple(scoring.scores)))
            self._release(job)

    def _go_on(self, job: Job, choice: Choice) -> None:
        token = choice.token
        if self._vocabulary.ends(token):
            if parts := job.speech.finish(job.hold.rest()):
                self._say(job, parts)
            self._end(job, "stop")
            return
        job.next_token = token
        job.made.append(token)
        job.credit -= 1
        text, stopped = job.hold.add(job.speech.marker(token) or self._vocabulary.piece(token))
        full = len(job.made) >= job.max_tokens or job.position + 1 >= self._context_tokens
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
        # The first token is waited for; the others gather, because each frame takes the node processor time too.
        self._urgent |= len(job.made) <= 1

    def _end(self, job: Job, reason: EndReason) -> None:
        self._release(job)
        self._ended.append((job, "tool_calls" if reason == "stop" and job.speech.called else reason))

    def _fail(self, job: Job, code: str, message: str) -> None:
        self._tell(JobFailed(job.number, code, message))
        # What it computed may be the fault of what it left.
        self._release(job, keep=False)

    def _tell(self, message: Message) -> None:
        """What the node waits for: it goes out with this step."""
        self._out.append(message)
        self._urgent = True

    def _flush(self) -> None:
        now_s = time.perf_counter()
        if self._out and (self._urgent or self._ended or now_s >= self._gathered_until_s or not self._runnable()):
            self._send(self._out)
            self._out = []
            self._urgent = False
            # The more jobs run, the longer executors gather what they send.
            self._gathered_until_s = now_s + self._gather_s * min(PIECES_MOST_JOBS, 1 + len(self._jobs) / 4)
        # Only now, so that a job's end comes after its last piece.
        for job, reason in self._ended:
            self._on_end(job, reason)
        self._ended.clear()
