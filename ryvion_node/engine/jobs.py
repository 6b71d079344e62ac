"""Translates between the engine's interface and what a worker understands."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from functools import partial
from typing import Final, cast, get_args

from ryvion_node.engine import constants as limits
from ryvion_node.engine.interface import (
    Alternative,
    CallPiece,
    Embeddings,
    Ended,
    EngineError,
    EngineErrorCode,
    GenerationEvent,
    GenerationRequest,
    OutputFormat,
    Piece,
    PromptRead,
    Sampling,
    ScoringRequest,
    TokenLogprob,
    TokenScore,
    ToolUse,
    Turn,
)
from ryvion_node.engine.wire import (
    Counted,
    CountPrompt,
    CountTexts,
    Credit,
    Embed,
    Embedded,
    Generate,
    JobEnded,
    JobFailed,
    JobPiece,
    JobRead,
    Score,
    Scored,
    WireOutput,
    WireSampling,
    WireTools,
    WireTurn,
)
from ryvion_node.engine.worker_process import (
    Answer,
    Broken,
    Died,
    End,
    Inbox,
    JobMessage,
    Question,
    Unloaded,
    WorkerGone,
    WorkerProcess,
)

_CODES: Final = frozenset(get_args(EngineErrorCode))


def wire_turns(turns: Sequence[Turn]) -> tuple[WireTurn, ...]:
    """Turns as they cross the pipe. Raises EngineError."""
    return tuple(
        (
            plain_text(turn.role),
            plain_text(turn.content),
            plain_text(turn.name),
            tuple((plain_text(call.id), plain_text(call.name), plain_text(call.arguments)) for call in turn.tool_calls),
            plain_text(turn.tool_call_id),
        )
        for turn in turns
    )


def wire_tools(use: ToolUse) -> WireTools:
    """Tools as they cross the pipe. Raises EngineError."""
    tools = tuple((plain_text(t.name), plain_text(t.description), plain_text(t.parameters)) for t in use.tools)
    return tools, use.choice, plain_text(use.name), use.parallel


def wire_output(output: OutputFormat | None) -> WireOutput:
    """What the answer must be, as it crosses the pipe. Raises EngineError."""
    return ("", "") if output is None else (output.kind, plain_text(output.text))


def wire_sampling(sampling: Sampling) -> WireSampling:
    """Raises ValueError for rules that no check should have let through."""
    if sampling.temperature < 0 or not 0 <= sampling.seed < 1 << 64 or sampling.top_k < 0:
        raise ValueError("temperature, seed or top_k out of range")
    if not sampling.repetition_penalty > 0:
        raise ValueError("repetition_penalty must be greater than 0")
    return (
        float(sampling.temperature),
        float(sampling.top_p),
        sampling.top_k,
        float(sampling.min_p),
        float(sampling.presence_penalty),
        float(sampling.frequency_penalty),
        float(sampling.repetition_penalty),
        sampling.seed,
        tuple((token, float(bias)) for token, bias in sampling.logit_bias),
    )


def plain_text(text: str) -> str:
    """The same text, or EngineError if UTF-8 cannot carry it (JSON can hold half a surrogate pair)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise EngineError("template_failed", "the text holds half of a surrogate pair") from None
    return text


def wire_request(request: GenerationRequest, number: int) -> Generate:
    """Raises ValueError for a request that no check should have let through."""
    if request.max_tokens < 1:
        raise ValueError("max_tokens out of range")
    if len(request.stop) > limits.MAX_STOP_STRINGS or any(len(stop) > limits.MAX_STOP_CHARS for stop in request.stop):
        raise ValueError("too many or too long stop strings")
    return Generate(
        job=number,
        turns=wire_turns(request.turns),
        max_tokens=request.max_tokens,
        sampling=wire_sampling(request.sampling),
        stop=tuple(map(plain_text, request.stop)),
        tools=wire_tools(request.tools),
        output=wire_output(request.output),
        logprobs=-1 if request.logprobs is None else request.logprobs,
        owner=request.owner,
        credit=limits.CREDIT_TOKENS,
    )


async def generation_events(model: str, worker: WorkerProcess, inbox: Inbox) -> AsyncGenerator[GenerationEvent, None]:
    """A job's events. Pieces that queued up behind a slow reader come as one. Raises EngineError."""
    owed = 0
    while True:
        for event in _merged(await _take(model, inbox)):
            yield event
            # Only now has the reader come back for more.
            if isinstance(event, Ended):
                return
            if isinstance(event, Piece):
                owed += len(event.tokens)
            if owed >= limits.CREDIT_RETURN_TOKENS:
                worker.post(Credit(inbox.number, owed))
                owed = 0


async def count(worker: WorkerProcess, make: Callable[[int], CountPrompt | CountTexts], model: str) -> int:
    """One count by a worker. Raises EngineError."""
    answer = await ask(worker, make, model)
    if not isinstance(answer, Counted):
        raise _off_topic(answer)
    return answer.tokens


