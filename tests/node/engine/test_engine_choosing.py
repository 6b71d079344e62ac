"""What a chooser refuses and remembers, without a model."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from ryvion_node.engine.interface import Sampling
from ryvion_node.engine.worker.choosing import Chooser, MaskFailed, NotFinite, RulesRefused, rules_of
from ryvion_node.engine.worker.sampler import Sampler

PLAIN = Sampling(1.0, seed=1)
SIZE = 40
FALLING = np.linspace(5, -5, SIZE).astype(np.float32)


class Words:
    """Token 0 is a control token, the others are letters."""

    size = SIZE

    def piece(self, token: int) -> bytes:
        return b"" if token == 0 else bytes([64 + token])

    def name(self, token: int) -> str:
        return "<|end|>" if token == 0 else ""


class Script:
    """A grammar that allows these tokens one after the other, then fails."""

    def __init__(self, *allowed: list[int]) -> None:
        self._left = list(allowed)

    def ready(self, within_s: float) -> bool:
        return True

    def allowed(self) -> np.ndarray:
        if not self._left:
            raise MaskFailed("over")
        mask = np.zeros(SIZE, bool)
        mask[self._left[0]] = True
        return mask

    def take(self, token: int) -> None:
        assert token in self._left.pop(0)


@pytest.mark.parametrize(
    "rules",
    [
        replace(PLAIN, temperature=-1.0),
        replace(PLAIN, temperature=1e-9),
        replace(PLAIN, temperature=math.nan),
        replace(PLAIN, temperature=math.inf),
        replace(PLAIN, top_p=1.5),
        replace(PLAIN, top_p=math.nan),
        replace(PLAIN, top_k=-1),
        replace(PLAIN, min_p=1.01),
        replace(PLAIN, min_p=math.nan),
        replace(PLAIN, presence_penalty=math.inf),
        replace(PLAIN, frequency_penalty=math.nan),
        replace(PLAIN, repetition_penalty=0.0),
        replace(PLAIN, logit_bias=((1, math.inf),)),
        replace(PLAIN, logit_bias=((SIZE, 1.0),)),
        replace(PLAIN, logit_bias=((-1, 1.0),)),
        replace(PLAIN, logit_bias=((1, 1.0), (1, 2.0))),
    ],
)
def test_rules_that_make_no_sense_are_refused(rules: Sampling) -> None:
    """R-05-3 among them: never a worker that ends."""
    with pytest.raises(RulesRefused):
        Chooser(Words(), rules, ())


def test_rules_survive_the_pipe() -> None:
    rules = Sampling(0.5, 0.9, 7, 3, 0.1, -0.2, 0.3, 1.1, ((4, -1.0),))
    assert rules_of((0.5, 0.9, 3, 0.1, -0.2, 0.3, 1.1, 7, ((4, -1.0),))) == rules


def test_logits_are_left_as_they_were() -> None:
    rules = Sampling(0.7, 0.9, 7, 5, 0.1, 1.0, 1.0, 2.0, ((3, 9.0),))
    chooser = Chooser(Words(), rules, (1, 2), Script(list(range(SIZE)), [3]), logprobs=3)
    before = FALLING.copy()
    for position in range(2):
        chooser.choose(FALLING, position)
    assert (before == FALLING).all()


def test_counts_grow_with_the_answer() -> None:
    chooser = Chooser(Words(), Sampling(0.0, frequency_penalty=3.0), ())
    drawn = [chooser.choose(FALLING, position).token for position in range(60)]
    # Each falls behind the next as often as it was said.
    assert drawn[:4] == [0, 1, 2, 3]
    assert max(drawn) > 15
    assert set(drawn) == set(range(max(drawn) + 1))


def test_a_repetition_penalty_knows_the_prompt() -> None:
    assert Chooser(Words(), Sampling(0.0, repetition_penalty=2.0), [0, 1, 2] * 9).choose(FALLING, 0).token == 3


def test_logprobs_name_control_tokens() -> None:
    told = Chooser(Words(), Sampling(0.0), (), None, logprobs=2).choose(FALLING, 0).logprob
    assert told is not None
    assert told[0] == b"<|end|>"
    assert [piece for piece, _ in told[2]] == [b"<|end|>", b"A"]
    assert Chooser(Words(), Sampling(0.0), ()).choose(FALLING, 0).logprob is None


def test_more_alternatives_than_tokens_are_all_of_them() -> None:
    told = Chooser(Words(), Sampling(0.0), (), None, logprobs=1000).choose(FALLING, 0).logprob
    assert told is not None
    assert len(told[2]) == SIZE
    assert sum(math.exp(logprob) for _, logprob in told[2]) == pytest.approx(1.0)


def test_a_mask_wins_over_a_bias() -> None:
    rules = Sampling(0.0, logit_bias=((5, 1000.0),))
    chooser = Chooser(Words(), rules, (), Script([7, 9], [9]))
    assert [chooser.choose(FALLING, position).token for position in range(2)] == [7, 9]
    with pytest.raises(MaskFailed):
        chooser.choose(FALLING, 2)


def test_judging_goes_on_behind_a_lost_grammar() -> None:
    chooser = Chooser(Words(), Sampling(0.0), (), Script([7], [9]))
    judged = [chooser.judge(FALLING, position, token) for position, token in enumerate((7, 8, 9, 3))]
    assert [margin for margin, _, _ in judged] == [0.0, math.inf, math.inf, math.inf]
    assert [rank for _, _, rank in judged] == [7, 8, 9, 3]


@pytest.mark.parametrize("rules", [PLAIN, replace(PLAIN, top_k=5), replace(PLAIN, temperature=0.0)])
def test_noise_made_ahead_changes_nothing(rules: Sampling) -> None:
    class Large(Words):
        size = 40_000

    logits = np.random.default_rng(3).standard_normal(Large.size).astype(np.float32)
    chooser = Chooser(Large(), rules, ())
    # Also where another position is asked for than was expected.
    positions = [0, 1, 2, 3, 9, 10, 4]
    drawn = [chooser.choose(logits, position).token for position in positions]
    assert drawn == [Sampler().choose(logits, rules, position) for position in positions]
    assert chooser.judge(logits, 5, Sampler().choose(logits, rules, 5))[0] == 0


def test_broken_logits_are_the_models_fault() -> None:
    logits = FALLING.copy()
    logits[3] = np.nan
    with pytest.raises(NotFinite):
        Chooser(Words(), PLAIN, ()).choose(logits, 0)
    with pytest.raises(NotFinite):
        Chooser(Words(), PLAIN, ()).judge(logits, 0, 1)
    lost = Chooser(Words(), PLAIN, (), Script())
    assert lost.judge(FALLING, 0, 1)[0] == math.inf
    with pytest.raises(NotFinite):
        lost.judge(logits, 1, 1)
