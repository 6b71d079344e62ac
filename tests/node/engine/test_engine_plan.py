"""Which sequences a step serves, as pure decisions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ryvion_node.engine.constants import GATHER_PROMPT_S, GATHER_S, MIN_CHUNK_TOKENS, STEP_TARGET_S
from ryvion_node.engine.restart import GiveUp, Restart, RestartPolicy
from ryvion_node.engine.worker.plan import Gathering, PromptPace, StepTimes, share_rows, spans

CPU = {1: 0.012, 2: 0.027, 3: 0.031, 4: 0.035, 6: 0.041, 8: 0.044}


@pytest.mark.parametrize(("ready", "together"), [(1, 1), (2, 1), (3, 3), (4, 4), (5, 4), (7, 6), (8, 8)])
def test_below_the_break_even_jobs_take_turns(ready: int, together: int) -> None:
    assert StepTimes(CPU).best(ready) == together


@given(st.dictionaries(st.integers(2, 16), st.floats(0.001, 1)), st.floats(0.001, 1), st.integers(1, 16))
def test_never_slower_than_one_at_a_time(measured: dict[int, float], alone: float, ready: int) -> None:
    times = StepTimes({**measured, 1: alone})
    together = times.best(ready)
    assert together / times.of(together) >= 1 / alone


def test_a_size_never_seen_is_tried_once() -> None:
    times = StepTimes({1: 1.0, 8: 2.0})
    assert times.next_size(3) == 3
    times.observe(3, 30.0)
    assert times.next_size(3) == 1


def test_old_measurements_are_renewed_now_and_then() -> None:
    times = StepTimes({1: 1.0, 2: 3.0, 3: 9.0})
    tried = []
    for _ in range(1500):
        size = times.next_size(3)
        # In truth all sizes take the same time by now: three at once are best.
        times.observe(size, 1.0)
        tried.append(size)
    assert tried[:60] == [1] * 60
    assert tried[-60:].count(3) >= 59


def test_one_slow_step_does_not_change_the_plan() -> None:
    times = StepTimes(CPU)
    times.observe(8, 10.0)
    assert times.best(8) == 8


def test_prompt_rows_follow_the_measured_pace() -> None:
    pace = PromptPace(0.004)
    assert pace.rows(256) == 22
    # A small piece says little about the pace.
    pace.observe(10, 1.0)
    assert pace.rows(256) == 22
    assert PromptPace(1e-6).rows(256) == 256
    assert PromptPace(1.0).rows(256) == MIN_CHUNK_TOKENS
    for _ in range(50):
        pace.observe(22, 0.187)
    assert pace.rows(256) == 10


@given(st.floats(1e-5, 0.1), st.floats(0, 0.1))
def test_a_step_with_prompts_ends_within_its_target(seconds_per_token: float, decoding_s: float) -> None:
    rows = PromptPace(seconds_per_token).rows(256, decoding_s)
    assert rows == MIN_CHUNK_TOKENS or decoding_s + rows * seconds_per_token <= STEP_TARGET_S * (1 + 1e-9)


def test_sizes_between_those_measured_lie_on_a_line() -> None:
    times = StepTimes({1: 1.0, 4: 4.0, 8: 6.0})
    assert [times.of(size) for size in (1, 2, 4, 6, 8, 16)] == [1.0, 2.0, 4.0, 5.0, 6.0, 12.0]


@pytest.mark.parametrize(
    ("sequences", "fill", "passes"),
    [
        ([0, 1, 2], True, [range(3)]),
        ([5], True, [range(5, 6)]),
        # One row more costs less than a pass more.
        ([0, 2], True, [range(3)]),
        ([0, 2], False, [range(1), range(2, 3)]),
        # Thirteen rows more cost more than a pass.
        ([0, 1, 15], True, [range(2), range(15, 16)]),
        ([0, 2, 13, 15], True, [range(3), range(13, 16)]),
    ],
)
def test_gaps_are_filled_where_that_is_faster(sequences: list[int], fill: bool, passes: list[range]) -> None:
    times = StepTimes({1: 0.008, 2: 0.010, 16: 0.041})
    assert spans(sequences, times, fill=fill) == passes


@given(st.sets(st.integers(0, 30), min_size=1), st.dictionaries(st.integers(2, 31), st.floats(0.001, 1)))
def test_every_sequence_is_in_one_pass(chosen: set[int], measured: dict[int, float]) -> None:
    times = StepTimes({1: 0.01, **measured})
    passes = spans(sorted(chosen), times, fill=True)
    served = [sequence for span in passes for sequence in span]
    assert served == sorted(set(served))
    assert chosen <= set(served)
    assert all({span.start, span.stop - 1} <= chosen for span in passes)
    unfilled = sum(times.of(len(span)) for span in spans(sorted(chosen), times, fill=False))
    assert sum(times.of(len(span)) for span in passes) <= unfilled * (1 + 1e-9)


def test_jobs_that_come_together_wait_for_short_prompts_for_a_while() -> None:
    gathering = Gathering()
    short = GATHER_PROMPT_S / 2
    assert gathering.waits([short] * 4, 100.0)
    assert gathering.waits([short], 100.0 + GATHER_S / 2)
    assert not gathering.waits([short], 100.0 + GATHER_S)
    gathering.over()
    assert gathering.waits([short], 102.0 + GATHER_S)
    # However many come, and nobody waits for a long one.
    assert not Gathering().waits([short] * 100, 100.0)
    assert not Gathering().waits([short, GATHER_PROMPT_S * 2], 100.0)


@given(
    st.integers(0, 300), st.integers(0, 50), st.lists(st.tuples(st.integers(1, 500), st.integers(0, 500)), max_size=8)
)
def test_prompts_share_a_step_in_equal_pieces(rows: int, more: int, waiting: list[tuple[int, int]]) -> None:
    left = [tokens for tokens, _ in waiting]
    shares = share_rows(rows, rows + more, left, [passed for _, passed in waiting])
    assert sum(shares) <= min(rows + more, rows * 1.1)
    assert all(share <= tokens for share, tokens in zip(shares, left, strict=True))
    assert len(set(shares) - {0}) <= 1
    if left and rows:
        first = min(range(len(left)), key=lambda index: left[index] - waiting[index][1])
        assert shares[first]
        assert sum(shares) >= min(rows, left[first])


def test_a_step_serves_as_many_prompts_as_fill_it() -> None:
    assert share_rows(38, 192, [31, 31, 31], [0, 0, 0]) == [19, 19, 0]
    assert share_rows(512, 512, [31, 40, 35], [0, 0, 0]) == [31, 31, 31]
    assert share_rows(38, 192, [500, 600], [0, 0]) == [38, 0]


def test_a_few_rows_get_no_step_of_their_own() -> None:
    assert share_rows(40, 192, [44], [0]) == [44]
    assert share_rows(40, 192, [45], [0]) == [40]
    assert share_rows(40, 42, [44], [0]) == [40]


def test_a_long_prompt_is_overtaken_for_a_limited_time() -> None:
    left, passed = 100, 0
    while left:
        mine, other = share_rows(10, 10, [left, 10], [passed, 0])
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