async def ask(worker: WorkerProcess, make: Callable[[int], Question], model: str) -> Answer:
    """One question to a worker. Raises EngineError."""
    try:
        answer = await worker.ask(make)
    except WorkerGone as exc:
        raise worker_error(model, exc.end) from exc
    if isinstance(answer, JobFailed):
        raise _job_error(answer)
    return answer


async def scores(worker: WorkerProcess, request: ScoringRequest) -> tuple[TokenScore, ...]:
    """Raises EngineError."""
    turns, tools = wire_turns(request.turns), wire_tools(request.tools)
    sampling, output = wire_sampling(request.sampling), wire_output(request.output)
    answer = await ask(
        worker, lambda number: Score(number, turns, request.tokens, sampling, tools, output), request.model
    )
    if not isinstance(answer, Scored):
        raise _off_topic(answer)
    return tuple(TokenScore(*score) for score in answer.scores)


async def embeddings(worker: WorkerProcess, model: str, texts: Sequence[str]) -> Embeddings:
    """Goes to the worker in lots, so that every answer fits a frame. Raises EngineError."""
    plain = tuple(map(plain_text, texts))
    if len(plain) > limits.MAX_EMBED_TEXTS or sum(len(text.encode()) for text in plain) > limits.MAX_EMBED_BYTES:
        most = f"{limits.MAX_EMBED_TEXTS} texts and {limits.MAX_EMBED_BYTES} bytes"
        raise EngineError("unsupported", f"too much to embed at once, at most {most}: send it in parts")
    vectors: list[bytes] = []
    tokens: list[int] = []
    for lot in lots(plain):
        answer = await ask(worker, partial(_embed, texts=lot), model)
        if not isinstance(answer, Embedded):
            raise _off_topic(answer)
        if not len(lot) == len(answer.vectors) == len(answer.tokens):
            raise EngineError("worker_crashed", f"the worker of {model} answered with too few vectors")
        vectors += answer.vectors
        tokens += answer.tokens
    return Embeddings(tuple(vectors), tuple(tokens))


def lots(texts: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The texts in order, in lots that are neither many nor long; a text longer than a lot goes alone."""
    lot: list[str] = []
    length = 0
    for text in texts:
        length += len(text.encode())
        if lot and (length > limits.EMBED_LOT_BYTES or len(lot) == limits.EMBED_LOT_TEXTS):
            yield tuple(lot)
            lot, length = [], len(text.encode())
        lot.append(text)
    if lot:
        yield tuple(lot)


def _embed(number: int, texts: tuple[str, ...]) -> Embed:
    return Embed(number, texts)


def model_broken(model: str) -> EngineError:
    """For the buyer. The reason names files of the owner's, so it is for the owner alone."""
    return EngineError("model_broken", f"{model} cannot be served; the log of its node says why")


def worker_error(model: str, end: End) -> EngineError:
    """What a job is told when its worker is gone."""
    match end:
        case Broken():
            return model_broken(model)
        case Unloaded():
            return EngineError("worker_crashed", f"{model} was unloaded; try again")
        case Died(reason, stalled=True):
            return EngineError("worker_stalled", f"the worker of {model} hung and was killed: {reason}")
        case Died(reason):
            return EngineError("worker_crashed", f"the worker of {model} died: {reason}")


async def _take(model: str, inbox: Inbox) -> list[JobMessage]:
    try:
        return await inbox.take()
    except WorkerGone as exc:
        raise worker_error(model, exc.end) from exc


def _merged(messages: Sequence[JobMessage]) -> list[GenerationEvent]:
    events: list[GenerationEvent] = []
    for message in messages:
        event = _event(message)
        last = events[-1] if events else None
        if isinstance(event, Piece) and isinstance(last, Piece):
            events[-1] = Piece(
                last.text + event.text,
                last.tokens + event.tokens,
                last.reasoning + event.reasoning,
                last.calls + event.calls,
                last.logprobs + event.logprobs,
            )
        else:
            events.append(event)
    return events


def _event(message: JobMessage) -> GenerationEvent:
    match message:
        case JobPiece():
            return Piece(
                text=message.text,
                tokens=message.tokens,
                reasoning=message.reasoning,
                calls=tuple(CallPiece(*call) for call in message.calls),
                logprobs=tuple(
                    TokenLogprob(Alternative(piece, logprob), tuple(Alternative(*one) for one in top))
                    for piece, logprob, top in message.logprobs
                ),
            )
        case JobRead(prompt_tokens=tokens, cached_tokens=cached):
            return PromptRead(tokens, cached)
        case JobEnded(reason="stop" | "length" | "tool_calls" as reason):
            return Ended(reason, message.completion_tokens, message.reasoning_tokens)
        case JobFailed():
            raise _job_error(message)
        case _:
            raise EngineError("worker_crashed", f"the worker said {type(message).__name__} to a running job")


def _job_error(failed: JobFailed) -> EngineError:
    if failed.code not in _CODES:
        return EngineError("worker_crashed", f"the worker failed with an unknown code: {failed.message}")
    return EngineError(cast("EngineErrorCode", failed.code), failed.message)


def _off_topic(answer: Answer) -> EngineError:
    return EngineError("worker_crashed", f"the worker answered with {type(answer).__name__}")
