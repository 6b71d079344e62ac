"""Nodes that cannot start say what is wrong and how to mend it, and leave with an exit code."""

from __future__ import annotations

import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e.conftest import MODEL
from tests.e2e.live import live_market

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


def up(home: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Start a node that is expected to give up at once."""
    command = [sys.executable, "-m", "ryvion_node", "up", "--home", str(home), "--listen", "/ip4/127.0.0.1/tcp/0"]
    return subprocess.run([*command, *flags], capture_output=True, text=True, timeout=90, check=False)


def refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr, result.stderr[-2000:]


def test_missing_gguf(tmp_path: Path) -> None:
    refused(up(tmp_path / "home", "--serve", f"x={tmp_path}/none.gguf", "--jurisdiction", "DE"), "none.gguf")


def test_corrupt_gguf(tmp_path: Path) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF" + b"\xff" * 200)
    refused(up(tmp_path / "home", "--serve", f"x={bad}", "--jurisdiction", "DE"), "bad.gguf")


def test_model_that_does_not_come_with_the_node(tmp_path: Path) -> None:
    refused(up(tmp_path / "home", "--serve", "phi-4", "--jurisdiction", "DE"), "phi-4", "ryvion-tiny", "NAME=/path")


def test_seller_that_does_not_say_where_it_is(tmp_path: Path) -> None:
    refused(up(tmp_path / "home", "--serve", MODEL), "--jurisdiction")


@pytest.mark.parametrize("flags", [("--listen", "/ip4/127.0.0.1/tcp/{port}"), ("--proxy", "--proxy-port", "{port}")])
def test_port_taken(tmp_path: Path, flags: tuple[str, ...]) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        refused(up(tmp_path / "home", *(flag.format(port=port) for flag in flags)), str(port), "taken")


def test_key_file_that_others_may_read(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    key = home / "identity.key"
    key.write_bytes(b"\x01" * 32)
    key.chmod(0o644)
    refused(up(home), "identity.key", "chmod 600")


def test_two_nodes_on_one_home(tmp_path: Path) -> None:
    with live_market(tmp_path) as market:
        market.start("first").wait_until_ready()
        refused(up(tmp_path / "first"), "in use", "--home")


def test_ledger_from_a_newer_version(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    with closing(sqlite3.connect(home / "ledger.sqlite3")) as database:
        database.execute("PRAGMA user_version = 9999")
        database.commit()
    (home / "ledger.sqlite3").chmod(0o600)
    refused(up(home), "newer version")
