"""Running the command line in this process, against a home of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ryvion_node.cli.app import cli
from ryvion_node.errors import OperatorError


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command printed, and how it ended."""

    stdout: str
    stderr: str
    exit_code: int
    error: OperatorError | None


Run = Callable[..., Ran]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def run(home: Path) -> Run:
    """`run("offers", "--json")`: with --home, and with operator errors caught as `main` catches them."""

    def run_command(*arguments: str, with_home: bool = True, stdin: bytes = b"") -> Ran:
        command = [*arguments, "--home", str(home)] if with_home else list(arguments)
        result: Result = CliRunner().invoke(cli, command, input=stdin, prog_name="ryvion-node")
        error = result.exception if isinstance(result.exception, OperatorError) else None
        if result.exception is not None and error is None and not isinstance(result.exception, SystemExit):
            raise result.exception
        exit_code = result.exit_code if error is None else error.exit_code
        return Ran(result.stdout, result.stderr, exit_code, error)

    return run_command
