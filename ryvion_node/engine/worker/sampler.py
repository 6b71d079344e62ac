"""The seeded Gumbel-max sampler of spec 05, steps 4 to 10: from the logits that the rules left to a token.

Whoever holds the model can recompute every draw of a job. What comes before these steps (bias, penalties, a grammar's
mask) is in `choosing.py`; a token that is excluded there has the logit -inf here.

numpy's Philox starts at counter 1 and `random_raw` yields its words in order, which is the noise of step 9.
"""

from __future__ import annotations

import hashlib
import math
import struct
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ryvion_node.engine.interface import Sampling

_DOMAIN: Final = b"ryvion/v1/gumbel\0"
_INDEX: Final = struct.Struct(">QQ")
_COUNTER: Final = np.zeros(4, np.uint64)
_BLOCK: Final = 8
"""Tokens that share one run of Philox."""
_RUN_TOKENS: Final = 2048
"""Starting a run costs as much as the noise of so many tokens."""
_LARGE: Final = 32_768
"""The noise of smaller vocabularies is made sooner than handed over."""
_POOL: Final = ThreadPoolExecutor(1, "noise")
"""Makes noise while llama.cpp computes; numpy lets go of the interpreter for it."""
_NEAR: Final = 4.0
"""Tokens within this of the best z have their noise computed in any case; the others only where it is large."""
_WIDTHS: Final = (4.0, 8.0, 16.0, np.inf)
"""How far below the best z the nucleus is looked for, until it holds enough."""
_FEW: Final = 1024
"""So many are sorted; more are counted into bins first."""
_BINS: Final = 4096
_BINS_WIDTH: Final = 32.0
"""Below this the whole of a vocabulary weighs nothing; the last bin holds it."""
_GROUP: Final = 64
"""The greatest of so many tokens stand for all of them when the greatest of all are looked for."""

Logits = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Ids = npt.NDArray[np.intp]
Noise = npt.NDArray[np.uint32]


class NotFinite(Exception):
    """The model produced logits that are not numbers."""


