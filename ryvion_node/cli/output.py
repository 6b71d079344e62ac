"""Printing results: JSON for programs, tables for people. Diagnostics go to stderr elsewhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

import click

if TYPE_CHECKING:
    from rich.console import Console

MICRO = 1_000_000
PLAIN_WIDTH = 120
"""Columns when stdout is no terminal, so that files and pipes do not depend on where they were made."""


def print_json(value: object) -> None:
    """One JSON value, indented, on stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def make_console() -> Console:
    """A rich console on stdout; plain text of fixed width when that is no terminal."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PLAIN_WIDTH)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> None:
    """A table on stdout; `right` names the columns that hold numbers. Cells are text, never markup.

    The first column, what a row is called, is never broken.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        justify: Literal["left", "right"] = "right" if column in right else "left"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=column == columns[0])
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    make_console().print(table)


def counted(count: int, what: str) -> str:
    """A number of things: `1 passage`, `2 passages`."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def printable(text: str) -> str:
    """Text that others wrote, on one line, without characters that steer a terminal or turn text around."""
    return "".join(char if char.isprintable() else " " for char in text)


def credits_text(microcredits: int) -> str:
    """Micro-credits as credits, exactly: 1500000 is `1.5`, 3 is `0.000003`."""
    text = f"{Decimal(microcredits) / MICRO:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def price_text(microcredits_per_million: int) -> str:
    """A price as credits per million tokens."""
    return f"{credits_text(microcredits_per_million)}/M"


def speed_text(millitokens_per_s: int) -> str:
    """Tokens per second, `-` when nobody measured it."""
    return f"{millitokens_per_s / 1000:.0f}/s" if millitokens_per_s else "-"


def time_text(unix_ms: int) -> str:
    """A time as UTC to the second."""
    return datetime.fromtimestamp(unix_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def short_key(hex_key: str) -> str:
    """The first digits of a key or a hash, enough to tell a few apart."""
    return f"{hex_key[:12]}…" if len(hex_key) > 12 else hex_key
