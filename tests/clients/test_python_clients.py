"""The Python clients: each one's own tests, in the environment that has it, against one live endpoint.

All start at once, because most of their time is waiting; each test here is one client's run. To run one by hand, see CONTRIBUTING.md.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.conftest import Client, Endpoint

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

SUITES = Path(__file__).resolve().parent / "suites"
OLDER = Path(__file__).resolve().parents[2] / ".venvs" / "clients" / "bin" / "python"
"""Has openai 2.x and what is built on it; Python's own environment has openai 3.x."""
OPENAI = ("openai_answers.py", "openai_failures.py")
LANGCHAIN = "not test_stream_time and (not FormatsByTools or structured_output)"
"""Without timing over recorded answers, and without what forced calls in place of formats do not change."""
RUNS = {
    "openai 3.x": (sys.executable, *OPENAI),
    "openai 2.x": (OLDER, *OPENAI),
    "LangChain": (OLDER, "langchain_standard.py", "-k", LANGCHAIN),
    "LiteLLM": (OLDER, "litellm_sdk.py"),
}
ENVIRONMENT = {
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # the package has a list of prices, and would fetch a newer one
}


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest, endpoint: Endpoint) -> Iterator[dict[str, Client]]:
    """Those that are asked for, by name."""
    if not OLDER.exists():
        pytest.fail("there is no .venvs/clients; make it with scripts/client_envs (make test does)")
    asked_for = {item.name for item in request.session.items}
    started: dict[str, Client] = {}
    try:
        for name, (python, *arguments) in RUNS.items():
            if f"test_client[{name}]" in asked_for:
                command = [python, "-m", "pytest", *[SUITES / a if a.endswith(".py") else a for a in arguments]]
                started[name] = endpoint.start(command, **ENVIRONMENT)
        yield started
    finally:
        for client in started.values():
            client.stop()


@pytest.mark.parametrize("name", RUNS)
def test_client(runs: dict[str, Client], name: str) -> None:
    runs[name].finish()


def test_the_two_environments_have_different_majors() -> None:
    versions = {
        re.search(r"openai-(\d+)\.", path.name)[1]  # type: ignore[index]
        for python in (OLDER, Path(sys.executable))
        for path in python.parents[1].glob("lib/python*/site-packages/openai-*.dist-info")
    }
    assert versions == {"2", "3"}
