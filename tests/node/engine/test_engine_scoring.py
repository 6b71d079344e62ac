"""Scoring on real models: what was drawn as ordered scores near 0, what was not does not."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from ryvion_node.engine.interface import (
    EngineError,
    GenerationRequest,
    ModelSpec,
    OutputFormat,
    Piece,
    Sampling,
    ScoringRequest,
    TokenScore,
    Turn,
)
from ryvion_node.engine.llama_engine import LlamaEngine
from tests.node.engine.engine_support import REQUEST, TERNARY, TINY, collect, running, tokens_of

HONEST = 0.01
OTHER = 0.5
WARM = replace(REQUEST, model="tiny", sampling=Sampling(0.8, seed=5), max_tokens=120)
ASKED = (
    "What is the capital of France?",
    "Tell me about dogs.",
    "Why is the sky blue?",
    "Sing of qzx and fjords, 7 times!",
)
RULES = Sampling(0.8, 0.95, 9, 40, 0.01, 0.5, 0.3, 1.2, ((300, 2.0),))
LIST = '{"type": "array", "items": {"type": "string", "maxLength": 12}, "minItems": 5, "maxItems": 8}'


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "trio"


@pytest.fixture(scope="module")
async def engine(small_model: Path) -> AsyncIterator[LlamaEngine]:
    """Two trained models and one of random weights, which is never sure of anything."""
    specs = [ModelSpec("tiny", TINY, threads=1), ModelSpec("ternary", TERNARY, threads=1)]
    async with running(*specs, ModelSpec("random", small_model, context_tokens=512, threads=1)) as engine:
        yield engine


def claim(request: GenerationRequest, tokens: Sequence[int]) -> ScoringRequest:
    return ScoringRequest(request.model, request.turns, tuple(tokens), request.sampling, request.tools, request.output)


def mean_margin(scores: Sequence[TokenScore]) -> float:
    """As spec 05 cuts them."""
    return sum(min(score.margin, 1.0) for score in scores) / len(scores)


async def honest_scores(engine: LlamaEngine, request: GenerationRequest) -> list[TokenScore]:
    scores: list[TokenScore] = []
    for content in ASKED:
        asked = replace(request, turns=(Turn("user", content),))
        tokens = tokens_of(await collect(engine, asked))
        judged = await engine.score(claim(asked, tokens))
        assert len(judged) == len(tokens)
        scores += judged
    return scores


@pytest.mark.parametrize(
    "request_",
    [
        WARM,
        replace(WARM, sampling=Sampling(0.0)),
        replace(WARM, sampling=RULES),
        replace(WARM, sampling=Sampling(2.0, seed=2**64 - 1)),
        replace(WARM, output=OutputFormat("json_schema", LIST), sampling=Sampling(1.0, seed=3)),
        replace(WARM, model="ternary"),
        replace(WARM, model="random", sampling=Sampling(1.0, 0.9, 4)),
    ],
    ids=["warm", "greedy", "all-rules", "hot", "grammar", "ternary", "random"],
)
async def test_what_was_drawn_as_ordered_scores_near_zero(engine: LlamaEngine, request_: GenerationRequest) -> None:
    """R-05-14"""
    scores = await honest_scores(engine, request_)
    assert len(scores) > 60
    assert mean_margin(scores) < HONEST
    assert all(score.logprob <= 0 and score.rank >= 0 and score.margin >= 0 for score in scores)


async def test_the_greedy_token_has_rank_zero(engine: LlamaEngine) -> None:
    scores = await honest_scores(engine, replace(WARM, sampling=Sampling(0.0)))
    # But for the near-ties that another batch size turns round.
    assert sum(score.rank == 0 for score in scores) >= len(scores) - 1


async def test_logprobs_are_those_that_the_job_told(engine: LlamaEngine) -> None:
    request = replace(WARM, logprobs=0)
    events = await collect(engine, request)
    told = [each.chosen.logprob for event in events if isinstance(event, Piece) for each in event.logprobs]
    scores = await engine.score(claim(request, tokens_of(events)))
    assert [score.logprob for score in scores] == pytest.approx(told, abs=0.3)


async def test_another_seed_shows(engine: LlamaEngine) -> None:
    request = replace(WARM, model="random", sampling=Sampling(1.0, seed=4))
    tokens = tokens_of(await collect(engine, request))
    assert mean_margin(await engine.score(claim(request, tokens))) < HONEST
    other = replace(claim(request, tokens), sampling=Sampling(1.0, seed=5))
    assert mean_margin(await engine.score(other)) > OTHER


async def test_another_model_shows(engine: LlamaEngine) -> None:
    made = {
        model: tokens_of(await collect(engine, replace(WARM, model=model, sampling=Sampling(1.5, seed=4))))
        for model in ("tiny", "random")
    }
    asked = replace(WARM, sampling=Sampling(1.5, seed=4))
    assert mean_margin(await engine.score(claim(asked, made["tiny"]))) < HONEST
    known = [token for token in made["random"] if token < 1024]
    assert mean_margin(await engine.score(claim(asked, known))) > OTHER
    assert mean_margin(await engine.score(claim(replace(asked, model="random"), made["tiny"]))) > OTHER


async def test_the_other_trained_model_shows_where_this_one_is_not_sure(engine: LlamaEngine) -> None:
    """Both learned the same answers and the seed draws the same noise, so they differ less than others do."""
    unsure: list[TokenScore] = []
    for content in ASKED * 2:
        asked = replace(WARM, turns=(Turn("user", content + " Or else?"),), sampling=Sampling(2.0, seed=len(unsure)))
        tokens = tokens_of(await collect(engine, replace(asked, model="ternary")))
        unsure += [score for score in await engine.score(claim(asked, tokens)) if score.logprob < -1]
    assert len(unsure) > 20
    assert mean_margin(unsure) > 20 * HONEST


async def test_margins_outside_the_rules_are_infinite(engine: LlamaEngine) -> None:
    request = replace(WARM, sampling=Sampling(0.8, seed=5, top_k=1))
    tokens = tokens_of(await collect(engine, request))
    wrong = list(tokens)
    wrong[2] = (wrong[2] + 1) % 256 + 300
    scores = await engine.score(claim(request, wrong))
    assert math.isinf(scores[2].margin)
    assert scores[0].margin == scores[1].margin == 0


async def test_after_a_token_outside_the_grammar_every_margin_is_infinite(engine: LlamaEngine) -> None:
    """R-05-14"""
    request = replace(WARM, output=OutputFormat("regex", "[ab]{40}"))
    tokens = list(tokens_of(await collect(engine, request)))
    outside = tokens_of(await collect(engine, replace(WARM, output=OutputFormat("regex", "c"))))
    middle = len(tokens) // 2
    scores = await engine.score(claim(request, [*tokens[:middle], *outside, *tokens[middle:]]))
    assert mean_margin(scores[:middle]) < HONEST
    assert all(math.isinf(score.margin) for score in scores[middle:])
    assert all(math.isfinite(score.logprob) for score in scores)


@pytest.mark.parametrize("tokens", [(-1,), (1024,), (5, 2**32)])
async def test_tokens_that_the_model_does_not_have_are_refused(engine: LlamaEngine, tokens: tuple[int, ...]) -> None:
    with pytest.raises(EngineError) as caught:
        await engine.score(claim(WARM, tokens))
    assert caught.value.code == "unsupported"


async def test_nothing_claimed_is_nothing_scored(engine: LlamaEngine) -> None:
    assert await engine.score(claim(WARM, ())) == ()


async def test_more_than_the_context_holds_is_refused(engine: LlamaEngine) -> None:
    with pytest.raises(EngineError) as caught:
        await engine.score(claim(WARM, [300] * 1024))
    assert caught.value.code == "context_overflow"


async def test_a_broken_grammar_is_refused(engine: LlamaEngine) -> None:
    with pytest.raises(EngineError) as caught:
        await engine.score(replace(claim(WARM, [300]), output=OutputFormat("regex", "(")))
    assert caught.value.code == "grammar_invalid"


async def test_a_long_prompt_and_a_long_answer(engine: LlamaEngine) -> None:
    request = replace(
        WARM, turns=(Turn("user", "Count the words, please. " * 30),), sampling=Sampling(2.0, seed=1), max_tokens=500
    )
    tokens = tokens_of(await collect(engine, replace(request, output=OutputFormat("regex", "[a-z ]{300}"))))
    scores = await engine.score(replace(claim(request, tokens), output=OutputFormat("regex", "[a-z ]{300}")))
    assert len(scores) == len(tokens) > 100
    assert mean_margin(scores) < HONEST


async def test_jobs_go_on_while_others_are_scored(engine: LlamaEngine) -> None:
    """More scores than slots, and a job among them; some are given up."""
    request = replace(WARM, sampling=Sampling(2.0, seed=7))
    tokens = tokens_of(await collect(engine, request))
    wanted = await engine.score(claim(request, tokens))
    found: list[tuple[TokenScore, ...]] = []

    async def score() -> None:
        found.append(await engine.score(claim(request, tokens)))

    async def give_up() -> None:
        with trio.move_on_after(0):
            await engine.score(claim(request, tokens))

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(score)
                nursery.start_soon(give_up)
            assert tokens_of(await collect(engine, request))
    assert len(found) == 6
    for scores in found:
        assert mean_margin(scores) == pytest.approx(mean_margin(wanted), abs=HONEST)
