"""The seeded Gumbel-max sampler: whoever holds the model can recompute every draw of a job.

For the token at index `position` of the sequence (the prompt's first token, BOS if there is one, has index 0), with
logits l[0..n) (float32), temperature T, top_p P and a seed 0 <= seed < 2^64:

1. T = 0: the token with the greatest logit, the lowest id among equals. Nothing below applies.
2. z[i] = float64(l[i]) / T.
3. P < 1: order the tokens by falling logit, equals by rising id. With p = softmax(z), the nucleus is every token whose
   predecessors in that order have a sum of p below P; it is never empty. P >= 1: the nucleus is all tokens.
4. The noise of token i. key = the first 16 bytes of
       SHA-256(b"ryvion/v1/gumbel\\0" + u64be(seed) + u64be(position)),
   read as two little-endian 64-bit words k0, k1. Philox4x64-10 (Salmon et al., SC 2011) with key (k0, k1) and counter
   (1 + floor(i / 8), 0, 0, 0) gives four 64-bit words; cut each in two 32-bit halves, the low one first, and
   r = half number (i mod 8). Then u = (r + 1/2) / 2^32 and g[i] = -ln(-ln(u)), both float64.
5. The token of the nucleus with the greatest z[i] + g[i], the lowest id among equals.

By the Gumbel-max theorem step 5 draws from softmax(z) over the nucleus. Logits differ in their last bits between
machines and batch sizes, so checks compare how far a claimed token is behind the best one, not tokens.

numpy's Philox starts at counter 1 and `random_raw` yields its words in order, which is step 4.
"""

from __future__ import annotations

import hashlib
import math
import struct
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

_DOMAIN: Final = b"ryvion/v1/gumbel\0"
_INDEX: Final = struct.Struct(">QQ")
_COUNTER: Final = np.zeros(4, np.uint64)
_NEAR: Final = 4.0
"""Tokens within this of the best z have their noise computed in any case; the others only where it is large."""
_WIDTHS: Final = (4.0, 8.0, 16.0, np.inf)
"""How far below the best z the nucleus is looked for, until it holds enough."""
_FEW: Final = 1024
"""So many are sorted; more are halved first."""

Floats = npt.NDArray[np.float64]
Ids = npt.NDArray[np.intp]


class NotFinite(Exception):
    """The model produced logits that are not numbers."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one job's tokens are chosen."""

    temperature: float
    top_p: float
    seed: int


class Sampler:
    """Chooses tokens; keeps a generator to save making one per token, so it belongs to one thread."""

    def __init__(self) -> None:
        self._philox = np.random.Philox(key=0)
        # Ours to edit: the property makes a fresh dictionary each time it is read.
        self._state: Any = dict(self._philox.state)

    def choose(self, logits: npt.NDArray[np.float32], sampling: Sampling, position: int) -> int:
        """The token for this position. Raises NotFinite."""
        best = int(logits.argmax())
        # argmax returns the first NaN if there is one.
        if not math.isfinite(logits[best]):
            raise NotFinite
        if sampling.temperature <= 0:
            return best
        raw = self.raw_noise(sampling.seed, position, len(logits))
        if sampling.top_p < 1:
            ids = nucleus(logits, sampling.temperature, sampling.top_p)
        else:
            ids = _candidates(logits, float(logits[best]), raw, sampling.temperature)
        return int(ids[_scores(logits, ids, raw, sampling.temperature).argmax()])

    def raw_noise(self, seed: int, position: int, size: int) -> npt.NDArray[np.uint32]:
        """R of step 4 for tokens 0 .. size-1."""
        digest = hashlib.sha256(_DOMAIN + _INDEX.pack(seed, position)).digest()
        key = np.frombuffer(digest[:16], "<u8")
        self._state["state"] = {"counter": _COUNTER, "key": key}
        self._philox.state = self._state
        words = self._philox.random_raw((size + 1) // 2)
        return words.astype("<u8", copy=False).view("<u4")[:size]


def gumbel(raw: npt.NDArray[np.uint32]) -> Floats:
    """G of step 4."""
    noise: Floats = -np.log(-np.log((raw + 0.5) / 2.0**32))
    return noise


def nucleus(logits: npt.NDArray[np.float32], temperature: float, top_p: float) -> Ids:
    """Ids of step 3 in rising order; the sums are as exact as float32 exponentials."""
    below = logits - logits.max()
    weights = np.exp(below / np.float32(temperature))
    wanted = top_p * float(weights.sum(dtype=np.float64))
    ids = np.arange(0)
    for width in _WIDTHS:
        ids = np.flatnonzero(below >= -width * temperature)
        if weights[ids].sum(dtype=np.float64) >= wanted:
            break
    inside, mass, ids = _narrowed(ids, below, weights, wanted)
    ids = ids[np.argsort(below[ids] * np.float32(-1), kind="stable")]
    # Without its last element, moved by one, this is the sum of each token's predecessors.
    before = mass + np.cumsum(weights[ids], dtype=np.float64)
    return np.sort(np.concatenate([*inside, ids[: 1 + int(np.count_nonzero(before[:-1] < wanted))]]))


def _narrowed(
    ids: Ids, below: npt.NDArray[np.float32], weights: npt.NDArray[np.float32], wanted: float
) -> tuple[list[Ids], float, Ids]:
    """Halve a wide search: what is surely in the nucleus, its weight, and the few where the border lies."""
    inside: list[Ids] = []
    mass = 0.0
    while len(ids) > _FEW:
        values = below[ids]
        upper = values > np.partition(values, len(ids) // 2)[len(ids) // 2]
        if not upper.any():
            break
        added = float(weights[ids[upper]].sum(dtype=np.float64))
        if mass + added >= wanted:
            ids = ids[upper]
        else:
            inside.append(ids[upper])
            mass, ids = mass + added, ids[~upper]
    return inside, mass, ids


def _candidates(logits: npt.NDArray[np.float32], top: float, raw: npt.NDArray[np.uint32], temperature: float) -> Ids:
    """Tokens that can win step 5 when all are allowed, so that logarithms are taken of few; in rising order."""
    near = logits >= top - _NEAR * temperature
    best = float(_scores(logits, np.flatnonzero(near), raw, temperature).max())
    # A token further off than _NEAR wins only with noise above this.
    needed = best - top / temperature + _NEAR
    # A whole step lower, so that rounding cannot lose a candidate.
    lucky = raw >= max(math.exp(-math.exp(-needed)) * 2.0**32 - 2.0, 0.0)
    return np.flatnonzero(near | lucky)


def _scores(logits: npt.NDArray[np.float32], ids: Ids, raw: npt.NDArray[np.uint32], temperature: float) -> Floats:
    return logits[ids].astype(np.float64) / temperature + gumbel(raw[ids])
