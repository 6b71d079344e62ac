"""Options that several subcommands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from ryvion_node.paths import HOME_VARIABLE, Paths, resolve_paths

Command = TypeVar("Command", bound=Callable[..., Any])


def _to_paths(_ctx: click.Context, _param: click.Parameter, value: Path | None) -> Paths:
    return resolve_paths(value)


def home_option(command: Command) -> Command:
    """Add `--home`; the command gets `paths: Paths`."""
    option = click.option(
        "--home",
        "paths",
        type=click.Path(path_type=Path, file_okay=False),
        callback=_to_paths,
        help=f"The node's folder: key, ledger, keys. Default: ${HOME_VARIABLE}, else the platform's state folder.",
    )
    return option(command)


def json_option(command: Command) -> Command:
    """Add `--json`; the command gets `as_json: bool`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs instead of text.")(command)
