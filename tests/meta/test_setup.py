"""scripts/setup names everything a machine lacks, with the mend, before it builds anything."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.meta.repository import ROOT

TOOLS = ("bash", "uname", "mktemp", "rm", "df", "awk", "dirname", "cat", "cksum", "env", "python3", "apt-get")


@pytest.fixture
def bare_path(tmp_path: Path) -> Path:
    """A PATH with the everyday tools and no compiler."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        if found is not None:
            (folder / tool).symlink_to(found)
    # A wrapper, because a link to a virtual environment's Python would not find its own packages.
    (folder / "python3").unlink(missing_ok=True)
    (folder / "python3").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (folder / "python3").chmod(0o755)
    return folder


def check(path: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHON", "CC", "CXX")}
    if path is not None:
        inherited["PATH"] = str(path)
    command = [str(ROOT / "scripts" / "setup"), "--check"]
    return subprocess.run(command, env=inherited | environment, capture_output=True, text=True, timeout=60, check=False)


def test_a_complete_machine_lacks_nothing() -> None:
    done = check()
    assert done.returncode == 0, done.stderr
    assert "nothing is missing" in done.stdout


def test_without_a_compiler_everything_missing_is_named_at_once(bare_path: Path) -> None:
    done = check(bare_path)
    assert done.returncode == 1
    for text in ("a C compiler", "a C++17 compiler", "gmp.h", "mend:"):
        assert text in done.stderr
    assert done.stdout == ""


def test_a_compiler_that_does_not_work_is_as_good_as_none() -> None:
    done = check(CXX="false")
    assert done.returncode == 1
    assert "false does not build a C++17 program" in done.stderr
    assert "a C compiler" not in done.stderr


def test_an_old_or_absent_python_is_named(tmp_path: Path) -> None:
    old = tmp_path / "old-python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = check(PYTHON=str(old))
    assert done.returncode == 1
    assert "Python 3.11 or newer" in done.stderr
    assert str(old) in done.stderr
