"""The worker's main line: load the model, say so, then serve until the pipe closes.

Threads: this one decodes; one reads commands from the node; one renders and tokenises, so that a long prompt does
not hold up the other jobs' tokens.
"""

from __future__ import annotations

import os
import queue
import threading
from typing import NoReturn

from ryvion_node.engine.gguf import GgufError
from ryvion_node.engine.wire import (
    Cancel,
    Counted,
    CountPrompt,
    CountTexts,
    Credit,
    Embed,
    Failed,
    Generate,
    JobEnded,
    JobFailed,
    Message,
    Ping,
    Pong,
    Score,
    Scored,
    Start,
    WireError,
)
from ryvion_node.engine.worker.choosing import Chooser, RulesRefused, rules_of
from ryvion_node.engine.worker.decoder import Decoder
from ryvion_node.engine.worker.devices import has_gpu
from ryvion_node.engine.worker.embedder import Embedder, embed_job
from ryvion_node.engine.worker.emit import TextHold
from ryvion_node.engine.worker.grammar import GrammarInvalid, Grammars
from ryvion_node.engine.worker.job import EndReason, Job
from ryvion_node.engine.worker.llama import LlamaError, Vocabulary
from ryvion_node.engine.worker.loading import Loaded, files_of, load
from ryvion_node.engine.worker.pipes import Pipes
from ryvion_node.engine.worker.prompt import Prepared, Prompts
from ryvion_node.engine.worker.scoring import Scoring
from ryvion_node.engine.worker.speech.tools import ToolsRefused
from ryvion_node.engine.worker.template import TemplateRefused
from ryvion_node.walls.isolation import confine, die

Ended = tuple[Job, EndReason]


