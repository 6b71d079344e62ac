"""Which sequences a step serves, as pure decisions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ryvion_node.engine.constants import MIN_CHUNK_TOKENS
from ryvion_node.engine.restart import GiveUp, Restart, RestartPolicy
from ryvion_node.engine.worker.plan import PromptPace, StepTimes, share_rows

CPU = {1: 0.012, 2: 0.027, 3: 0.031, 4: 0.035, 6: 0.041, 8: 0.044}


@pytest.mark.parametrize(("ready", "together"), [(1, 1), (2, 1), (3, 3), (4, 4), (5, 5), (8, 8)])
def test_below_the_break_even_jobs_take_turns(ready: int, together: int) -> None:
    assert StepTimes(CPU, 8).best(ready) == together


@given(st.dictionaries(st.integers(2, 16), st.floats(0.001, 1)), st.floats(0.001, 1), st.integers(1, 16))
def test_never_slower_than_one_at_a_time(measured: dict[int, float], alone: float, ready: int) -> None:
    times = StepTimes({**measured, 1: alone}, 16)
    together = times.best(ready)
    assert together / times.of(together) >= 1 / alone


def test_sizes_between_are_interpolated_and_beyond_are_in_proportion() -> None:
    times = StepTimes({1: 1.0, 3: 2.0}, 6)
    assert [times.of(size) for size in range(1, 7)] == pytest.approx([1.0, 1.5, 2.0, 8 / 3, 10 / 3, 4.0])


def test_one_slow_step_does_not_change_the_plan() -> None:
    times = StepTimes(CPU, 8)
    times.observe(8, 10.0)
    assert times.best(8) == 8


def test_prompt_rows_follow_the_measured_pace() -> None:
    pace = PromptPace(0.004)
    assert pace.rows(256) == 20
    assert PromptPace(1e-6).rows(256) == 256
    assert PromptPace(1.0).rows(256) == MIN_CHUNK_TOKENS
    for _ in range(50):
        pace.observe(20, 0.16)
    assert pace.rows(256) == 10


@given(st.integers(0, 300), st.lists(st.tuples(st.integers(1, 500), st.integers(0, 500)), max_size=8))
def test_shares_use_every_row_and_no_more(rows: int, waiting: list[tuple[int, int]]) -> None:
    left = [tokens for tokens, _ in waiting]
    shares = share_rows(rows, left, [passed for _, passed in waiting])
    assert sum(shares) == min(rows, sum(left))
    assert all(0 <= share <= tokens for share, tokens in zip(shares, left, strict=True))


def test_a_long_prompt_is_overtaken_for_a_limited_time() -> None:
    left, passed = 100, 0
    while left:
        mine, other = share_rows(10, [left, 10], [passed, 0])
        left, passed = left - mine, passed + other
        assert passed <= 110


def test_three_quick_deaths_are_too_many() -> None:
    policy = RestartPolicy()
    first, second = policy.died(1), policy.died(1)
    assert isinstance(first, Restart)
    assert isinstance(second, Restart)
    assert second.delay_s > first.delay_s
    assert policy.died(1) == GiveUp(3)


def test_a_long_life_clears_the_record() -> None:
    policy = RestartPolicy()
    assert all(isinstance(policy.died(lived), Restart) for lived in (1, 1, 1000, 1, 1))
