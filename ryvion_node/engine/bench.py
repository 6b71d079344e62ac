"""Measures what an engine's model does under load, by jobs such as buyers send."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import trio

from ryvion_node.engine.interface import (
    Ended,
    Engine,
    EngineModel,
    GenerationRequest,
    Piece,
    PromptRead,
    Sampling,
    Turn,
)

_TASK: Final = "Count upwards in words, one number after the other, and do not stop: one, two, three,"
_FILLER: Final = "The quick brown fox jumps over the lazy dog. "
_MAX_PROMPT_TOKENS: Final = 1024
"""Of the long prompt; at most half of the context."""
_TEXTS: Final = 64
"""Embedded at once."""
_TEMPERATURE: Final = 1.0
"""Varied answers: a greedy model may repeat itself, or end at once every time."""


@dataclass(frozen=True, slots=True)
class Load:
    """So many jobs at once, each followed by another when it ended."""

    jobs: int
    tokens: int
    seconds: float
    first_token_s: float
    """Mean time from asking to the first token."""

    @property
    def tokens_per_s(self) -> float:
        """All jobs together."""
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def ms_per_token(self) -> float:
        """What one job waits for each of its tokens."""
        return 1000 * self.jobs / self.tokens_per_s if self.tokens else 0.0


@dataclass(frozen=True, slots=True)
class ModelSpeed:
    """One model's figures."""

    model: EngineModel
    prompt_tokens: int
    """Of the long prompt; of an embedding model, of all texts."""
    prompt_s: float
    """Until its first token came, or all vectors."""
    loads: tuple[Load, ...]
    """Empty of an embedding model."""

    @property
    def prompt_tokens_per_s(self) -> float:
        return self.prompt_tokens / self.prompt_s if self.prompt_s else 0.0


def loads_up_to(slots: int) -> Iterator[int]:
    """1, 2, 4, ... and the number of slots itself."""
    jobs = 1
    while jobs < slots:
        yield jobs
        jobs *= 2
    yield slots


async def measure_model(engine: Engine, model: EngineModel, seconds: float) -> ModelSpeed:
    """Takes `seconds` for each load and one long prompt; for an embedding model `seconds`. Raises EngineError."""
    if model.kind == "embedding":
        return await _reading(engine, model, seconds)
    prompt_tokens, prompt_s = await _long_prompt(engine, model)
    loads = [await measure_load(engine, model, jobs, seconds) for jobs in loads_up_to(model.slots)]
    return ModelSpeed(model, prompt_tokens, prompt_s, tuple(loads))


async def _reading(engine: Engine, model: EngineModel, seconds: float) -> ModelSpeed:
    """Short texts, many at a time, as a knowledge base sends them."""
    read = 0
    begun_at = trio.current_time()
    while trio.current_time() < begun_at + seconds:
        read += sum((await engine.embed(model.name, [_FILLER] * _TEXTS)).tokens)
    return ModelSpeed(model, read, trio.current_time() - begun_at, ())


async def measure_load(engine: Engine, model: EngineModel, jobs: int, seconds: float) -> Load:
    """`jobs` at once for `seconds`. Raises EngineError."""
    tally = _Tally()
    begun_at = trio.current_time()
    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            for number in range(jobs):
                nursery.start_soon(_repeat, engine, model, number, tally)
    first_s = sum(tally.first_s) / len(tally.first_s) if tally.first_s else 0.0
    return Load(jobs, tally.tokens, trio.current_time() - begun_at, first_s)


class _Tally:
    def __init__(self) -> None:
        self.tokens = 0
        self.first_s: list[float] = []


async def _repeat(engine: Engine, model: EngineModel, number: int, tally: _Tally) -> None:
    seed = number
    while True:
        await _one_job(engine, _request(model, _TASK, model.context_tokens // 2, seed), tally)
        seed += 1_000


async def _one_job(engine: Engine, request: GenerationRequest, tally: _Tally) -> None:
    begun_at = trio.current_time()
    has_begun = False
    async with engine.generate(request) as events:
        async for event in events:
            if isinstance(event, Piece):
                if not has_begun:
                    tally.first_s.append(trio.current_time() - begun_at)
                    has_begun = True
                # Engines that do not say which tokens they sampled send a piece per token.
                tally.tokens += len(event.tokens) or 1
            elif isinstance(event, Ended) and not has_begun:
                tally.tokens += 1  # the end token is work too


async def _long_prompt(engine: Engine, model: EngineModel) -> tuple[int, float]:
    wanted = min(_MAX_PROMPT_TOKENS, model.context_tokens // 2)
    per_filler = max(1, await engine.count_texts(model.name, [_FILLER * 16]) // 16)
    request = _request(model, _FILLER * max(1, wanted // per_filler - 4), 1, 0)
    read = 0
    begun_at = trio.current_time()
    async with engine.generate(request) as events:
        async for event in events:
            if isinstance(event, PromptRead):
                read = event.prompt_tokens
    return read, trio.current_time() - begun_at


def _request(model: EngineModel, text: str, max_tokens: int, seed: int) -> GenerationRequest:
    return GenerationRequest(
        model=model.name,
        turns=(Turn("user", text),),
        max_tokens=max(1, max_tokens),
        sampling=Sampling(temperature=_TEMPERATURE, seed=seed),
    )
