"""One job on a server: the events of the engine's interface, out of a streamed completion."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

from ryvion_node.engine.interface import Ended, EngineError, GenerationEvent, GenerationRequest, Piece, PromptRead
from ryvion_node.engine.remote.answer import Answer, Reason
from ryvion_node.engine.remote.connections import ServerLost, ServerSlow
from ryvion_node.engine.remote.dialect import completion_body, continues, prompt_body
from ryvion_node.engine.remote.faults import failure, refusal
from ryvion_node.engine.remote.http import HttpServer, ServerRefused, encoded
from ryvion_node.engine.remote.meter import Meter, OwnMeter
from ryvion_node.engine.remote.spec import Flavour
from ryvion_node.engine.remote.sse import Garbled
from ryvion_node.engine.remote.stream import Completion, Timing, completion


@dataclass(frozen=True, slots=True)
class Backend:
    """Where a model's jobs go, and who counts their tokens; without a meter the server's usage report does."""

    name: str
    server: HttpServer
    flavour: Flavour
    served_as: str
    context_tokens: int
    meter: Meter | None
    timing: Timing
    echoes_prefix: bool = False
    """Does it repeat the prefix that it continues in front of the answer?"""
    gather_s: Callable[[], float] = lambda: 0.0
    """How long to let chunks of an answer gather before they are read."""


async def job_events(backend: Backend, request: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]:
    """Run a job; closing the generator closes the request. Raises EngineError."""
    echo = request.turns[-1].content if backend.echoes_prefix and continues(request.turns) else ""
    answer = Answer(request.max_tokens, request.logprobs, echo)
    room = backend.context_tokens - 1
    if backend.meter is not None:
        prompt = await backend.meter.prompt(request.turns, request.tools)
        room -= prompt
        if room < 0:
            raise EngineError(
                "context_overflow", f"the prompt has {prompt} tokens, the context holds {backend.context_tokens}"
            )
        yield PromptRead(prompt)
    fitting = replace(request, max_tokens=min(request.max_tokens, room + 1))
    try:
        async with _begun(backend, fitting) as events:
            if backend.meter is None:
                yield PromptRead(room, is_exact=False)
            gathered: list[Piece] = []
            while not answer.done and (data := await events.next(has_begun=answer.chunks > 0)) is not None:
                if (piece := answer.add(data)) is not None:
                    gathered.append(piece)
                if gathered and not events.has_more:
                    yield joined(gathered)
                    gathered = []
            if gathered:
                yield joined(gathered)
        reason = answer.end()
    except (ServerLost, ServerSlow, Garbled, ServerRefused) as exc:
        raise failure(backend.name, exc) from exc
    if (rest := answer.rest()) is not None:
        yield rest
    yield await _ended(backend, answer, reason)


@asynccontextmanager
async def _begun(backend: Backend, request: GenerationRequest) -> AsyncIterator[Completion]:
    """The stream. Where nobody counts prompts, and prompt and answer together are more than the server allows, it is asked
    once more for an answer that surely fits. Raises as `completion` does."""
    async with AsyncExitStack() as stack:
        try:
            events = await stack.enter_async_context(_asked(backend, request))
        except ServerRefused as exc:
            room = backend.context_tokens - _most_tokens(request)
            is_too_long = refusal(backend.name, exc.status, exc.body).code == "context_overflow"
            if backend.meter is not None or not is_too_long or not 0 < room < request.max_tokens:
                raise
            events = await stack.enter_async_context(_asked(backend, replace(request, max_tokens=room)))
        yield events


def _asked(backend: Backend, request: GenerationRequest) -> AbstractAsyncContextManager[Completion]:
    body = completion_body(backend.flavour, backend.served_as, backend.context_tokens, request)
    return completion(backend.server, body, request.max_tokens, backend.timing, backend.gather_s)


def _most_tokens(request: GenerationRequest) -> int:
    """More than any tokenizer makes of the prompt: a token per byte, and what templates put around turns and tools."""
    body = prompt_body("openai", "", request.turns, request.tools)
    return len(encoded(body)) + 16 * len(request.turns) + 64


def joined(pieces: Sequence[Piece]) -> Piece:
    """Pieces that came together, as one."""
    if len(pieces) == 1:
        return pieces[0]
    return Piece(
        text="".join(piece.text for piece in pieces),
        reasoning="".join(piece.reasoning for piece in pieces),
        calls=tuple(call for piece in pieces for call in piece.calls),
        logprobs=tuple(logprob for piece in pieces for logprob in piece.logprobs),
    )


async def _ended(backend: Backend, answer: Answer, reason: Reason) -> Ended:
    """The bill. What nobody counted is not billed, and tokens that were not delivered are not either."""
    thoughts = answer.thoughts()
    if backend.meter is not None:
        try:
            reasoning = await backend.meter.texts([thoughts]) if thoughts else 0
            return Ended(reason, reasoning + await backend.meter.texts(answer.texts()), reasoning)
        except EngineError:
            if isinstance(backend.meter, OwnMeter):
                raise  # the offer says that we count
    usage = answer.usage
    if usage is None:
        return Ended(reason, 0, prompt_tokens=0)
    delivered_bytes = sum(len(text.encode()) for text in (thoughts, *answer.texts()))
    completion_tokens = min(usage.completion_tokens, delivered_bytes)
    return Ended(
        reason,
        completion_tokens,
        min(usage.reasoning_tokens, completion_tokens) if thoughts else 0,
        prompt_tokens=usage.prompt_tokens,
    )
