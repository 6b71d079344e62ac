"""The npm packages of OpenAI and of the AI SDK, two majors of each, do what they do elsewhere; the tests are theirs."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.clients.conftest import Client, Endpoint

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

ENVIRONMENT: Final = Path(__file__).resolve().parents[2] / ".venvs" / "node"
LOWEST_NODE: Final = 20
"""The AI SDK asks for 22 and runs on it; older ones lack what the tests are written with."""
PROGRAMS: Final = {
    "openai6": "npm_openai.mjs",
    "openai7": "npm_openai.mjs",
    "ai6": "ai_sdk.mjs",
    "ai7": "ai_sdk.mjs",
}


def missing() -> str:
    """Why these tests cannot run here; empty: they can."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return "Node and npm are not installed"
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, timeout=30, check=True).stdout
    found = re.match(r"v(\d+)\.", version)
    if found is None or int(found[1]) < LOWEST_NODE:
        return f"Node {LOWEST_NODE} or newer is needed, here is {version.strip()}"
    if not (ENVIRONMENT / ".locked").exists():
        return f"scripts/client_envs did not install the npm packages; see {ENVIRONMENT / 'setup.log'}"
    return ""


@pytest.fixture(scope="module")
def running(endpoint: Endpoint) -> Iterator[dict[str, Client]]:
    """All of them at once: most of their time is waiting."""
    if reason := missing():
        pytest.skip(reason)
    # Links are kept as they are, so that packages are looked for beside the link and not beside our source.
    node = ("node", "--preserve-symlinks", "--preserve-symlinks-main")
    clients = {
        name: endpoint.start([*node, ENVIRONMENT / "tests" / "suites" / program], CLIENT=name)
        for name, program in PROGRAMS.items()
    }
    yield clients
    for client in clients.values():
        client.stop()


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_npm_client_does_what_it_does_elsewhere(running: dict[str, Client], name: str) -> None:
    said = running[name].finish()
    assert "# fail 0\n" in said
    assert "# skipped 0\n" in said
