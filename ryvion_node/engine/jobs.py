"""Translates between the engine's interface and what a worker understands."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Final, cast, get_args

from ryvion_node.engine import constants as limits
from ryvion_node.engine.interface import (
    Ended,
    EngineError,
    EngineErrorCode,
    GenerationEvent,
    GenerationRequest,
    Piece,
    PromptRead,
    Turn,
)
from ryvion_node.engine.wire import (
    CountPrompt,
    CountText,
    Credit,
    Generate,
    JobEnded,
    JobFailed,
    JobPiece,
    JobRead,
    WireTurn,
)
from ryvion_node.engine.worker_process import Broken, Died, End, Inbox, JobMessage, WorkerGone, WorkerProcess

_CODES: Final = frozenset(get_args(EngineErrorCode))


def wire_turns(turns: Sequence[Turn]) -> tuple[WireTurn, ...]:
    """Turns as they cross the pipe. Raises EngineError."""
    return tuple((plain_text(turn.role), plain_text(turn.content), plain_text(turn.name)) for turn in turns)


def plain_text(text: str) -> str:
    """The same text, or EngineError if UTF-8 cannot carry it (JSON can hold half a surrogate pair)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise EngineError("template_failed", "the text holds half of a surrogate pair") from None
    return text


def wire_request(request: GenerationRequest, number: int) -> Generate:
    """Raises ValueError for a request that no check should have let through."""
    if request.max_tokens < 1 or request.temperature < 0 or not 0 <= request.seed < 1 << 64:
        raise ValueError("max_tokens, temperature or seed out of range")
    if len(request.stop) > limits.MAX_STOP_STRINGS or any(len(stop) > limits.MAX_STOP_CHARS for stop in request.stop):
        raise ValueError("too many or too long stop strings")
    return Generate(
        job=number,
        turns=wire_turns(request.turns),
        max_tokens=request.max_tokens,
        temperature=float(request.temperature),
        top_p=float(request.top_p),
        seed=request.seed,
        stop=tuple(map(plain_text, request.stop)),
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


async def count(worker: WorkerProcess, make: Callable[[int], CountPrompt | CountText], model: str) -> int:
    """One count by a worker. Raises EngineError."""
    try:
        answer = await worker.count(make)
    except WorkerGone as exc:
        raise worker_error(model, exc.end) from exc
    if isinstance(answer, JobFailed):
        raise _job_error(answer)
    return answer.tokens


def worker_error(model: str, end: End) -> EngineError:
    """What a job is told when its worker is gone."""
    match end:
        case Broken(reason):
            return EngineError("model_broken", reason)
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
            events[-1] = Piece(last.text + event.text, last.tokens + event.tokens)
        else:
            events.append(event)
    return events


def _event(message: JobMessage) -> GenerationEvent:
    match message:
        case JobPiece(text=text, tokens=tokens):
            return Piece(text, tokens)
        case JobRead(prompt_tokens=tokens):
            return PromptRead(tokens)
        case JobEnded(reason="stop" | "length" as reason, completion_tokens=tokens):
            return Ended(reason, tokens)
        case JobFailed():
            raise _job_error(message)
        case _:
            raise EngineError("worker_crashed", f"the worker said {type(message).__name__} to a running job")


def _job_error(failed: JobFailed) -> EngineError:
    if failed.code not in _CODES:
        return EngineError("worker_crashed", f"the worker failed with an unknown code: {failed.message}")
    return EngineError(cast("EngineErrorCode", failed.code), failed.message)
