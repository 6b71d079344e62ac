"""The sampler against its docstring: another Philox, another nucleus, and the distribution itself."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ryvion_node.engine.interface import Sampling
from ryvion_node.engine.worker.sampler import NotFinite, Sampler, gumbel, nucleus

SAMPLER = Sampler()
choose, raw_noise = SAMPLER.choose, SAMPLER.raw_noise
SEEDS = st.integers(0, 2**64 - 1)
LOGITS = arrays(np.float32, st.integers(1, 600), elements=st.floats(-30, 30, width=32))


def philox(key: tuple[int, int], counter: int) -> list[int]:
    """Philox4x64-10, written from the paper."""
    mask = 2**64 - 1
    x, k = [counter, 0, 0, 0], list(key)
    for _ in range(10):
        first, second = 0xD2E7470EE14C6C93 * x[0], 0xCA5A826395121157 * x[2]
        x = [(second >> 64) ^ x[1] ^ k[0], second & mask, (first >> 64) ^ x[3] ^ k[1], first & mask]
        k = [(k[0] + 0x9E3779B97F4A7C15) & mask, (k[1] + 0xBB67AE8584CAA73B) & mask]
    return x


def specified_noise(seed: int, position: int, token: int) -> int:
    key = hashlib.sha256(b"ryvion/v1/gumbel\0" + seed.to_bytes(8, "big") + position.to_bytes(8, "big")).digest()
    words = philox((int.from_bytes(key[:8], "little"), int.from_bytes(key[8:16], "little")), 1 + token // 8)
    word = words[(token % 8) // 2]
    return word >> 32 if token % 2 else word & 0xFFFFFFFF


def specified_choice(logits: np.ndarray, sampling: Sampling, position: int) -> int:
    """The docstring, step by step and slowly."""
    z = [float(value) / sampling.temperature for value in logits]
    order = sorted(range(len(z)), key=lambda i: (-logits[i], i))
    weights = {i: math.exp(z[i] - max(z)) for i in order}
    total, before, allowed = sum(weights.values()), 0.0, []
    for i in order:
        if sampling.top_p < 1 and before >= sampling.top_p * total:
            break
        allowed.append(i)
        before += weights[i]
    noise = gumbel(raw_noise(sampling.seed, position, len(z)))
    return max(sorted(allowed), key=lambda i: z[i] + noise[i])


@given(SEEDS, SEEDS, st.integers(1, 70))
@settings(max_examples=30)
def test_noise_is_philox_of_seed_and_position(seed: int, position: int, size: int) -> None:
    noise = raw_noise(seed, position, size)
    assert noise.dtype == np.uint32
    assert [int(value) for value in noise] == [specified_noise(seed, position, token) for token in range(size)]


def test_known_noise() -> None:
    """Frozen: a change of numpy or of our code must not change a draw."""
    assert raw_noise(7, 11, 4).tolist() == [1881917589, 3669036617, 4023175802, 171414910]
    logits = np.linspace(-2, 2, 50).astype(np.float32)
    drawn = [choose(logits, Sampling(0.8, 0.9, 7), position) for position in range(8)]
    assert drawn == [47, 42, 35, 27, 39, 44, 43, 29]


@given(LOGITS, st.floats(0.1, 3), st.sampled_from((0.1, 0.5, 0.9, 1.0)), SEEDS)
def test_choice_is_the_specified_one(logits: np.ndarray, temperature: float, top_p: float, seed: int) -> None:
    sampling = Sampling(temperature, top_p, seed)
    assert choose(logits, sampling, 3) == specified_choice(logits, sampling, 3)


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


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_refused(bad: float) -> None:
    with pytest.raises(NotFinite):
        choose(np.array([1.0, bad, 2.0], np.float32), Sampling(1.0, 1.0, 0), 0)
