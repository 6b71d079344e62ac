"""One job's choices: what spec 05 does to the logits before the sampler sees them, and the log-probabilities told."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from ryvion_node.engine.interface import Sampling
from ryvion_node.engine.wire import WireLogprob, WireSampling, WireScore
from ryvion_node.engine.worker.sampler import Ids, Logits, NotFinite, Sampler, largest

__all__ = ["Choice", "Chooser", "MaskFailed", "NotFinite", "RulesRefused", "TokenMask", "Tokens", "rules_of"]


_LEAST_TEMPERATURE: Final = 1e-6
"""A millionth is the least that an order can ask for."""
_MOST: Final = 1e6
"""Of any number in the rules: far beyond use, and far from where binary32 ends."""


class MaskFailed(Exception):
    """The grammar came to a point where it allows no token, or where it is too costly to follow."""


class RulesRefused(Exception):
    """The sampling rules do not fit this model; the message says which."""


class TokenMask(Protocol):
    """What a grammar allows, token after token (`grammar.py`)."""

    def ready(self, within_s: float) -> bool:
        """Does `allowed` answer at once, now or after waiting so long at most?"""
        ...

    def allowed(self) -> npt.NDArray[np.bool_]:
        """One element per token of the vocabulary, at least one of them true. Raises MaskFailed."""
        ...

    def take(self, token: int) -> None:
        """Go on with this token, one of those allowed. Raises MaskFailed."""
        ...


class Tokens(Protocol):
    """What a chooser asks of a vocabulary."""

    size: int

    def piece(self, token: int) -> bytes: ...

    def name(self, token: int) -> str: ...


@dataclass(frozen=True, slots=True)
class Choice:
    """A token, and what was asked for about it."""

    token: int
    logprob: WireLogprob | None


def rules_of(wire: WireSampling) -> Sampling:
    """The rules as the pipe carries them."""
    temperature, top_p, top_k, min_p, presence, frequency, repetition, seed, bias = wire
    return Sampling(temperature, top_p, seed, top_k, min_p, presence, frequency, repetition, bias)


class Chooser:
    """Chooses the tokens of one job in turn. Two threads must not use it at once."""

    def __init__(
        self,
        vocabulary: Tokens,
        rules: Sampling,
        prompt: Sequence[int],
        mask: TokenMask | None = None,
        logprobs: int | None = None,
    ) -> None:
        """`logprobs`: None, or how many alternatives to tell with each token. Raises RulesRefused."""
        _check(rules)
        self._vocabulary = vocabulary
        self._rules = rules
        self._mask = mask
        self._logprobs = logprobs
        self._sampler = Sampler()
        self._lost = False
        """A claimed token left the grammar, so nothing after it can be judged."""
        self._bias = _Bias(rules, vocabulary.size) if rules.logit_bias else None
        self._penalties = _Penalties(rules, prompt) if _Penalties.needed(rules) else None

    def ready(self, within_s: float = 0.0) -> bool:
        """Need `choose` not wait for the grammar, now or after so long at most?"""
        return self._mask is None or self._mask.ready(within_s)

    def choose(self, logits: Logits, position: int) -> Choice:
        """The next token, at this index of the sequence. Raises NotFinite and MaskFailed."""
        token = self._sampler.choose(self._ruled(logits), self._rules, position)
        if self._mask is not None:
            self._mask.take(token)
        if self._penalties is not None:
            self._penalties.take(token)
        self._sampler.look_ahead(len(logits), self._rules, position + 1)
        return Choice(token, None if self._logprobs is None else self._told(logits, token, self._logprobs))

    def judge(self, logits: Logits, position: int, token: int) -> WireScore:
        """How a claimed token compares with the choice here; goes on with it. Raises NotFinite."""
        margin = math.inf
        if not self._lost:
            try:
                margin = self._margin(logits, position, token)
            except MaskFailed:
                self._lost = True
        if self._penalties is not None:
            self._penalties.take(token)
        own = logits[token]
        logprob = float(own) - log_sum(logits)
        if math.isnan(logprob):
            raise NotFinite
        return margin, logprob, int(np.count_nonzero(logits > own))

    def _margin(self, logits: Logits, position: int, token: int) -> float:
        ruled = self._ruled(logits)
        margin = self._sampler.margin(ruled, self._rules, position, token)
        if self._mask is not None:
            if ruled[token] == -np.inf:
                raise MaskFailed("the grammar does not allow this token")
            self._mask.take(token)
        return margin

    def _ruled(self, logits: Logits) -> Logits:
        """Steps 2 to 4 of spec 05."""
        if self._bias is not None or self._penalties is not None:
            logits = logits.copy()
        if self._bias is not None:
            self._bias.apply(logits)
        if self._penalties is not None:
            self._penalties.apply(logits)
        if self._mask is not None:
            logits = np.where(self._mask.allowed(), logits, np.float32(-np.inf))
        return logits

    def _told(self, logits: Logits, token: int, alternatives: int) -> WireLogprob:
        log_total = log_sum(logits)
        top: Sequence[int] = ()
        if alternatives:
            ids = largest(logits, min(alternatives, len(logits)))
            top = ids[np.argsort(-logits[ids], kind="stable")].tolist()
        return (
            self._shown(token),
            float(logits[token]) - log_total,
            tuple((self._shown(other), float(logits[other]) - log_total) for other in top),
        )

    def _shown(self, token: int) -> bytes:
        """A control token is nothing in an answer, but among alternatives it must be told from others."""
        return self._vocabulary.piece(token) or self._vocabulary.name(token).encode()


def _check(rules: Sampling) -> None:
    """Raises RulesRefused for numbers with which the steps make no sense."""
    biases = [added for _, added in rules.logit_bias]
    legal = {
        "temperature": rules.temperature == 0 or _LEAST_TEMPERATURE <= rules.temperature <= _MOST,
        "top_p": 0 <= rules.top_p <= 1,
        "top_k": rules.top_k >= 0,
        "min_p": 0 <= rules.min_p <= 1,
        "presence_penalty": abs(rules.presence_penalty) <= _MOST,
        "frequency_penalty": abs(rules.frequency_penalty) <= _MOST,
        "repetition_penalty": 1 / _MOST <= rules.repetition_penalty <= _MOST,
        "logit_bias": all(abs(added) <= _MOST for added in biases),
    }
    # Comparisons with NaN are false.
    if bad := [name for name, is_legal in legal.items() if not is_legal]:
        raise RulesRefused(f"{bad[0]} is out of range")


def log_sum(logits: Logits) -> float:
    """What to take off a logit to make it a log-probability."""
    top = logits.max()
    return float(top) + math.log(float(np.exp(logits - top).sum(dtype=np.float64)))


class _Bias:
    """Step 2: adds to some tokens' logits."""

    def __init__(self, rules: Sampling, size: int) -> None:
        tokens = [token for token, _ in rules.logit_bias]
        if bad := [token for token in tokens if not 0 <= token < size]:
            raise RulesRefused(f"logit_bias names token {bad[0]}, this model has tokens 0 to {size - 1}")
        if len(set(tokens)) < len(tokens):
            raise RulesRefused("logit_bias names a token twice")
        self._ids = np.array(tokens, np.intp)
        self._added = np.array([added for _, added in rules.logit_bias], np.float64)

    def apply(self, logits: Logits) -> None:
        logits[self._ids] = logits[self._ids] + self._added