def serve(frames_out: int, *, walls: bool) -> NoReturn:
    """Run until the node closes the pipe; with `walls` no file but the model's own can be read."""
    pipes = Pipes(frames_out)
    start, *early = _first(pipes)
    if not isinstance(start, Start):
        raise WireError("the first message is Start")
    server = _Server(pipes)
    for message in early:
        server.route(message)
    # Rules for files hold for this thread and those that it starts, so they come before the others.
    if walls:
        confine(files_of(start), has_gpu=has_gpu())
    threading.Thread(target=server.read_commands, name="commands", daemon=True).start()
    try:
        loaded = load(start, pipes)
    except (LlamaError, GgufError, TemplateRefused) as exc:
        pipes.send([Failed(str(exc))])
        os._exit(0)
    decoder = server.open(loaded, start)
    pipes.send([loaded.ready])
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
    def __init__(self, pipes: Pipes) -> None:
        self._pipes = pipes
        self._inbox: queue.SimpleQueue[Message | Ended] = queue.SimpleQueue()
        self._pings: queue.SimpleQueue[Ping] = queue.SimpleQueue()
        self._decoder: Decoder | Embedder | None = None
        self._prompts: Prompts
        self._vocabulary: Vocabulary
        self._grammars: Grammars
        self._context_tokens = 0

    def open(self, loaded: Loaded, start: Start) -> Decoder | Embedder | None:
        """Take over what was loaded; None when there is only a vocabulary."""
        self._prompts = loaded.prompts
        self._vocabulary = loaded.model.vocabulary
        self._context_tokens = loaded.ready.context_tokens
        if loaded.context is not None and loaded.measured is not None:
            # Now: it holds up all threads, on a large vocabulary for a second.
            self._grammars = Grammars(self._vocabulary)
            self._decoder = Decoder(
                loaded.context,
                loaded.model.vocabulary,
                slots=start.slots,
                context_tokens=self._context_tokens,
                measured=loaded.measured,
                send=self._pipes.send,
                on_end=lambda job, reason: self._inbox.put((job, reason)),
            )
        elif loaded.context is not None and loaded.reading is not None:
            self._decoder = Embedder(loaded.context, loaded.reading, self._pipes.send)
        return self._decoder

    def read_commands(self) -> None:
        """The reader thread."""
        while True:
            for message in self._pipes.receive():
                self.route(message)

    def route(self, message: Message) -> None:
        if isinstance(message, Cancel | Credit) and self._decoder is not None:
            self._decoder.post(message)
        if isinstance(message, Ping):
            self._pings.put(message)
        if not isinstance(message, Credit):
            # A cancel goes this way too: its job may still wait to be tokenised.
            self._inbox.put(message)

    def tokenise(self) -> NoReturn:
        """The tokenising thread: everything that renders or counts."""
        while True:
            message = self._inbox.get()
            # Pings pass what waits here: a long queue is no hang.
            self._pass_on_pings()
            match message:
                case Generate() as request:
                    self._prepare(request)
                case CountPrompt(job=number, turns=turns, tools=tools):
                    try:
                        prepared = self._prompts.prepare(turns, tools, ("", ""))
                        self._pipes.send([Counted(number, len(prepared.tokens))])
                    except TemplateRefused as exc:
                        self._refuse(number, "template_failed", str(exc))
                    except (ToolsRefused, GrammarInvalid) as exc:
                        self._refuse(number, "grammar_invalid", str(exc))
                case CountTexts(job=number, texts=texts, whole=whole):
                    count = self._count_whole if whole else self._prompts.count_text
                    self._pipes.send([Counted(number, sum(map(count, texts)))])
                case Embed() as embed:
                    self._embed(embed)
                case Score() as request:
                    self._prepare(request)
                case Ping():
                    # It only had to wake this thread.
                    pass
                case Cancel() as cancel:
                    if self._decoder is not None:
                        self._decoder.post(cancel)
                case (job, reason):
                    tokens = sum(map(self._prompts.count_text, job.speech.texts()))
                    reasoning = self._prompts.count_text(job.speech.reasoning)
                    self._pipes.send([JobEnded(job.number, reason, tokens, reasoning)])
                case other:
                    raise WireError(f"{type(other).__name__} is not for a worker")

    def _pass_on_pings(self) -> None:
        while not self._pings.empty():
            ping = self._pings.get()
            if self._decoder is None:
                self._pipes.send([Pong(ping.number)])
            else:
                self._decoder.post(ping)

    def _count_whole(self, text: str) -> int:
        return len(self._vocabulary.tokenise_alone(text))

    def _embed(self, request: Embed) -> None:
        if not isinstance(self._decoder, Embedder):
            self._refuse(request.job, "unsupported", "this model chats and makes no vectors of texts")
            return
        job = embed_job(request, self._vocabulary, self._context_tokens)
        if isinstance(job, JobFailed):
            self._pipes.send([job])
        else:
            self._decoder.post(job)

    def _prepare(self, request: Generate | Score) -> None:
        if not isinstance(self._decoder, Decoder):
            self._refuse(request.job, "unsupported", "this model makes vectors of texts and does not chat")
            return
        try:
            prepared = self._prompts.prepare(request.turns, request.tools, request.output)
            mask = self._grammars.compile(prepared.output) if any(prepared.output) else None
            logprobs = None if isinstance(request, Score) or request.logprobs < 0 else request.logprobs
            rules = rules_of(request.sampling)
            chooser = Chooser(self._vocabulary, rules, prepared.tokens, mask, logprobs)
        except TemplateRefused as exc:
            self._refuse(request.job, "template_failed", str(exc))
        except (ToolsRefused, GrammarInvalid) as exc:
            self._refuse(request.job, "grammar_invalid", str(exc))
        except RulesRefused as exc:
            self._refuse(request.job, "unsupported", str(exc))
        else:
            if not prepared.tokens:
                self._refuse(request.job, "template_failed", "the chat template renders nothing")
            elif isinstance(request, Score):
                self._score(request, prepared, chooser, self._decoder)
            elif self._fits(request.job, len(prepared.tokens), 1):
                self._decoder.post(
                    Job(
                        number=request.job,
                        prompt=prepared.tokens,
                        chooser=chooser,
                        max_tokens=request.max_tokens,
                        hold=TextHold(request.stop),
                        speech=prepared.speech,
                        credit=request.credit,
                        owner=request.owner,
                    )
                )

    def _score(self, request: Score, prepared: Prepared, chooser: Chooser, decoder: Decoder) -> None:
        claimed = request.tokens
        if bad := [token for token in claimed if not 0 <= token < self._vocabulary.size]:
            most = self._vocabulary.size - 1
            self._refuse(request.job, "unsupported", f"token {bad[0]} is claimed, this model has tokens 0 to {most}")
        elif not claimed:
            self._pipes.send([Scored(request.job, ())])
        elif self._fits(request.job, len(prepared.tokens), len(claimed)):
            decoder.post(
                Job(
                    number=request.job,
                    prompt=[*prepared.tokens, *claimed[:-1]],
                    chooser=chooser,
                    max_tokens=0,
                    hold=TextHold(()),
                    speech=prepared.speech,
                    credit=0,
                    scoring=Scoring(chooser, claimed, len(prepared.tokens)),
                )
            )

    def _fits(self, number: int, prompt: int, answer: int) -> bool:
        if prompt + answer <= self._context_tokens:
            return True
        message = f"the prompt has {prompt} tokens and the answer at least {answer}, the context {self._context_tokens}"
        self._refuse(number, "context_overflow", message)
        return False

    def _refuse(self, number: int, code: str, message: str) -> None:
        self._pipes.send([JobFailed(number, code, message)])


def run(frames_out: int, *, walls: bool) -> NoReturn:
    """As `serve`, but any error ends the process at once, values unsaid."""
    try:
        serve(frames_out, walls=walls)
    except LlamaError as exc:
        # Its text is llama.cpp's or ours, never a prompt.
        os.write(2, f"{exc}\n".encode())
        os._exit(70)
    except BaseException as exc:  # noqa: BLE001 - nothing may be printed by the interpreter itself
        die(exc)
