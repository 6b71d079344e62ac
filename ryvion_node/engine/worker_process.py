"""One worker process as the node sees it: spawned, watched, spoken to, and buried."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import trio

from ryvion_node.engine import constants as limits
from ryvion_node.engine.claims import check_job, check_ready, check_speed, plain_line
from ryvion_node.engine.wire import (
    Cancel,
    Counted,
    CountPrompt,
    CountTexts,
    Embed,
    Embedded,
    Failed,
    Frames,
    JobEnded,
    JobFailed,
    JobPiece,
    JobRead,
    Loading,
    Message,
    Ping,
    Pong,
    Ready,
    Score,
    Scored,
    Speed,
    Start,
    WireError,
    pack,
)
from ryvion_node.walls.spawning import bury, child_environment, kill, spawn

_PASSED_ON_PREFIXES: Final = ("CUDA_", "NVIDIA_", "HIP_", "ROCR_", "HSA_", "GGML_", "VK_", "ONEAPI_", "OMP_", "GOMP_")
"""What GPU drivers and llama.cpp read."""
_SPINS: Final = "800"
"""Turns that an OpenMP thread spins at a barrier before it sleeps. By default it spins for milliseconds, and when
another process wants the processor every step waits for the scheduler: measured 3 to 6 times slower steps. With 300
a step on a quiet machine takes 5 % longer; with 3,000 one on a busy machine twice as long."""

Question = CountPrompt | CountTexts | Score | Embed
Answer = Counted | Scored | Embedded
JobMessage = JobRead | JobPiece | JobEnded | JobFailed | Counted | Scored | Embedded


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of patience; tests shorten them."""

    load_stall_s: float = limits.LOAD_STALL_S
    step_stall_s: float = limits.STEP_STALL_S
    ping_every_s: float = limits.PING_EVERY_S


@dataclass(frozen=True, slots=True)
class Broken:
    """The worker says that this model cannot be served; starting it again would not help."""

    reason: str


@dataclass(frozen=True, slots=True)
class Died:
    """The process is gone, or hung and was killed."""

    reason: str
    stalled: bool
    last_words: str = ""
    """The last line that it wrote to stderr. It may name files, so it is for the owner alone."""

    def __str__(self) -> str:
        return f"{self.reason}: {self.last_words}" if self.last_words else self.reason


@dataclass(frozen=True, slots=True)
class Unloaded:
    """We ended it while nobody used it."""

    reason = "unloaded"


End = Broken | Died | Unloaded


class WorkerGone(Exception):
    """The worker ended while somebody waited for it."""

    def __init__(self, end: End) -> None:
        super().__init__(end.reason)
        self.end = end


