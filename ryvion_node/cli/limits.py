"""The limits of a key on the command line: credits or counts, or the word `unlimited`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Final, TypeVar

import click

from ryvion_node.cli.output import MICRO

Command = TypeVar("Command", bound=Callable[..., Any])

UNLIMITED: Final = "unlimited"
MAX_LIMIT: Final = 2**53 - 1


@dataclass(frozen=True, slots=True)
class GivenLimit:
    """A limit as it was given; None: without limit."""

    value: int | None


class LimitType(click.ParamType):  # type: ignore[type-arg]  # not generic in click 8.3
    """A number with at most `decimals` decimals, kept as a whole number of the smallest units; or `unlimited`."""

    def __init__(self, name: str, decimals: int) -> None:
        self.name = name
        self._decimals = decimals

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> GivenLimit:
        text = str(value).strip().lower()
        if text == UNLIMITED:
            return GivenLimit(None)
        try:
            units = Decimal(text) * 10**self._decimals
            whole = int(units) if units.is_finite() and units == units.to_integral_value() else -1
        except (InvalidOperation, ValueError):
            whole = -1
        if not 0 <= whole <= MAX_LIMIT:
            decimals = f" with at most {self._decimals} decimals" if self._decimals else ""
            self.fail(f"{value!r} is no number{decimals}, and not the word {UNLIMITED}.", param, ctx)
        return GivenLimit(whole)


CREDITS: Final = LimitType("credits", len(str(MICRO)) - 1)
COUNT: Final = LimitType("count", 0)

LIMITS: Final[tuple[tuple[str, LimitType, str, str], ...]] = (
    ("budget_day", CREDITS, UNLIMITED, "Most that its jobs may cost in one day of UTC."),
    ("budget_total", CREDITS, UNLIMITED, "Most that its jobs may cost for good."),
    ("velocity", CREDITS, "5", "Most that its jobs may cost in any 60 minutes."),
    ("requests_per_minute", COUNT, "3000", "Most requests a minute, as many at once at first."),
    ("jobs_at_once", COUNT, "64", "Most answers under way at once."),
)
"""Name in `keys.KeyLimits`, type, default of a new key, help."""


def limit_options(*, with_defaults: bool) -> Callable[[Command], Command]:
    """Add an option for every limit; the command gets a GivenLimit for each, None for one that was not given."""

    def add(command: Command) -> Command:
        for name, kind, default, text in reversed(LIMITS):
            metavar = "CREDITS" if kind is CREDITS else "N"
            option = click.option(
                f"--{name.replace('_', '-')}",
                type=kind,
                metavar=metavar,
                default=default if with_defaults else None,
                show_default=with_defaults,
                help=text,
            )
            command = option(command)
        return command

    return add


def given_limits(options: Mapping[str, Any]) -> dict[str, int | None]:
    """The limits among a command's options that were given, by their names in `keys.KeyLimits`."""
    given = {name: options[name] for name, _, _, _ in LIMITS}
    return {name: limit.value for name, limit in given.items() if limit is not None}
