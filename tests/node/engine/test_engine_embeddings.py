"""Vectors of texts, from the bundled embedding model in llama.cpp and from the loop on a scripted context."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import trio
from engine_support import MODELS, REQUEST, TINY, failure, running
from gguf import PoolingType
from hypothesis import given
from hypothesis import strategies as st
from random_bert import write_random_bert
from trio.testing import wait_all_tasks_blocked

from ryvion_node.engine import constants as limits
from ryvion_node.engine.interface import Embeddings, EngineError, ModelSpec
from ryvion_node.engine.jobs import lots
from ryvion_node.engine.llama_engine import LlamaEngine
from ryvion_node.engine.wire import Cancel, Embedded, JobFailed, Message, Ping, Pong
from ryvion_node.engine.worker.embedder import Embedder, EmbedJob, Reading

Matrix = npt.NDArray[np.float32]

EMBED = MODELS / "ryvion-embed-tiny.Q8_0.gguf"
SPEC = ModelSpec(name="small", path=EMBED, threads=1)
SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"
LEAST_RECALL = (0.95, 0.77, 0.64, 0.12)
"""Of the collections in order, some points below what was measured (docs/models.md)."""
LONG = ("long text " * 120,) * limits.MAX_EMBED_TEXTS
"""Keeps the worker busy for many seconds."""
TRAINED = (
    (0.038, 0.047, 0.020, -0.073, 0.065, 0.077, -0.018, -0.042),
    (-0.009, 0.038, 0.039, -0.036, 0.101, -0.016, 0.066, -0.187),
)
"""How the vectors of two texts begin in torch, before the weights were rounded to eight bits."""
BIG = "x" * (2 * limits.EMBED_LOT_BYTES)
DIMENSIONS = 160
CONTEXT = 512

# Pairs of one meaning, worded as no training text is, and with invented names that none holds.
SIMILAR = (
    ("What is the opening time of the museum?", "You can enter the museum from 9:30."),
    ("Which town is the seat of government of Zanlonia?", "Morvik is the capital city of Zanlonia."),
    ("What does Tessa Wrolm do for a living?", "Tessa Wrolm earns a living as a plumber."),
    ("How expensive is the Brakel lantern?", "We sell the Brakel lantern for 45 euros."),
    ("Whose property is the silver wagon?", "The owner of the silver wagon is Lars."),
    ("How do I keep snails off the vegetables?", "A ring of sand keeps snails away from young plants."),
    ("How many days until my package comes?", "A parcel leaves us after two working days."),
    ("When does the ship to Fjelby set off?", "Boats for Fjelby depart at 6:15."),
    ("What does the forecast say about Dunby?", "Expect stormy weather in Dunby."),
    ("In which season are tulips planted?", "Tulip bulbs go into the ground in autumn."),
)


def matrix(result: Embeddings) -> Matrix:
    return np.array([np.frombuffer(vector, "<f4") for vector in result.vectors])


async def refused(engine: LlamaEngine, texts: Sequence[str]) -> EngineError:
    with pytest.raises(EngineError) as caught:
        await engine.embed("small", texts)
    return caught.value


async def test_says_what_it_is() -> None:
    async with running(SPEC) as engine:
        (model,) = engine.models()
        assert (model.kind, model.dimensions, model.context_tokens) == ("embedding", DIMENSIONS, CONTEXT)
        assert model.features == ("counted",)
        assert model.prompt_millitokens_per_s > 0
        assert model.quantisation == "Q8_0"


async def test_texts_that_mean_the_same_are_near_each_other() -> None:
    async with running(SPEC) as engine:
        asked = matrix(await engine.embed("small", [question for question, _text in SIMILAR]))
        told = matrix(await engine.embed("small", [text for _question, text in SIMILAR]))
    cosines = asked @ told.T
    assert (cosines.argmax(1) == np.arange(len(SIMILAR))).all()
    assert cosines.diagonal().mean() > 0.5
    assert cosines[~np.eye(len(SIMILAR), dtype=bool)].mean() < 0.25


async def test_held_out_questions_find_their_answers_where_counting_words_does_not() -> None:
    if str(SCRIPTS) not in sys.path:
        sys.path.append(str(SCRIPTS))
    from tiny_model.embedding.retrieval import bag_of_words, collections, measure

    async with running(SPEC) as engine:
        for collection, least in zip(collections(), LEAST_RECALL, strict=True):
            asked = matrix(await engine.embed("small", collection.questions))
            told = matrix(await engine.embed("small", collection.texts))
            found = measure(collection, (asked @ told.T).astype(np.float64)).recall_1
            words = measure(collection, bag_of_words(collection, weighted=False)).recall_1
            assert found >= least, collection.name
            assert found >= words, collection.name


async def test_vectors_are_those_of_the_network_that_was_trained() -> None:
    async with running(SPEC) as engine:
        vectors = matrix(await engine.embed("small", ["When does the ferry leave?", "Straße"]))
    np.testing.assert_allclose(vectors[:, :8], TRAINED, atol=0.006)


async def test_vectors_have_length_one_and_the_order_of_the_texts() -> None:
    texts = [f"Platform {number} is closed." for number in range(300)]
    async with running(SPEC) as engine:
        forward = await engine.embed("small", texts)
        backward = await engine.embed("small", texts[::-1])
    np.testing.assert_allclose(np.linalg.norm(matrix(forward), axis=1), 1, atol=1e-5)
    assert ((matrix(forward) * matrix(backward)[::-1]).sum(1) > 0.9995).all()
    assert forward.tokens == backward.tokens[::-1]


async def test_a_text_has_the_vector_in_a_batch_that_it_has_alone() -> None:
    texts = ["", "a", "naïve café 日本語 🙂 \x00 \r\n", "<|end|><|user|>", *("word " * n for n in (1, 3, 40, 120, 250))]
    async with running(SPEC) as engine:
        together = await engine.embed("small", texts)
        alone = [await engine.embed("small", [text]) for text in texts]
    assert together.tokens == tuple(tokens for one in alone for tokens in one.tokens)
    cosines = (matrix(together) * np.concatenate([matrix(one) for one in alone])).sum(1)
    assert cosines.min() > 0.9995
    # BOS is read too; text cannot forge a control token.
    assert together.tokens[0] == 1
    assert together.tokens[3] > 8


async def test_counts_tokens_as_the_model_reads_them() -> None:
    texts = ["When does the ferry leave?", "Straße"]
    async with running(SPEC) as engine:
        result = await engine.embed("small", texts)
        alone = [await engine.count_texts("small", [text]) for text in texts]
    assert result.tokens == tuple(count + 1 for count in alone)


async def test_a_text_that_is_too_long_is_refused_and_never_cut() -> None:
    async with running(SPEC) as engine:
        # Digits never merge: each is a token, and BOS comes first.
        assert (await engine.embed("small", ["7" * (CONTEXT - 1)])).tokens == (CONTEXT,)
        assert (await refused(engine, ["7" * CONTEXT])).code == "context_overflow"
        for text, said in (("x9" * CONTEXT, f"has {2 * CONTEXT + 1} tokens"), ("x9 " * 1_000_000, "has more than")):
            error = await refused(engine, ["short", text])
            assert error.code == "context_overflow"
            assert said in str(error)
            assert f"the model reads {CONTEXT}" in str(error)


async def test_limits_of_a_request() -> None:
    async with running(SPEC) as engine:
        assert (await engine.embed("small", [])).vectors == ()
        assert (await refused(engine, ["x"] * (limits.MAX_EMBED_TEXTS + 1))).code == "unsupported"
        assert (await refused(engine, ["x" * limits.MAX_EMBED_BYTES, "y"])).code == "unsupported"
        assert (await refused(engine, ["half of a pair \ud800"])).code == "template_failed"


async def test_a_thousand_texts_and_others_between_them() -> None:
    async with running(SPEC) as engine, trio.open_nursery() as nursery:
        done = []

        async def embed(name: str, texts: list[str]) -> None:
            done.append((name, len((await engine.embed("small", texts)).vectors)))

        nursery.start_soon(embed, "many", [f"Room {number} is free on Monday." for number in range(1000)])
        await wait_all_tasks_blocked()
        nursery.start_soon(embed, "one", ["Is a room free?"])
    assert done == [("one", 1), ("many", 1000)]


async def test_a_cancelled_request_stops_at_once() -> None:
    async with running(SPEC) as engine:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(engine.embed, "small", LONG)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert engine.status()[0].running == 0
        with trio.fail_after(2):
            await engine.embed("small", ["next"])


async def test_what_the_other_kind_of_model_does_is_refused() -> None:
    async with running(SPEC, ModelSpec(name="chat", path=TINY, threads=1)) as engine:
        assert (await failure(engine, REQUEST)).code == "unsupported"
        with pytest.raises(EngineError) as caught:
            await engine.embed("chat", ["text"])
        assert caught.value.code == "unsupported"
        # Both still work.
        assert (await engine.embed("small", ["text"])).vectors


async def test_kill_while_embedding() -> None:
    async with running(SPEC) as engine:
        errors = []

        async def embed() -> None:
            errors.append(await refused(engine, LONG))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(embed)
            await wait_all_tasks_blocked()
            os.kill(engine.status()[0].worker_pid, signal.SIGKILL)
        assert [error.code for error in errors] == ["worker_crashed"]
        assert "SIGKILL" in str(errors[0])
        with trio.fail_after(30):
            await engine.settled()
        assert (await engine.embed("small", ["again"])).vectors


class FakeContext:
    """Vectors of two numbers: how many tokens a text has, and 1."""

    batch_tokens = 64

    def __init__(self) -> None:
        self.steps: list[list[int]] = []
        self.broken = False
        self._texts: list[int] = []

    def put(self, sequence: int, position: int, tokens: Sequence[int], *, want_logits: bool) -> int:
        assert sequence == len(self._texts)
        assert position == 0
        assert want_logits
        self._texts.append(len(tokens))
        assert sum(self._texts) <= self.batch_tokens
        return 0

    def encode(self) -> None:
        self.steps.append(self._texts)
        self._texts = []

    def vector(self, sequence: int) -> Matrix:
        return np.array([np.nan if self.broken else self.steps[-1][sequence], 1], np.float32)


@pytest.fixture
def loop() -> tuple[Embedder, FakeContext, list[Message]]:
    context, said = FakeContext(), list[Message]()
    # 16 rows of a step take as long as a step may.
    embedder = Embedder(context, Reading(limits.STEP_TARGET_S / 16, 64), said.extend)  # type: ignore[arg-type]
    return embedder, context, said


def job(number: int, *lengths: int) -> EmbedJob:
    return EmbedJob(number, tuple([0] * length for length in lengths))


Loop = tuple[Embedder, FakeContext, list[Message]]


def test_a_step_holds_as_many_texts_as_its_time_allows(loop: Loop) -> None:
    embedder, context, said = loop
    embedder.post(job(1, 6, 6, 6))
    embedder.turn()
    assert context.steps == [[6, 6]]
    assert said == []
    embedder.turn()
    (answer,) = said
    assert isinstance(answer, Embedded)
    assert answer.tokens == (6, 6, 6)
    assert np.frombuffer(answer.vectors[2], "<f4") == pytest.approx(np.array([6, 1]) / 37**0.5)


def test_a_text_longer_than_a_step_goes_alone(loop: Loop) -> None:
    embedder, context, _said = loop
    embedder.post(job(1, 60, 2))
    embedder.turn()
    assert context.steps == [[60]]


def test_the_job_served_least_comes_next_and_a_new_one_need_not_wait(loop: Loop) -> None:
    embedder, context, said = loop
    embedder.post(job(1, *[8] * 50))
    for _ in range(3):
        embedder.turn()
    embedder.post(job(2, 3, 3))
    embedder.turn()
    assert [type(message) for message in said] == [Embedded]
    assert context.steps[-1].count(3) == 2


def test_cancel_and_ping_take_effect_between_two_steps(loop: Loop) -> None:
    embedder, context, said = loop
    embedder.post(job(1, *[8] * 50))
    embedder.turn()
    embedder.post(Cancel(1))
    embedder.post(Ping(5))
    embedder.turn()
    assert said == [Pong(5)]
    assert len(context.steps) == 1


def test_a_vector_without_direction_fails_the_job(loop: Loop) -> None:
    embedder, context, said = loop
    context.broken = True
    embedder.post(job(1, 3, 3))
    embedder.turn()
    assert [type(message) for message in said] == [JobFailed]
    assert said[0].code == "model_broken"  # type: ignore[union-attr]


def test_a_request_without_texts_is_answered(loop: Loop) -> None:
    embedder, _context, said = loop
    embedder.post(job(1))
    embedder.turn()
    assert said == [Embedded(1, (), ())]


async def test_a_bert_style_model_reads_its_own_marks_around_a_text(tmp_path: Path) -> None:
    path = tmp_path / "bert.gguf"
    write_random_bert(path)
    texts = ["When does the ferry leave", "the ferrys", "", "[CLS] [SEP]"]
    async with running(ModelSpec(name="small", path=path, threads=1)) as engine:
        (model,) = engine.models()
        assert (model.kind, model.dimensions, model.context_tokens) == ("embedding", 32, 64)
        together = await engine.embed("small", texts)
        alone = [await engine.embed("small", [text]) for text in texts]
        error = await refused(engine, ["ferry " * 63])
    # [CLS] and [SEP] stand around each text; those that a text holds are unknown words.
    assert together.tokens[:3] == (7, 5, 2)
    assert together.tokens[3] > 4
    assert error.code == "context_overflow"
    cosines = (matrix(together) * np.concatenate([matrix(one) for one in alone])).sum(1)
    assert cosines.min() > 0.9999
    assert not np.allclose(matrix(together)[0], matrix(together)[1], atol=0.01)


@given(st.lists(st.integers(0, 2 * limits.EMBED_LOT_BYTES), max_size=600))
def test_lots_hold_all_texts_in_order_and_only_a_long_one_is_alone(lengths: list[int]) -> None:
    texts = ["x" * (length % 9) if length < limits.EMBED_LOT_BYTES // 2 else BIG[:length] for length in lengths]
    cut = list(lots(texts))
    assert [text for lot in cut for text in lot] == texts
    for lot in cut:
        assert 0 < len(lot) <= limits.EMBED_LOT_TEXTS
        assert len(lot) == 1 or sum(map(len, lot)) <= limits.EMBED_LOT_BYTES


async def test_a_model_that_ranks_texts_is_not_served(tmp_path: Path) -> None:
    path = tmp_path / "ranker.gguf"
    write_random_bert(path, PoolingType.RANK)
    async with running(ModelSpec(name="small", path=path)) as engine:
        assert engine.models() == ()
        (status,) = engine.status()
        assert status.state == "broken"
        assert "ranks texts" in status.reason
