"""Whom to buy from, on the command line: the `ryvion` object of requests as options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import click

from ryvion_node.cli.limits import CREDITS, GivenLimit
from ryvion_node.cli.output import credits_text, short_key
from ryvion_node.preferences import ASSURANCES, SORTS

Command = TypeVar("Command", bound=Callable[..., Any])

UNSET: Final = "unset"
"""In the place of a list's first value: there is no such list any more."""
LISTS: Final[tuple[tuple[str, str, str], ...]] = (
    ("allow", "NODE", "Only these nodes: a key in hex, or a peer id. Give it once for each."),
    ("deny", "NODE", "None of these nodes."),
    ("digest", "SHA256", "Only these model files."),
    ("quantisation", "NAME", "Only these, as offers name them, such as Q4_K_M."),
)
"""Name in the `ryvion` object, what a value is, help."""


def preference_options(command: Command) -> Command:
    """Add an option for every preference; `given_preferences` makes the `ryvion` object of what the command gets."""
    sort = click.option("--sort", type=click.Choice(SORTS), help="What bids are ranked by.")
    price = click.option(
        "--max-price", type=CREDITS, metavar="CREDITS", help="Most credits that one whole answer may cost."
    )
    lists = [click.option(f"--{name}", multiple=True, metavar=kind, help=text) for name, kind, text in LISTS]
    assurance = click.option(
        "--min-assurance",
        type=click.Choice(ASSURANCES),
        help="count-checked: only where the bill can be recounted here with the model's own tokenizer.",
    )
    for option in reversed((sort, price, *lists, assurance)):
        command = option(command)
    return command


def given_preferences(options: Mapping[str, Any]) -> dict[str, object]:
    """The preferences among a command's options that were given, as a `ryvion` object; null: not limited."""
    given: dict[str, object] = {name: options[name] for name in ("sort", "min_assurance") if options[name] is not None}
    price: GivenLimit | None = options["max_price"]
    if price is not None:
        given["max_price"] = price.value
    for name, _, _ in LISTS:
        values = options[name]
        if UNSET in values and len(values) > 1:
            raise click.BadParameter(f"{UNSET!r} stands alone.", param_hint=f"--{name}")
        if values:
            given[name] = None if UNSET in values else list(values)
    _check(given)
    return given


def _check(given: dict[str, object]) -> None:
    from pydantic import ValidationError

    from ryvion_node.preferences_object import PreferencesObject

    try:
        PreferencesObject.model_validate(given)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_context=False)[0]
        name = str(first["loc"][0]).replace("_", "-")
        raise click.BadParameter(f"{first['msg']}.", param_hint=f"--{name}") from None


def preferences_text(given: Mapping[str, Any]) -> str:
    """A `ryvion` object as a line for people; empty when nothing is limited."""
    parts = []
    for name, value in given.items():
        match name:
            case "sort" | "min_assurance":
                parts.append(str(value) if name == "min_assurance" else f"by {value}")
            case "max_price":
                parts.append(f"at most {credits_text(value)} an answer")
            case _:
                parts.append(f"{name} {', '.join(map(short_key, value))}")
    return "; ".join(parts)