class Inbox:
    """What the worker says about one job; bounded by the job's credit."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._messages: deque[JobMessage] = deque()
        self._end: End | None = None
        self._news = trio.Event()

    def put(self, message: JobMessage) -> None:
        self._messages.append(message)
        self._news.set()

    def close(self, end: End) -> None:
        self._end = end
        self._news.set()

    async def take(self) -> list[JobMessage]:
        """Everything that came since the last time, at least one. Raises WorkerGone."""
        while not self._messages:
            if self._end is not None:
                raise WorkerGone(self._end)
            self._news = trio.Event()
            await self._news.wait()
        messages = list(self._messages)
        self._messages.clear()
        return messages


class WorkerProcess:
    """From spawn to death of one child; a new object for each restart."""

    def __init__(self, start: Start, timing: Timing, *, walls: bool = True) -> None:
        """Without `walls` the child keeps the rights of its owner (Linux; elsewhere it always does)."""
        self._start = start
        self._timing = timing
        self._walls = walls
        self._outbox: deque[bytes] = deque([pack([start])])
        self._to_send = trio.Event()
        self._inboxes: dict[int, Inbox] = {}
        self._next_job = 1
        self._stderr = b""
        self._ready: Ready | None = None
        self._end: End | None = None
        self._scope = trio.CancelScope()
        self._heard_at = 0.0
        self._ping = 0
        self._pong = 0
        self.pid = 0

    @property
    def running(self) -> int:
        """Jobs and counts under way."""
        return len(self._inboxes)

    async def run(
        self, on_ready: Callable[[Ready], None], on_speed: Callable[[Speed], None] = lambda _speed: None
    ) -> End:
        """Spawn and serve until the process is gone; cancelling ends it in good order."""
        try:
            command = worker_command() if self._walls else worker_command("--no-walls")
            process, stdin, stdout, stderr = spawn(command, worker_environment())
        except OSError as exc:
            self._end = Died(f"no process could be started ({exc.strerror})", stalled=False)
            return self._end
        self.pid = process.pid
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write, stdin)
                    nursery.start_soon(self._drain, stderr)
                    nursery.start_soon(self._watch, process, nursery.cancel_scope)
                    await self._read(stdout, on_ready, on_speed)
                    nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                at_once = isinstance(self._end, Broken | Died)
                await bury(process, stdin, stdout, stderr, at_once=at_once, grace_s=limits.STOP_GRACE_S)
            end = self._settle(process.returncode)
            for inbox in self._inboxes.values():
                inbox.close(end)
        return end

    def unload(self) -> None:
        """End it in good order; `run` returns when the process is gone."""
        if self._end is None:
            self._end = Unloaded()
            self._scope.cancel()

    def post(self, message: Message) -> None:
        """Send without waiting; the worker reads at once, so little ever queues up. Raises WireError."""
        self._outbox.append(pack([message]))
        self._to_send.set()

    def open(self) -> Inbox:
        """A new job number and what will be said about it. Raises WorkerGone."""
        if self._end is not None:
            raise WorkerGone(self._end)
        inbox = self._inboxes[self._next_job] = Inbox(self._next_job)
        self._next_job += 1
        return inbox

    def close(self, inbox: Inbox) -> None:
        """Whatever still comes for this job is dropped."""
        self._inboxes.pop(inbox.number, None)

    async def ask(self, make: Callable[[int], Question]) -> Answer | JobFailed:
        """Ask what has one answer. Raises WorkerGone."""
        inbox = self.open()
        try:
            self.post(make(inbox.number))
            (answer,) = await inbox.take()
        except trio.Cancelled:
            self.post(Cancel(inbox.number))
            raise
        finally:
            self.close(inbox)
        if not isinstance(answer, Answer | JobFailed):
            raise WorkerGone(Died(f"answered a question with {type(answer).__name__}", stalled=False))
        return answer

    async def _write(self, stdin: trio.abc.SendStream) -> None:
        try:
            while True:
                while self._outbox:
                    data = b"".join(self._outbox)
                    self._outbox.clear()
                    await stdin.send_all(data)
                self._to_send = trio.Event()
                await self._to_send.wait()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            # It died; the reader notices too and says why.
            return

    async def _read(
        self, stdout: trio.abc.ReceiveStream, on_ready: Callable[[Ready], None], on_speed: Callable[[Speed], None]
    ) -> None:
        frames = Frames()
        self._heard_at = trio.current_time()
        try:
            while data := await stdout.receive_some(1 << 16):
                for message in frames.feed(bytes(data)):
                    self._dispatch(message, on_ready, on_speed)
        except WireError as exc:
            self._end = Died(f"it wrote nonsense ({exc})", stalled=False)
        except trio.BrokenResourceError:
            return

    def _dispatch(self, message: Message, on_ready: Callable[[Ready], None], on_speed: Callable[[Speed], None]) -> None:
        if isinstance(message, JobRead | JobPiece | JobEnded | Counted):
            check_job(message)
        match message:
            case (
                JobRead(job)
                | JobPiece(job)
                | JobEnded(job)
                | JobFailed(job)
                | Counted(job)
                | Scored(job)
                | Embedded(job)
            ):
                if (inbox := self._inboxes.get(job)) is not None:
                    inbox.put(message)
            case Loading():
                self._heard_at = trio.current_time()
            case Ready() if self._ready is None:
                check_ready(message, self._start)
                self._ready = message
                on_ready(message)
            case Speed() if self._ready is not None:
                check_speed(message)
                on_speed(message)
            case Pong(number=number):
                self._pong = number
            case Failed(message=reason):
                self._end = Broken(plain_line(reason))
            case other:
                raise WireError(f"unexpected {type(other).__name__}")

    async def _drain(self, stderr: trio.abc.ReceiveStream) -> None:
        try:
            while data := await stderr.receive_some(1 << 12):
                self._stderr = (self._stderr + data)[-limits.STDERR_TAIL_BYTES :]
        except trio.BrokenResourceError:
            return

    async def _watch(self, process: subprocess.Popen[bytes], scope: trio.CancelScope) -> None:
        """Kill the process when it makes no progress."""
        while self._ready is None:
            await trio.sleep(min(1.0, self._timing.load_stall_s / 4))
            if trio.current_time() - self._heard_at > self._timing.load_stall_s:
                self._stalled(process, f"no progress for {self._timing.load_stall_s:g} s while loading", scope)
                return
        while True:
            await trio.sleep(self._timing.ping_every_s)
            if not self._inboxes:
                continue
            self._ping += 1
            self.post(Ping(self._ping))
            asked_at = trio.current_time()
            while self._pong != self._ping:
                await trio.sleep(self._timing.ping_every_s / 4)
                if trio.current_time() - asked_at > self._timing.step_stall_s:
                    self._stalled(process, f"no step for {self._timing.step_stall_s:g} s", scope)
                    return

    def _stalled(self, process: subprocess.Popen[bytes], reason: str, scope: trio.CancelScope) -> None:
        self._end = Died(reason, stalled=True)
        kill(process)
        scope.cancel()

    def _settle(self, code: int | None) -> End:
        if self._end is None:
            how = signal.Signals(-code).name if code is not None and code < 0 else f"exit status {code}"
            if how == "SIGKILL":
                how += " (out of memory?)"
            lines = self._stderr.decode("utf-8", "replace").strip().splitlines()
            self._end = Died(how, stalled=False, last_words=plain_line(lines[-1][:200]) if lines else "")
        return self._end


def worker_command(*arguments: str) -> list[str]:
    """How to run the worker with this interpreter."""
    return [sys.executable, "-m", "ryvion_node.engine.worker", "--parent", str(os.getpid()), *arguments]


def worker_environment() -> dict[str, str]:
    """The few variables that the child gets."""
    ours = {
        "GGML_NO_BACKTRACE": "1",
        # numpy's own threads: never used here, yet each reserves memory.
        "OPENBLAS_NUM_THREADS": "1",
    }
    return {"GOMP_SPINCOUNT": _SPINS} | child_environment(_PASSED_ON_PREFIXES) | ours
