"""The worker's main line: load the model, say so, then serve until the pipe closes.

Threads: this one decodes; one reads commands from the node; one renders and tokenises, so that a long prompt does
not hold up the other jobs' tokens.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from pathlib import Path
from typing import NoReturn

from ryvion_node.engine import constants as limits
from ryvion_node.engine.files import FileState, file_digest, file_state
from ryvion_node.engine.gguf import GgufError, read_header
from ryvion_node.engine.wire import (
    Cancel,
    Counted,
    CountPrompt,
    CountText,
    Credit,
    Failed,
    Frames,
    Generate,
    JobEnded,
    JobFailed,
    Loading,
    Message,
    Ping,
    Pong,
    Ready,
    Start,
    WireError,
    pack,
)
from ryvion_node.engine.worker.calibrate import Measured, measure
from ryvion_node.engine.worker.decoder import Decoder, EndReason, Job
from ryvion_node.engine.worker.devices import has_gpu
from ryvion_node.engine.worker.emit import TextHold
from ryvion_node.engine.worker.isolation import die
from ryvion_node.engine.worker.llama import Context, LlamaError, Log, Model, check_layout
from ryvion_node.engine.worker.processors import compute_threads
from ryvion_node.engine.worker.prompt import Prompts
from ryvion_node.engine.worker.sampler import Sampling
from ryvion_node.engine.worker.template import TemplateRefused

Ended = tuple[Job, EndReason]


class Pipes:
    """The two ends to the node. Sending is thread-safe; a closed pipe ends the process, as nobody is left to serve."""

    def __init__(self, frames_out: int) -> None:
        self._out = frames_out
        self._lock = threading.Lock()
        self._frames = Frames()
        self._last_progress = 0.0

    def send(self, messages: list[Message]) -> None:
        """One frame, one flush."""
        data = memoryview(pack(messages))
        try:
            with self._lock:
                while data:
                    data = data[os.write(self._out, data) :]
        except OSError:
            os._exit(0)

    def progress(self, stage: str) -> None:
        """At most twice a second."""
        now = time.monotonic()
        if now - self._last_progress > 0.5:
            self._last_progress = now
            self.send([Loading(stage)])

    def receive(self) -> list[Message]:
        """Blocks for the next messages."""
        data = os.read(0, 1 << 16)
        if not data:
            os._exit(0)
        return self._frames.feed(data)


def serve(frames_out: int) -> NoReturn:
    """Run until the node closes the pipe."""
    pipes = Pipes(frames_out)
    start, *early = _first(pipes)
    if not isinstance(start, Start):
        raise WireError("the first message is Start")
    inbox: queue.SimpleQueue[Message | Ended] = queue.SimpleQueue()
    server = _Server(pipes, inbox)
    for message in early:
        server.route(message)
    threading.Thread(target=server.read_commands, name="commands", daemon=True).start()
    try:
        ready, decoder = server.load(start)
    except (LlamaError, GgufError, TemplateRefused) as exc:
        pipes.send([Failed(str(exc))])
        os._exit(0)
    pipes.send([ready])
    if decoder is None:
        server.tokenise()
    threading.Thread(target=server.tokenise, name="tokenise", daemon=True).start()
    decoder.run()
    raise AssertionError("the decoder runs for ever")


def _first(pipes: Pipes) -> list[Message]:
    while not (messages := pipes.receive()):
        pass
    return messages


class _Server:
    def __init__(self, pipes: Pipes, inbox: queue.SimpleQueue[Message | Ended]) -> None:
        self._pipes = pipes
        self._inbox = inbox
        self._decoder: Decoder | None = None
        self._prompts: Prompts
        self._context_tokens = 0

    def load(self, start: Start) -> tuple[Ready, Decoder | None]:
        """Raises LlamaError, GgufError or TemplateRefused with a reason for the owner."""
        check_layout()
        path = Path(start.path)
        header = read_header(path)
        if start.vocab_only:
            log = Log()
            self._prompts = Prompts(_open(path, start, self._pipes, log))
            log.deafen()
            return Ready(b"", (), header.quantisation, 0, 0, 0, ()), None
        if header.pooling:
            raise LlamaError(f"{path}: an embedding model; only chat models can be served")
        digest, state = self._identify(path, start)
        log = Log()
        model = _open(path, start, self._pipes, log)
        if not model.generates:
            raise LlamaError(f"{path}: no chat model (it does not continue text)")
        self._prompts = Prompts(model)
        if self._prompts.problem:
            raise TemplateRefused(f"{path}: {self._prompts.problem}")
        context_tokens = _context_tokens(path, start, model)
        context = _context(path, start, model, context_tokens, log)
        try:
            measured = measure(context, start.slots, context_tokens, self._pipes.progress)
        except LlamaError as exc:
            raise LlamaError(f"{path}: {exc}") from exc
        log.deafen()
        self._context_tokens = context_tokens
        self._decoder = Decoder(
            context,
            model.vocabulary,
            slots=start.slots,
            context_tokens=context_tokens,
            measured=measured,
            send=self._pipes.send,
            on_end=lambda job, reason: self._inbox.put((job, reason)),
        )
        return _ready(digest, state, header.quantisation, context_tokens, measured), self._decoder

    def _identify(self, path: Path, start: Start) -> tuple[bytes, FileState]:
        self._pipes.progress("hashing")
        if start.known_digest:
            digest, state = start.known_digest, file_state(path)
        else:
            digest, state = file_digest(path, lambda _share: self._pipes.progress("hashing"))
        if start.expected_digest not in (b"", digest):
            raise GgufError(
                f"{path}: its SHA-256 is {digest.hex()}, expected {start.expected_digest.hex()}: "
                "fetch the file again, or correct the digest in the configuration"
            )
        return digest, state

    def read_commands(self) -> None:
        """The reader thread."""
        while True:
            for message in self._pipes.receive():
                self.route(message)

    def route(self, message: Message) -> None:
        if isinstance(message, Cancel | Credit) and self._decoder is not None:
            self._decoder.post(message)
        if not isinstance(message, Credit):
            # A cancel goes this way too: its job may still wait to be tokenised.
            self._inbox.put(message)

    def tokenise(self) -> NoReturn:
        """The tokenising thread: everything that renders or counts."""
        while True:
            match self._inbox.get():
                case Generate() as request:
                    self._prepare(request)
                case CountPrompt(job=number, turns=turns):
                    try:
                        self._pipes.send([Counted(number, len(self._prompts.tokens(turns)))])
                    except TemplateRefused as exc:
                        self._refuse(number, "template_failed", str(exc))
                case CountText(job=number, text=text):
                    self._pipes.send([Counted(number, self._prompts.count_text(text))])
                case Ping(number=number) as ping:
                    if self._decoder is None:
                        self._pipes.send([Pong(number)])
                    else:
                        self._decoder.post(ping)
                case Cancel() as cancel:
                    if self._decoder is not None:
                        self._decoder.post(cancel)
                case (job, reason):
                    tokens = self._prompts.count_text("".join(job.text))
                    self._pipes.send([JobEnded(job.number, reason, tokens)])
                case other:
                    raise WireError(f"{type(other).__name__} is not for a worker")

    def _prepare(self, request: Generate) -> None:
        assert self._decoder is not None
        try:
            prompt = self._prompts.tokens(request.turns)
        except TemplateRefused as exc:
            self._refuse(request.job, "template_failed", str(exc))
            return
        if not prompt:
            self._refuse(request.job, "template_failed", "the chat template renders nothing")
            return
        if len(prompt) + 1 > self._context_tokens:
            self._refuse(
                request.job,
                "context_overflow",
                f"the prompt has {len(prompt)} tokens, the model's context {self._context_tokens}",
            )
            return
        self._decoder.post(
            Job(
                number=request.job,
                prompt=prompt,
                sampling=Sampling(request.temperature, request.top_p, request.seed),
                max_tokens=request.max_tokens,
                hold=TextHold(request.stop),
                credit=request.credit,
            )
        )

    def _refuse(self, number: int, code: str, message: str) -> None:
        self._pipes.send([JobFailed(number, code, message)])


def _open(path: Path, start: Start, pipes: Pipes, log: Log) -> Model:
    pipes.progress("loading")
    try:
        return Model(
            path,
            vocab_only=start.vocab_only,
            gpu_layers=start.gpu_layers,
            on_progress=lambda _share: pipes.progress("loading"),
            log=log,
        )
    except LlamaError as exc:
        raise LlamaError(f"{path}: llama.cpp cannot load it ({exc}): fetch the file again") from exc


def _context_tokens(path: Path, start: Start, model: Model) -> int:
    trained = model.trained_context_tokens
    wanted = start.context_tokens or min(trained, limits.DEFAULT_CONTEXT_TOKENS)
    if not 2 <= wanted <= trained:
        raise LlamaError(f"{path}: a context of {wanted} tokens is configured, the model was trained with {trained}")
    return wanted


def _context(path: Path, start: Start, model: Model, context_tokens: int, log: Log) -> Context:
    most = limits.GPU_BATCH_TOKENS if start.gpu_layers and has_gpu() else limits.CPU_BATCH_TOKENS
    try:
        return Context(
            model,
            context_tokens=context_tokens,
            slots=start.slots,
            batch_tokens=min(most, context_tokens * start.slots),
            threads=start.threads or compute_threads(),
            log=log,
        )
    except LlamaError as exc:
        raise LlamaError(
            f"{path}: no room for {start.slots} slots of {context_tokens} tokens ({exc}): configure fewer or smaller ones"
        ) from exc


def _ready(digest: bytes, state: FileState, quantisation: str, context_tokens: int, measured: Measured) -> Ready:
    times = measured.step_s
    return Ready(
        digest=digest,
        file_state=(state.size_bytes, state.mtime_ns, state.inode),
        quantisation=quantisation,
        context_tokens=context_tokens,
        millitokens_per_s=int(1000 / times[1]),
        prompt_millitokens_per_s=int(1000 / measured.prompt_s_per_token),
        step_us=tuple(int(times[size] * 1e6) if size in times else 0 for size in range(1, max(times) + 1)),
    )


def run(frames_out: int) -> NoReturn:
    """As `serve`, but any error ends the process at once, values unsaid."""
    try:
        serve(frames_out)
    except LlamaError as exc:
        # Its text is llama.cpp's or ours, never a prompt.
        os.write(2, f"{exc}\n".encode())
        os._exit(70)
    except BaseException as exc:  # noqa: BLE001 - nothing may be printed by the interpreter itself
        die(exc)
