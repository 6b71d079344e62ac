"""When an owner wants the machine for himself."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from ryvion_node.executor.availability import Availability
from ryvion_node.executor.backoff import Backoff, PauseRules
from ryvion_node.executor.constants import SENSOR_EVERY_S
from ryvion_node.hours import DAYS, parse_window
from ryvion_node.machine.fake import IDLE, FakeSensors, gpu
from ryvion_node.machine.interface import Reading

MONDAY = datetime(2026, 11, 23, tzinfo=UTC)
RULES = PauseRules(gpu_percent=30, cpu_percent=50, calm_s=60)


def busy(gpu_percent: int = 0, cpu: int = 0, *, battery: bool = False) -> Reading:
    return Reading((gpu(gpu_percent),), cpu, on_battery=battery)


def test_others_must_be_quiet_for_a_while() -> None:
    backoff = Backoff(RULES)
    assert backoff.reason(busy(29), 0, MONDAY) == ""
    assert "GPU" in backoff.reason(busy(30), 1, MONDAY)
    assert "GPU" in backoff.reason(busy(0), 60.9, MONDAY)
    assert backoff.reason(busy(0), 61, MONDAY) == ""
    assert "processor" in backoff.reason(busy(0, 50), 62, MONDAY)


def test_battery_works_at_once_both_ways_and_can_be_allowed() -> None:
    backoff = Backoff(RULES)
    assert "battery" in backoff.reason(busy(battery=True), 0, MONDAY)
    assert backoff.reason(busy(), 1, MONDAY) == ""
    assert Backoff(PauseRules(on_battery=False)).reason(busy(99, 99, battery=True), 0, MONDAY) == ""


@pytest.mark.parametrize(
    ("window", "inside", "outside"),
    [
        ("22:00-07:00", ["mon 22:00", "tue 06:59", "mon 03:00"], ["mon 21:59", "mon 07:00"]),
        ("mon-fri 18:00-08:00", ["mon 18:00", "sat 07:59", "fri 23:59"], ["mon 07:59", "sat 18:00", "tue 08:00"]),
        ("sat 00:00-24:00", ["sat 00:00", "sat 23:59"], ["fri 23:59", "sun 00:00"]),
        ("fri-mon 08:00-09:00", ["fri 08:00", "sun 08:30", "mon 08:59"], ["tue 08:30"]),
    ],
)
def test_windows(window: str, inside: list[str], outside: list[str]) -> None:
    rules = PauseRules(hours=(parse_window(window),))
    for text, sells in [*((one, True) for one in inside), *((one, False) for one in outside)]:
        assert (Backoff(rules).reason(IDLE, 0, local(text)) == "") == sells, text


def local(text: str) -> datetime:
    day, clock = text.split()
    hours, minutes = map(int, clock.split(":"))
    return MONDAY + timedelta(days=DAYS.index(day), hours=hours, minutes=minutes)


@pytest.mark.parametrize(
    "text", ["", "8-9", "24:00-08:00", "08:00-08:00", "08:60-09:00", "xyz 08:00-09:00", "mon- 1:00-2:00"]
)
def test_bad_windows_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"write|no time|begins"):
        parse_window(text)


@given(st.text(max_size=30))
def test_any_text_is_a_window_or_a_clear_refusal(text: str) -> None:
    with suppress(ValueError):
        assert parse_window(text).minutes > 0


@pytest.mark.virtual_time
async def test_the_watch_follows_the_machine_and_knows_its_own() -> None:
    sensors = FakeSensors(busy(90))
    watch = Availability(sensors, Backoff(RULES), lambda: [41, 42], clock=lambda: MONDAY)
    async with trio.open_nursery() as nursery:
        await nursery.start(watch.run)
        assert "GPU" in watch.paused
        assert sensors.asked_about == [frozenset({41, 42})]
        sensors.reading = IDLE
        await trio.sleep(60 + SENSOR_EVERY_S)
        assert watch.paused == ""
        nursery.cancel_scope.cancel()