class Sampler:
    """Chooses tokens; keeps a generator to save making one per token, so two threads must not use it at once."""

    def __init__(self) -> None:
        self._philox = np.random.Philox(key=0)
        # Ours to edit: the property makes a fresh dictionary each time it is read.
        self._state: Any = dict(self._philox.state)
        self._ahead: tuple[tuple[int, int, int], Future[Noise]] | None = None

    def choose(self, logits: Logits, rules: Sampling, position: int) -> int:
        """The token for this position. Raises NotFinite."""
        best = _best(logits)
        if rules.temperature <= 0:
            return best
        left = kept(logits, rules) if filters(rules) else None
        ids, scores = self._contest(logits, left, rules, position)
        return int(ids[scores.argmax()])

    def margin(self, logits: Logits, rules: Sampling, position: int, token: int) -> float:
        """How far a token is behind the one that `choose` takes; infinite when it is excluded. Raises NotFinite."""
        best = _best(logits)
        if rules.temperature <= 0:
            return float(logits[best]) - float(logits[token])
        left = kept(logits, rules) if filters(rules) else None
        if logits[token] == -np.inf or (left is not None and token not in left):
            return math.inf
        _, scores = self._contest(logits, left, rules, position)
        itself = np.array([token])
        own = _scores(logits, itself, self._noise_of(itself, rules.seed, position, len(logits)), rules)
        return max(float(scores.max()) - float(own[0]), 0.0)

    def _contest(self, logits: Logits, left: Ids | None, rules: Sampling, position: int) -> tuple[Ids, Floats]:
        """The tokens that can win of those left (None: all), in rising order, and their scores."""
        if left is not None:
            if len(left) <= _FEW:
                return left, _scores(logits, left, self._noise_of(left, rules.seed, position, len(logits)), rules)
            logits = _only(logits, left)
        noise = self.raw_noise(rules.seed, position, len(logits))
        ids = _candidates(logits, noise, rules)
        return ids, _scores(logits, ids, noise[ids], rules)

    def look_ahead(self, size: int, rules: Sampling, position: int) -> None:
        """Begin with the noise of a position, if all of it will be needed: it depends on no logits."""
        if size >= _LARGE and rules.temperature > 0 and not filters(rules):
            noise = _POOL.submit(self._run, _key(rules.seed, position), 0, size)
            self._ahead = (rules.seed, position, size), noise

    def raw_noise(self, seed: int, position: int, size: int) -> Noise:
        """R of step 9 for tokens 0 .. size-1."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            # In any case, as it uses our generator.
            noise = ahead[1].result()
            if ahead[0] == (seed, position, size):
                return noise
        return self._run(_key(seed, position), 0, size)

    def _noise_of(self, ids: Ids, seed: int, position: int, size: int) -> Noise:
        """R of step 9 for a few of `size` tokens."""
        blocks = sorted({token // _BLOCK for token in ids.tolist()})
        if len(blocks) * _RUN_TOKENS > size:
            return self.raw_noise(seed, position, size)[ids]
        key = _key(seed, position)
        words = np.concatenate([self._run(key, block, _BLOCK) for block in blocks])
        noise: Noise = words[np.searchsorted(blocks, ids // _BLOCK) * _BLOCK + ids % _BLOCK]
        return noise

    def _run(self, key: npt.NDArray[np.uint64], block: int, size: int) -> Noise:
        counter = _COUNTER.copy()
        counter[0] = block
        self._state["state"] = {"counter": counter, "key": key}
        self._philox.state = self._state
        words = self._philox.random_raw((size + 1) // 2)
        return words.astype("<u8", copy=False).view("<u4")[:size]


def _key(seed: int, position: int) -> npt.NDArray[np.uint64]:
    return np.frombuffer(hashlib.sha256(_DOMAIN + _INDEX.pack(seed, position)).digest()[:16], "<u8")


def _best(logits: Logits) -> int:
    best = int(logits.argmax())
    # argmax returns the first NaN if there is one.
    if not math.isfinite(logits[best]):
        raise NotFinite
    return best


def gumbel(raw: Noise) -> Floats:
    """G of step 9."""
    noise: Floats = -np.log(-np.log((raw + 0.5) / 2.0**32))
    return noise


def filters(rules: Sampling) -> bool:
    """Does any of steps 6 to 8 apply?"""
    return rules.top_k > 0 or rules.top_p < 1 or rules.min_p > 0


def kept(logits: Logits, rules: Sampling) -> Ids:
    """What steps 6 to 8 leave, in rising order."""
    ids: Ids | None = None
    if 0 < rules.top_k < len(logits):
        ids = largest(logits, rules.top_k)
    if rules.top_p < 1:
        ids = nucleus(logits, rules) if ids is None else ids[nucleus(logits[ids], rules)]
    if rules.min_p > 0:
        lowest = _least(float(logits.max()) + rules.temperature * math.log(rules.min_p))
        ids = np.flatnonzero(logits >= lowest) if ids is None else ids[logits[ids] >= lowest]
    return np.arange(len(logits)) if ids is None else ids


def _least(bound: float) -> np.float32:
    """The least float32 that is not below this, so that a fast comparison is an exact one."""
    rounded = np.float32(bound)
    return rounded if float(rounded) >= bound else np.nextafter(rounded, np.float32(np.inf))


def largest(values: Logits, count: int) -> Ids:
    """Indices of the `count` greatest in rising order; among equals the lowest."""
    groups = len(values) // _GROUP
    ids = np.arange(len(values))
    if groups >= count:
        heads = values[: groups * _GROUP].reshape(_GROUP, groups).max(axis=0)
        ids = np.flatnonzero(values >= np.partition(heads, groups - count)[groups - count])
    among = values[ids]
    border = np.partition(among, len(ids) - count)[len(ids) - count]
    inside = ids[among > border]
    return np.sort(np.concatenate([inside, ids[among == border][: count - len(inside)]]))


def nucleus(logits: Logits, rules: Sampling) -> Ids:
    """Step 7: indices in rising order; the sums are as exact as float32 exponentials."""
    below = logits - logits.max()
    weights = np.exp(below / np.float32(rules.temperature))
    wanted = rules.top_p * float(weights.sum(dtype=np.float64))
    ids = np.arange(0)
    for width in _WIDTHS:
        ids = np.flatnonzero(below >= -width * rules.temperature)
        if len(ids) > max(_FEW, len(below) // 8):
            # Picking so many out costs more than going through all.
            return np.flatnonzero(_in_wide_nucleus(below, weights, wanted, rules.temperature))
        if weights[ids].sum(dtype=np.float64) >= wanted:
            break
    if len(ids) <= _FEW:
        return np.sort(_heaviest(ids, below, weights, wanted))
    return ids[_in_wide_nucleus(below[ids], weights[ids], wanted, rules.temperature)]


def _heaviest(ids: Ids, below: Logits, weights: Logits, wanted: float) -> Ids:
    """Those of the ids, given in rising order, whose predecessors weigh less than is wanted."""
    ids = ids[np.argsort(below[ids] * np.float32(-1), kind="stable")]
    # Without its last element, moved by one, this is the sum of each token's predecessors.
    before = np.cumsum(weights[ids], dtype=np.float64)
    return ids[: 1 + int(np.count_nonzero(before[:-1] < wanted))]


def _in_wide_nucleus(below: Logits, weights: Logits, wanted: float, temperature: float) -> npt.NDArray[np.bool_]:
    """Only the tokens of the bin where the border lies are sorted."""
    scale = np.float32(-_BINS / (_BINS_WIDTH * temperature))
    bins = np.minimum(below * scale, np.float32(_BINS - 1)).astype(np.intp)
    mass = np.cumsum(np.bincount(bins, weights, _BINS))
    border = min(int(np.searchsorted(mass, wanted)), _BINS - 1)
    inside: npt.NDArray[np.bool_] = bins < border
    left = wanted - (float(mass[border - 1]) if border else 0.0)
    inside[_heaviest(np.flatnonzero(bins == border), below, weights, left)] = True
    return inside


def _only(logits: Logits, ids: Ids) -> Logits:
    """All others excluded."""
    left = np.full(len(logits), -np.inf, np.float32)
    left[ids] = logits[ids]
    return left


def _candidates(logits: Logits, raw: Noise, rules: Sampling) -> Ids:
    """Tokens that can win step 10 when all are allowed, so that logarithms are taken of few; in rising order."""
    top, temperature = float(logits.max()), rules.temperature
    near = logits >= top - _NEAR * temperature
    ids = np.flatnonzero(near)
    best = float(_scores(logits, ids, raw[ids], rules).max())
    # A token further off than _NEAR wins only with noise above this.
    needed = best - top / temperature + _NEAR
    # A whole step lower, so that rounding cannot lose a candidate.
    lucky = raw >= np.uint32(max(math.exp(-math.exp(-needed)) * 2.0**32 - 2.0, 0.0))
    return np.flatnonzero(near | lucky)


def _scores(logits: Logits, ids: Ids, raw: Noise, rules: Sampling) -> Floats:
    """Step 10; `raw` is the noise of these ids."""
    return logits[ids].astype(np.float64) / rules.temperature + gumbel(raw)
