"""The group: every subcommand is there, described, and fails in words."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from ryvion_node.cli.app import SUBCOMMANDS, LazyGroup, cli
from tests.node.cli.conftest import Run


def walk(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from walk(child, (*path, name))


EVERY_COMMAND = list(walk(cli))


@pytest.mark.parametrize(
    ("path", "command"), EVERY_COMMAND, ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_help_is_worth_reading(path: tuple[str, ...], command: click.Command, run: Run) -> None:
    shown = run(*path, "--help", with_home=False)
    assert shown.exit_code == 0
    assert command.help and len(command.help) > 40
    undescribed = [param.name for param in command.params if isinstance(param, click.Option) and not param.help]
    assert not undescribed
    if not isinstance(command, click.Group):
        assert "Example" in shown.stdout


def test_the_overview_names_each_command_once() -> None:
    assert isinstance(cli, LazyGroup)
    overview = cli.get_help(click.Context(cli))
    assert all(subcommand.summary in overview for subcommand in SUBCOMMANDS.values())


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_a_command_is_named_as_it_is_called(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None and command.name == name


def test_an_unknown_command_is_a_usage_error(run: Run) -> None:
    assert run("fly", with_home=False).exit_code == 2


def test_an_operator_error_is_one_message_and_no_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ryvion_node", "offers"]
    environment = os.environ | {"RYVION_HOME": str(tmp_path / "none")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 69
    assert done.stdout == ""
    assert done.stderr.startswith("ryvion-node: No node") and "Traceback" not in done.stderr
