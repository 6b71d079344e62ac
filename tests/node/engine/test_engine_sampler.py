"""The sampler and the rules before it against spec 05: its vectors, its slow reference, and the distribution itself."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import specs
from ryvion_node.engine.interface import Sampling
from ryvion_node.engine.worker.choosing import Chooser, log_sum
from ryvion_node.engine.worker.sampler import Ids, NotFinite, Sampler, gumbel, kept, largest, nucleus
from ryvion_protocol import messages
from ryvion_protocol.zigzag import unzigzag, zigzag
from specs.sampling_reference import Place, chosen_token, log_probabilities, margin, noise_halves, scores

VECTORS = json.loads((Path(specs.__path__[0]) / "vectors" / "sampling.json").read_text("utf-8"))["vectors"]
SAMPLER = Sampler()
choose, raw_noise = SAMPLER.choose, SAMPLER.raw_noise
SEEDS = st.integers(0, 2**64 - 1)
LOGITS = arrays(np.float32, st.integers(1, 600), elements=st.floats(-30, 30, width=32))
NEAR = 1e-6
"""Scores closer than this may change places: sums are made in other orders, exponentials in other widths."""


class Letters:
    """A vocabulary whose tokens are bytes."""

    def __init__(self, size: int) -> None:
        self.size = size

    def piece(self, token: int) -> bytes:
        return b"" if token == 0 else bytes([token % 256])

    def name(self, token: int) -> str:
        return "<|end|>" if token == 0 else ""


class Fixed:
    """A grammar that allows the same tokens everywhere."""

    def __init__(self, size: int, allowed: list[int]) -> None:
        self._mask = np.zeros(size, bool)
        self._mask[allowed] = True

    def ready(self, within_s: float) -> bool:
        return True

    def allowed(self) -> np.ndarray:
        return self._mask

    def take(self, token: int) -> None:
        assert self._mask[token]


def rules_of(wire: messages.Sampling, bias: dict[int, int]) -> Sampling:
    """As an executor reads its order."""
    million = 1_000_000
    return Sampling(
        wire.temperature_millionths / million,
        wire.top_p_millionths / million,
        wire.seed,
        wire.top_k,
        wire.min_p_millionths / million,
        unzigzag(wire.presence_penalty) / million,
        unzigzag(wire.frequency_penalty) / million,
        wire.repetition_penalty_millionths / million,
        tuple((token, added / million) for token, added in bias.items()),
    )


def chooser_at(place: Place) -> Chooser:
    """A job that has come to this place."""
    size = len(place.logits)
    mask = None if place.allowed is None else Fixed(size, list(place.allowed))
    chooser = Chooser(Letters(size), rules_of(place.sampling, dict(place.bias)), place.prompt, mask, logprobs=2)
    for token in place.completion:
        if chooser._penalties is not None:
            chooser._penalties.take(token)
    return chooser


def place_of(vector: dict[str, Any]) -> Place:
    data, content = bytes.fromhex(vector["input_hex"]), vector["given"]
    return Place(
        struct.unpack(f"<{len(data) // 4}f", data),
        messages.Sampling(**content["sampling"]),
        content["position"],
        content["prompt"],
        content["completion"],
        {token: unzigzag(code) for token, code in content["logit_bias"]},
        content["allowed"],
    )


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["id"])
def test_vectors_of_spec_05(vector: dict[str, Any]) -> None:
    gives = vector["gives"]
    if vector["operation"] == "noise":
        content = vector["given"]
        assert raw_noise(content["seed"], content["position"], content["size"]).tolist() == gives["halves"]
        return
    if vector["operation"] == "logprobs":
        logits = np.frombuffer(bytes.fromhex(vector["input_hex"]), "<f4")
        told = [float(logit) - log_sum(logits) for logit in logits]
        assert np.abs(np.array(told) * 1e6 - gives["millionths"]).max() <= 2
        return
    place = place_of(vector)
    logits = np.array(place.logits, np.float32)
    if vector["operation"] == "margin":
        found, _, _ = chooser_at(place).judge(logits, place.position, vector["given"]["token"])
        wanted = gives["margin_millionths"]
        assert found == math.inf if wanted is None else abs(found * 1e6 - wanted) <= 1
        return
    if "kept" in gives:
        chooser = chooser_at(place)
        ruled = chooser._ruled(logits)
        ids = kept(ruled, chooser._rules)
        assert ids[ruled[ids] > -np.inf].tolist() == sorted(gives["kept"])
    assert chooser_at(place).choose(logits, place.position).token == gives["token"]


@st.composite
def places(draw: st.DrawFn) -> Place:
    size = draw(st.integers(2, 120))
    numbers = st.sampled_from([-20.0, -3.0, -1.0, 0.0, 0.5, 1.0, 4.0, 9.0]) | st.floats(-30, 30, width=32)
    logits = tuple(draw(st.lists(numbers, min_size=size, max_size=size)))
    tokens = st.integers(0, size - 1)
    penalty = st.integers(-2_000_000, 2_000_000).map(zigzag)
    sampling = messages.Sampling(
        draw(st.sampled_from([0, 1, 100_000, 700_000, 1_000_000, 2_000_000])),
        draw(st.sampled_from([1, 100_000, 500_000, 900_000, 1_000_000])),
        draw(SEEDS),
        draw(st.sampled_from([0, 1, 3, 40, 1000])),
        draw(st.sampled_from([0, 0, 50_000, 500_000, 1_000_000])),
        draw(st.sampled_from([0, zigzag(500_000)]) | penalty),
        draw(st.sampled_from([0, zigzag(-500_000)]) | penalty),
        draw(st.sampled_from([1_000_000, 1_200_000, 500_000])),
    )
    return Place(
        logits,
        sampling,
        draw(st.integers(0, 2**32)),
        tuple(draw(st.lists(tokens, max_size=8))),
        tuple(draw(st.lists(tokens, max_size=8))),
        draw(st.dictionaries(tokens, st.integers(-100_000_000, 100_000_000), max_size=4)),
        draw(st.none() | st.lists(tokens, min_size=1, unique=True)),
    )


@given(places())
@settings(max_examples=150)
def test_every_rule_is_as_the_reference_has_it(place: Place) -> None:
    logits = np.array(place.logits, np.float32)
    token = chooser_at(place).choose(logits, place.position).token
    wanted = chosen_token(place)
    # Another token only where the two are as good as equal, or one stands on the border of the nucleus.
    if token != wanted:
        found = scores(place)
        nearby = {**found, **scores(Place(place.logits, _wider(place.sampling), *_rest(place)))}
        assert nearby[token] >= found[wanted] - NEAR
    judged, logprob, rank = chooser_at(place).judge(logits, place.position, wanted)
    assert judged <= NEAR
    assert logprob == pytest.approx(log_probabilities(place.logits)[wanted], abs=1e-5)
    assert rank == sum(logit > place.logits[wanted] for logit in place.logits)


def _wider(sampling: messages.Sampling) -> messages.Sampling:
    return replace(sampling, top_p_millionths=min(1_000_000, sampling.top_p_millionths + 1))


def _rest(place: Place) -> tuple[Any, ...]:
    return place.position, place.prompt, place.completion, place.bias, place.allowed


@given(places(), st.integers(0, 2**32))
@settings(max_examples=80)
def test_margins_are_as_the_reference_has_them(place: Place, pick: int) -> None:
    token = pick % len(place.logits)
    wanted = margin(place, token)
    found = chooser_at(place).judge(np.array(place.logits, np.float32), place.position, token)[0]
    wider = margin(Place(place.logits, _wider(place.sampling), *_rest(place)), token)
    assert found == pytest.approx(wanted, abs=1e-5, rel=1e-5) or found == pytest.approx(wider, abs=1e-5, rel=1e-5)


@given(SEEDS, SEEDS, st.integers(1, 70))
@settings(max_examples=30)
def test_noise_is_philox_of_seed_and_position(seed: int, position: int, size: int) -> None:
    noise = raw_noise(seed, position, size)
    assert noise.dtype == np.uint32
    assert noise.tolist() == noise_halves(seed, position, size)


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=60, unique=True))
@settings(max_examples=30)
def test_noise_of_some_tokens_is_that_of_all(tokens: list[int]) -> None:
    ids: Ids = np.array(sorted(tokens))
    assert (SAMPLER._noise_of(ids, 5, 6, 5001) == raw_noise(5, 6, 5001)[ids]).all()


def test_known_draws() -> None:
    """Frozen: a change of numpy or of our code must not change a draw."""
    logits = np.linspace(-2, 2, 50).astype(np.float32)
    drawn = [choose(logits, Sampling(0.8, 0.9, 7), position) for position in range(8)]
    assert drawn == [47, 42, 35, 27, 39, 44, 43, 29]


@given(LOGITS)
def test_temperature_zero_takes_the_first_greatest(logits: np.ndarray) -> None:
    assert choose(logits, Sampling(0, 0.5, 1), 0) == logits.tolist().index(max(logits.tolist()))


def test_frequencies_follow_softmax() -> None:
    logits = np.array([2.0, 1.0, 0.0, -1.0, -8.0], np.float32)
    drawn = [choose(logits, Sampling(1.0, 1.0, seed), 5) for seed in range(20_000)]
    expected = np.exp(logits) / np.exp(logits).sum()
    assert np.abs(np.bincount(drawn, minlength=5) / len(drawn) - expected).max() < 0.012


def test_a_large_vocabulary_keeps_its_tail() -> None:
    """Tokens far from the best one win only by noise; none may be forgotten."""
    logits = np.zeros(50_000, np.float32)
    logits[17] = 10.0
    for seed in range(40):
        noise = gumbel(raw_noise(seed, 0, len(logits)))
        assert choose(logits, Sampling(1.0, 1.0, seed), 0) == int(np.argmax(logits.astype(np.float64) + noise))


def test_nucleus_of_a_flat_distribution_is_wide_and_takes_low_ids_first() -> None:
    assert nucleus(np.zeros(4000, np.float32), Sampling(1.0, 0.5)).tolist() == list(range(2000))


@pytest.mark.parametrize("top_p", [0.01, 0.6, 0.97])
@pytest.mark.parametrize("temperature", [0.7, 4.0])
def test_a_wide_nucleus_is_found_exactly(top_p: float, temperature: float) -> None:
    logits = np.random.default_rng(1).standard_normal(20_000).astype(np.float32).round(2)
    order = np.argsort(-logits, kind="stable")
    weights = np.exp(logits[order].astype(np.float64) / temperature)
    before = np.cumsum(weights) - weights
    expected = np.sort(order[before < top_p * weights.sum()])
    # Float32 exponentials may move the border by a token or two.
    assert len(np.setxor1d(nucleus(logits, Sampling(temperature, top_p)), expected)) <= 2


@given(LOGITS, st.integers(1, 600))
def test_largest_takes_the_lowest_of_equals(logits: np.ndarray, count: int) -> None:
    count = min(count, len(logits))
    logits = logits.round()
    order = sorted(range(len(logits)), key=lambda i: (-logits[i], i))
    assert largest(logits, count).tolist() == sorted(order[:count])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_refused(bad: float) -> None:
    with pytest.raises(NotFinite):
        choose(np.array([1.0, bad, 2.0], np.float32), Sampling(1.0, 1.0, 0), 0)
