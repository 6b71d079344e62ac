"""Spec 05 written out step by step, slowly and without any library: what the vectors come from."""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from ryvion_protocol.messages import Sampling
from ryvion_protocol.zigzag import unzigzag

_MASK: Final = 2**64 - 1
_MILLION: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Place:
    """Where a token is to be chosen."""

    logits: Sequence[float]
    """Of the whole vocabulary; binary32 values."""
    sampling: Sampling
    position: int
    """The token's index in the sequence; the prompt's first token has index 0."""
    prompt: Sequence[int] = ()
    completion: Sequence[int] = ()
    bias: Mapping[int, int] = field(default_factory=dict)
    """Token to millionths."""
    allowed: Collection[int] | None = None
    """What the grammar allows; None: there is none."""


def log_probabilities(logits: Sequence[float]) -> list[float]:
    """Step 1."""
    top = max(logits)
    total = math.log(math.fsum(math.exp(logit - top) for logit in logits))
    return [logit - top - total for logit in logits]


def ruled_logits(place: Place) -> list[float]:
    """Steps 2 to 4; minus infinity where a token is excluded."""
    sampling = place.sampling
    logits = list(place.logits)
    for token, millionths in place.bias.items():
        logits[token] = _rounded(logits[token] + millionths / _MILLION)
    repetition = sampling.repetition_penalty_millionths / _MILLION
    presence, frequency = (
        unzigzag(sampling.presence_penalty) / _MILLION,
        unzigzag(sampling.frequency_penalty) / _MILLION,
    )
    for token in {*place.prompt, *place.completion}:
        value = logits[token]
        if repetition != 1:
            value = value / repetition if value > 0 else value * repetition
        count = place.completion.count(token)
        logits[token] = _rounded(value - (presence * (count > 0) + frequency * count))
    if place.allowed is not None:
        logits = [logit if token in place.allowed else -math.inf for token, logit in enumerate(logits)]
    return logits


def kept_tokens(logits: Sequence[float], sampling: Sampling) -> list[int]:
    """Steps 6 to 8, in the order of step 6."""
    temperature = sampling.temperature_millionths / _MILLION
    kept = sorted((token for token in range(len(logits)) if logits[token] > -math.inf), key=lambda i: (-logits[i], i))
    if sampling.top_k:
        kept = kept[: sampling.top_k]
    top = logits[kept[0]]
    if sampling.top_p_millionths < _MILLION:
        weights = [math.exp((logits[token] - top) / temperature) for token in kept]
        wanted = sampling.top_p_millionths / _MILLION * math.fsum(weights)
        kept = [token for at, token in enumerate(kept) if math.fsum(weights[:at]) < wanted]
    if sampling.min_p_millionths:
        lowest = top + temperature * math.log(sampling.min_p_millionths / _MILLION)
        kept = [token for token in kept if logits[token] >= lowest]
    return kept


def noise_halves(seed: int, position: int, size: int) -> list[int]:
    """R of step 9 for tokens 0 .. size-1."""
    digest = hashlib.sha256(b"ryvion/v1/gumbel\0" + struct.pack(">QQ", seed, position)).digest()
    key = struct.unpack("<QQ", digest[:16])
    words = [word for block in range(size // 8 + 1) for word in _philox((key[0], key[1]), 1 + block)]
    return [half for word in words for half in (word & 0xFFFFFFFF, word >> 32)][:size]


def _philox(key: tuple[int, int], counter: int) -> list[int]:
    """Philox4x64-10 with the counter (counter, 0, 0, 0)."""
    x, k = [counter, 0, 0, 0], list(key)
    for _ in range(10):
        first, second = 0xD2E7470EE14C6C93 * x[0], 0xCA5A826395121157 * x[2]
        x = [(second >> 64) ^ x[1] ^ k[0], second & _MASK, (first >> 64) ^ x[3] ^ k[1], first & _MASK]
        k = [(k[0] + 0x9E3779B97F4A7C15) & _MASK, (k[1] + 0xBB67AE8584CAA73B) & _MASK]
    return x


def scores(place: Place) -> dict[int, float]:
    """What step 10 (or at temperature 0 step 5) compares, of every token that is left."""
    logits = ruled_logits(place)
    if not place.sampling.temperature_millionths:
        return {token: logit for token, logit in enumerate(logits) if logit > -math.inf}
    temperature = place.sampling.temperature_millionths / _MILLION
    noise = noise_halves(place.sampling.seed, place.position, len(logits))
    return {
        token: logits[token] / temperature - math.log(-math.log((noise[token] + 0.5) / 2.0**32))
        for token in sorted(kept_tokens(logits, place.sampling))
    }


def chosen_token(place: Place) -> int:
    """The lowest id among those with the greatest score."""
    found = scores(place)
    return max(sorted(found), key=lambda token: found[token])


def margin(place: Place, token: int) -> float:
    """How far a token is behind the chosen one; infinite when it is excluded."""
    found = scores(place)
    return max(found.values()) - found[token] if token in found else math.inf


def _rounded(value: float) -> float:
    """To binary32."""
    return float(struct.unpack("<f", struct.pack("<f", value))[0])
