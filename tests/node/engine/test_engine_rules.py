"""Sampling rules, log-probabilities and grammars through the whole engine, on the bundled model."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from ryvion_node.engine.interface import (
    GenerationEvent,
    GenerationRequest,
    ModelSpec,
    OutputFormat,
    Piece,
    Sampling,
    TokenLogprob,
    Turn,
)
from ryvion_node.engine.llama_engine import LlamaEngine
from tests.node.engine.engine_support import REQUEST, TINY, collect, end_of, failure, running, text_of, tokens_of

GREEDY = replace(REQUEST, model="tiny")
FREE = replace(GREEDY, sampling=Sampling(1.0, seed=3))
YES = OutputFormat("regex", "yes|no")
LIST = OutputFormat("json_schema", json.dumps({"type": "array", "items": {"enum": ["stop", "go"]}, "maxItems": 3}))


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "trio"


@pytest.fixture(scope="module")
async def engine() -> AsyncIterator[LlamaEngine]:
    async with running(ModelSpec("tiny", TINY, slots=4, threads=1)) as engine:
        yield engine


def logprobs_of(events: list[GenerationEvent]) -> list[TokenLogprob]:
    return [told for event in events if isinstance(event, Piece) for told in event.logprobs]


async def said(engine: LlamaEngine, request: GenerationRequest) -> str:
    return text_of(await collect(engine, request))


async def test_logprobs_are_those_of_the_model(engine: LlamaEngine) -> None:
    plain = await collect(engine, GREEDY)
    assert logprobs_of(plain) == []
    events = await collect(engine, replace(GREEDY, logprobs=3))
    assert tokens_of(events) == tokens_of(plain)
    told = logprobs_of(events)
    assert len(told) == len(tokens_of(events))
    for each in told:
        assert each.chosen == each.top[0]
        assert [other.logprob for other in each.top] == sorted((other.logprob for other in each.top), reverse=True)
        assert sum(math.exp(other.logprob) for other in each.top) <= 1 + 1e-6
    assert b"".join(each.chosen.piece for each in told).decode() == text_of(events)
    assert all(each.top == () for each in logprobs_of(await collect(engine, replace(GREEDY, logprobs=0))))


async def test_logprobs_say_nothing_of_the_rules(engine: LlamaEngine) -> None:
    first = logprobs_of(await collect(engine, replace(GREEDY, logprobs=2, max_tokens=1)))[0]
    token = tokens_of(await collect(engine, replace(GREEDY, max_tokens=1)))[0]
    ban = replace(GREEDY, logprobs=2, max_tokens=1, sampling=Sampling(0.0, logit_bias=((token, -100.0),)))
    banned = logprobs_of(await collect(engine, ban))[0]
    assert banned.top == first.top
    assert banned.chosen == first.top[1]


async def test_control_tokens_have_a_name_among_alternatives(engine: LlamaEngine) -> None:
    tops = [each.top for each in logprobs_of(await collect(engine, replace(GREEDY, logprobs=20)))]
    assert b"<|end|>" in {other.piece for top in tops for other in top}


async def test_a_bias_forbids_and_demands(engine: LlamaEngine) -> None:
    tokens = tokens_of(await collect(engine, GREEDY))
    banned = replace(GREEDY, sampling=Sampling(0.0, logit_bias=tuple((token, -100.0) for token in sorted(set(tokens)))))
    assert not set(tokens) & set(tokens_of(await collect(engine, banned)))
    demanded = replace(GREEDY, max_tokens=5, sampling=Sampling(0.0, logit_bias=((40, 100.0),)))
    assert tokens_of(await collect(engine, demanded)) == (40,) * 5


@pytest.mark.parametrize("bias", [((1024, 1.0),), ((2**32 - 1, 1.0),), ((3, 1.0), (3, 2.0))])
async def test_a_bias_that_fits_no_token_is_refused(engine: LlamaEngine, bias: tuple[tuple[int, float], ...]) -> None:
    """R-05-3: an error of the request; the worker lives on."""
    error = await failure(engine, replace(GREEDY, sampling=Sampling(0.0, logit_bias=bias)))
    assert error.code == "unsupported"
    assert "logit_bias" in str(error)
    assert await said(engine, GREEDY)


async def test_a_frequency_penalty_ends_repetition(engine: LlamaEngine) -> None:
    loop = replace(GREEDY, max_tokens=12, sampling=Sampling(0.0, logit_bias=((40, 30.0),)))
    tokens = tokens_of(await collect(engine, loop))
    assert set(tokens) == {40}
    penalised = replace(loop, sampling=replace(loop.sampling, frequency_penalty=2.0, repetition_penalty=2.0))
    assert len(set(tokens_of(await collect(engine, penalised)))) > 3


async def test_top_k_one_is_greedy(engine: LlamaEngine) -> None:
    assert await said(engine, replace(FREE, sampling=Sampling(2.0, seed=9, top_k=1))) == await said(engine, GREEDY)


async def test_the_same_seed_gives_the_same_answer(engine: LlamaEngine) -> None:
    hot = replace(GREEDY, turns=(Turn("user", "qzx"),), sampling=Sampling(2.0, seed=11))
    assert await said(engine, hot) == await said(engine, hot)
    assert await said(engine, hot) != await said(engine, replace(hot, sampling=Sampling(2.0, seed=12)))


@pytest.mark.parametrize("seed", range(4))
async def test_an_answer_ends_where_its_grammar_does(engine: LlamaEngine, seed: int) -> None:
    """R-05-13: by the end token, which is not among the tokens."""
    events = await collect(engine, replace(FREE, output=YES, sampling=Sampling(1.0, seed=seed), logprobs=0))
    assert text_of(events) in ("yes", "no")
    assert end_of(events).reason == "stop"
    assert b"".join(each.chosen.piece for each in logprobs_of(events)).decode() == text_of(events)
    assert len(logprobs_of(events)) == len(tokens_of(events))


async def test_max_tokens_cuts_a_grammar_short(engine: LlamaEngine) -> None:
    events = await collect(engine, replace(FREE, output=OutputFormat("regex", "[ab]{400}"), max_tokens=7))
    assert end_of(events).reason == "length"
    assert set(text_of(events)) <= {"a", "b"}


async def test_a_stop_string_cuts_a_grammar_short(engine: LlamaEngine) -> None:
    request = replace(FREE, output=OutputFormat("regex", "[ab]+c"), stop=("c",), max_tokens=300, logprobs=0)
    events = await collect(engine, request)
    assert end_of(events).reason in ("stop", "length")
    assert "c" not in text_of(events)
    # The token that completes the stop string is no part of the answer.
    if end_of(events).reason == "stop":
        assert len(logprobs_of(events)) == len(tokens_of(events)) - 1


async def test_a_stop_string_may_lie_within_a_schema(engine: LlamaEngine) -> None:
    schema = json.dumps({"type": "object", "properties": {"a": {"const": "one stop two"}}, "required": ["a"]})
    output = OutputFormat("json_schema", schema)
    events = await collect(engine, replace(GREEDY, output=output, stop=("stop",), max_tokens=60, logprobs=1))
    assert text_of(events).endswith("one ")
    assert end_of(events).reason == "stop"
    # Text was held back while the stop string grew, log-probabilities were not: only its last token has none.
    assert len(logprobs_of(events)) == len(tokens_of(events)) - 1


async def test_every_token_has_its_logprob_while_text_is_held_back(engine: LlamaEngine) -> None:
    output = OutputFormat("regex", "abcabcabd")
    request = replace(GREEDY, output=output, stop=("abcabcabc", "zzz"), logprobs=0)
    async with engine.generate(request) as events:
        pieces = [event async for event in events if isinstance(event, Piece)]
    assert all(len(piece.logprobs) == len(piece.tokens) for piece in pieces)
    assert "".join(piece.text for piece in pieces) == "abcabcabd"


@pytest.mark.parametrize(
    "output",
    [
        OutputFormat("json_schema", "{"),
        OutputFormat("regex", "(" * 20_000),
        OutputFormat("lark", "start: " + "[" * 20_000),
        OutputFormat("json_schema", '{"$ref": "https://example.org/"}'),
    ],
)
async def test_a_broken_grammar_fails_its_job_only(engine: LlamaEngine, output: OutputFormat) -> None:
    """R-05-16"""
    assert (await failure(engine, replace(FREE, output=output))).code == "grammar_invalid"
    assert await said(engine, replace(GREEDY, output=YES)) in ("yes", "no")


async def test_a_grammar_that_cannot_be_spelled_fails_its_job_only(engine: LlamaEngine) -> None:
    """R-05-16: all tokens that the grammar wants next are control tokens that this model does not have."""
    error = await failure(engine, replace(FREE, output=OutputFormat("lark", 'start: "a" <|nothing|>')))
    assert error.code == "grammar_invalid"
    assert await said(engine, replace(GREEDY, output=YES)) in ("yes", "no")


async def test_a_grammar_holds_under_all_rules(engine: LlamaEngine) -> None:
    rules = Sampling(1.5, 0.8, 5, 20, 0.01, 0.5, 0.5, 1.3, ((40, 50.0),))
    events = await collect(engine, replace(FREE, output=LIST, sampling=rules, logprobs=1))
    assert set(json.loads(text_of(events))) <= {"stop", "go"}
    assert end_of(events).reason == "stop"