class _Penalties:
    """Step 3: makes tokens that were there less likely. Only tokens seen are kept."""

    @staticmethod
    def needed(rules: Sampling) -> bool:
        return rules.repetition_penalty != 1 or rules.presence_penalty != 0 or rules.frequency_penalty != 0

    def __init__(self, rules: Sampling, prompt: Sequence[int]) -> None:
        self._rules = rules
        seen = sorted(set(prompt)) if rules.repetition_penalty != 1 else []
        self._index = {token: index for index, token in enumerate(seen)}
        self._ids: Ids = np.array(seen, np.intp)
        # In the completion.
        self._counts = np.zeros(len(seen))

    def apply(self, logits: Logits) -> None:
        known = len(self._index)
        ids, counts = self._ids[:known], self._counts[:known]
        values = logits[ids].astype(np.float64)
        repetition = self._rules.repetition_penalty
        if repetition != 1:
            values = np.where(values > 0, values / repetition, values * repetition)
        values -= self._rules.presence_penalty * (counts > 0) + self._rules.frequency_penalty * counts
        logits[ids] = values

    def take(self, token: int) -> None:
        index = self._index.setdefault(token, len(self._index))
        if index == len(self._ids):
            self._ids = np.concatenate([self._ids, np.zeros(64 + index, np.intp)])
            self._counts = np.concatenate([self._counts, np.zeros(64 + index)])
        self._ids[index] = token
        self._counts[index] += 1
