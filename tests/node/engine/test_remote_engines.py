"""Other engines as they are: llama-cpp-python's server, and llama-server where RYVION_LLAMA_SERVER names one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from engine_support import ENDLESS, REQUEST, TINY, collect, end_of, failure, running, text_of
from other_engine import KEY, KINDS, LLAMA_SERVER, Kind, OtherEngine, other_engine

from ryvion_node.engine.interface import (
    Ended,
    EngineError,
    GenerationRequest,
    ModelSpec,
    OutputFormat,
    Piece,
    PromptRead,
    Sampling,
    Turn,
)
from ryvion_node.engine.remote.engine import RemoteEngine
from ryvion_node.engine.remote.spec import RemoteSpec
from ryvion_node.engine.remote.stream import Timing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
needs_llama_server = pytest.mark.skipif(not LLAMA_SERVER, reason="RYVION_LLAMA_SERVER names no llama-server")

TIMING = Timing(gap_s=10, check_every_s=0.2)
PROMPTS = ("What is the capital of France?", "What is a receipt?", "Say something about \u20ac and \u00fc.", "Hello!")


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OtherEngine]:
    with other_engine(request.param, TINY, tmp_path_factory.mktemp("other")) as started:
        yield started


@pytest.fixture(scope="module")
def slow_model(tmp_path_factory: pytest.TempPathFactory, small_model: Path) -> Path:
    """Random weights whose greedy answers take seconds, so that there is time to break things."""
    from tiny_model.random_model import write_random_model

    path = tmp_path_factory.mktemp("models") / "slow.gguf"
    write_random_model(path, 40_000_000)
    return path


@asynccontextmanager
async def reached(server: OtherEngine, *, tokenizer: Path | None = TINY, slots: int = 1) -> AsyncIterator[RemoteEngine]:
    """The model `small`, as the other tests call it."""
    spec = RemoteSpec(
        "small",
        server.url,
        served_as="other",
        key_env="OTHER_KEY",
        context_tokens=512,
        slots=slots,
        quantisation="Q8_0",
        tokenizer=tokenizer,
    )
    engine = RemoteEngine([spec], timing=TIMING, environ={"OTHER_KEY": KEY})
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        with trio.fail_after(60):
            await engine.settled()
        yield engine
        nursery.cancel_scope.cancel()


def asked(prompt: str) -> GenerationRequest:
    return replace(REQUEST, turns=(Turn("user", prompt),))


async def until_models(engine: RemoteEngine, count: int) -> None:
    with trio.fail_after(60):
        while len(engine.models()) != count:
            await engine.changed(engine.revision)


async def test_greedy_text_and_bill_are_those_of_our_own_engine(server: OtherEngine) -> None:
    async with running(ModelSpec("small", TINY, threads=1)) as ours, reached(server) as theirs:
        for number, prompt in enumerate(PROMPTS):
            own, other = await collect(ours, asked(prompt)), await collect(theirs, asked(prompt))
            if server.kind == "llama-server" or number == 0:  # the other one leaves the beginning token away
                assert text_of(other) == text_of(own)
            assert other[0] == own[0]
            assert end_of(other).completion_tokens == await ours.count_texts("small", [text_of(other)])


async def test_model_is_offered_with_what_it_can_do_and_how_fast(server: OtherEngine) -> None:
    async with reached(server) as engine:
        (model,) = engine.models()
    assert (model.name, model.quantisation, model.context_tokens, model.slots) == ("small", "Q8_0", 512, 1)
    assert {"counted", "json_schema", "top_k", "min_p", "repetition_penalty"} <= set(model.features)
    assert not {"seeded", "lark", "regex", "tools"} & set(model.features)
    assert model.millitokens_per_s > 0 and model.prompt_millitokens_per_s > 0


async def test_schema_stop_length_and_overflow(server: OtherEngine) -> None:
    schema = '{"type":"object","properties":{"ok":{"type":"boolean"}},"required":["ok"],"additionalProperties":false}'
    async with reached(server) as engine:
        short = await collect(engine, replace(REQUEST, max_tokens=3))
        assert isinstance(short[-1], Ended) and short[-1].reason == "length"
        stopped = await collect(engine, replace(REQUEST, stop=(" of",)))
        assert text_of(stopped) == "The capital"
        json_text = text_of(await collect(engine, replace(REQUEST, output=OutputFormat("json_schema", schema))))
        assert json_text.replace(" ", "").replace("\n", "") in ('{"ok":true}', '{"ok":false}')
        assert (await failure(engine, asked("word " * 600))).code == "context_overflow"
        assert text_of(await collect(engine, REQUEST)) != ""


async def test_cancel_reaches_the_server_at_once(server: OtherEngine) -> None:
    hot = replace(ENDLESS, turns=(Turn("user", "Tell me a story."),), sampling=Sampling(1.5, seed=3), stop=("\x00",))
    async with reached(server) as engine:
        async with engine.generate(hot) as events:
            assert isinstance(await anext(events), PromptRead)
            await anext(events)
        with trio.fail_after(10):  # its only slot, and the server's only context, are free again
            assert text_of(await collect(engine, REQUEST)) != ""


async def test_wrong_key_is_told_to_the_owner_alone(server: OtherEngine) -> None:
    spec = RemoteSpec("small", server.url, served_as="other", key_env="OTHER_KEY", context_tokens=512)
    engine = RemoteEngine([spec], timing=TIMING, environ={"OTHER_KEY": "sk-wrong"})
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        await engine.settled()
        assert engine.models() == ()
        assert "sk-wrong" not in engine.status()[0].reason
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("kind", KINDS)
async def test_killed_server_is_a_typed_error_then_gone_then_back(kind: Kind, slow_model: Path, tmp_path: Path) -> None:
    with other_engine(kind, slow_model, tmp_path) as server:
        async with reached(server, tokenizer=slow_model) as engine:
            with trio.fail_after(30):
                async with engine.generate(ENDLESS) as events:
                    await anext(events)
                    await anext(events)
                    server.kill()
                    with pytest.raises(EngineError) as caught:
                        async for _ in events:
                            pass
            assert caught.value.code == "worker_crashed"
            await until_models(engine, 0)
            await trio.to_thread.run_sync(server.start)
            await until_models(engine, 1)
            assert text_of(await collect(engine, replace(REQUEST, max_tokens=4))) != ""


@needs_llama_server
async def test_llama_server_counts_by_itself_as_we_do(tmp_path: Path) -> None:
    with other_engine("llama-server", TINY, tmp_path) as server:
        async with reached(server, tokenizer=None, slots=2) as bare, reached(server) as counted:
            assert "counted" not in bare.models()[0].features
            for prompt in PROMPTS:
                first, second = await collect(bare, asked(prompt)), await collect(counted, asked(prompt))
                assert (first[0], first[-1]) == (second[0], second[-1])


@needs_llama_server
async def test_llama_server_tells_log_probabilities_and_continues_a_prefix(tmp_path: Path) -> None:
    with other_engine("llama-server", TINY, tmp_path) as server:
        async with running(ModelSpec("small", TINY, threads=1)) as ours, reached(server) as theirs:
            told = [
                [logprob for event in events if isinstance(event, Piece) for logprob in event.logprobs]
                for events in [await collect(engine, replace(REQUEST, logprobs=3)) for engine in (ours, theirs)]
            ]
            ahead = replace(REQUEST, turns=(*REQUEST.turns, Turn("assistant", "The capital of")))
            assert text_of(await collect(theirs, ahead)) == text_of(await collect(ours, ahead))
    own, other = told
    assert len(other) >= 5
    for mine, its in zip(own, other, strict=False):
        assert its.chosen.piece == mine.chosen.piece
        assert abs(its.chosen.logprob - mine.chosen.logprob) < 0.2
        assert len(its.top) == 3
