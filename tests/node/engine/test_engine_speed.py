"""What an offer says of a model's speed follows what the model does."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from ryvion_node.engine import constants as limits
from ryvion_node.engine.interface import ModelSpec
from ryvion_node.engine.worker.speedometer import Speedometer, Speeds
from tests.node.engine.engine_support import ENDLESS, TINY, collect, running

SAID = Speeds(token_s=0.01, prompt_token_s=0.001)


def after(
    steps: int, taken_s: float, *, lone: bool = True, meter: Speedometer | None = None, at: float = 1000.0
) -> tuple[Speedometer, float]:
    meter = meter or Speedometer(SAID)
    for _ in range(steps):
        meter.step(lone=lone, now_s=at)
        at += taken_s
    return meter, at


def test_a_slower_machine_is_told_of_once() -> None:
    meter, now = after(400, 0.02)
    news = meter.news(0.001, now)
    assert news is not None
    assert news.token_s == pytest.approx(0.02, rel=0.05)
    assert meter.news(0.001, now + limits.DRIFT_SAY_EVERY_S) is None


def test_noise_pauses_company_and_few_tokens_are_no_drift() -> None:
    assert after(400, 0.0115)[0].news(0.0011, 2000.0) is None
    meter, now = after(200, 0.01)
    after(2, 60.0, meter=meter, at=now)
    assert meter.news(0.001, 2000.0) is None
    assert after(400, 0.05, lone=False)[0].news(0.001, 2000.0) is None
    assert after(limits.DRIFT_STEPS, 0.05)[0].news(0.001, 2000.0) is None


def test_waiting_for_a_slow_reader_is_no_slower_model() -> None:
    meter, now = after(1, 0.01)
    for _ in range(400):
        meter.rest()
        meter, now = after(4, 0.01, meter=meter, at=now + 1.0)
    assert meter.news(0.001, now) is None


def test_prompts_drift_by_themselves_but_not_too_often() -> None:
    meter = Speedometer(SAID)
    assert meter.news(0.002, 1000.0) == Speeds(0.01, 0.002)
    assert meter.news(0.004, 1000.0 + limits.DRIFT_SAY_EVERY_S / 2) is None
    assert meter.news(0.004, 1000.0 + limits.DRIFT_SAY_EVERY_S) == Speeds(0.01, 0.004)


@given(st.lists(st.floats(0.0001, 10.0), min_size=1, max_size=300))
def test_speeds_stay_between_what_was_said_and_what_was_seen(times: list[float]) -> None:
    meter, now = Speedometer(SAID), 1000.0
    meter.step(lone=True, now_s=now)
    for taken_s in times:
        now += taken_s
        meter.step(lone=True, now_s=now)
    news = meter.news(0.001, now + limits.DRIFT_SAY_EVERY_S)
    seen = [*times, SAID.token_s]
    assert news is None or min(seen) <= news.token_s <= max(seen)


async def test_the_engine_offers_what_a_job_gets() -> None:
    async with running(ModelSpec("small", TINY)) as engine:
        (first,) = engine.models()
        with trio.fail_after(40):
            # Decoding alone was measured at start; a job also takes sampling, texts and pipes, so a tiny model drifts.
            for seed in count():
                if engine.models() != (first,):
                    break
                await collect(engine, replace(ENDLESS, sampling=replace(ENDLESS.sampling, temperature=1.0, seed=seed)))
        (later,) = engine.models()
        speeds = (later.millitokens_per_s, later.prompt_millitokens_per_s)
        assert replace(first, millitokens_per_s=speeds[0], prompt_millitokens_per_s=speeds[1]) == later
