"""One market for the clients that people really use, run as programs of their own: no test here imports one.

A test starts a client with `Endpoint.start`, in whichever environment has it. It finds endpoint and key where it would at a
user's: in OPENAI_BASE_URL and OPENAI_API_KEY.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from ryvion_node.engine.scripted import VARIABLE
from ryvion_node.keys import NO_BUDGETS
from tests.e2e.live import LiveMarket, live_market

collect_ignore = ["suites"]
"""These run in other environments, and their conftest.py closes every way but loopback's to the process it is read in."""
KEEP_ALIVE_S = 0.5
CLIENT_S = 240.0
"""No client takes longer for all that it does here, on a busy machine either."""


@dataclass(slots=True)
class Client:
    """A client's program that runs."""

    process: subprocess.Popen[bytes]
    log: Path

    def finish(self) -> str:
        """Wait until it is through and return what it wrote; fails with that when the client did."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(CLIENT_S)
        self.stop()
        said = self.log.read_text("utf-8", "replace")
        assert self.process.returncode == 0, f"the client ended with {self.process.returncode}:\n{said}"
        return said

    def stop(self) -> None:
        """End it if it still runs."""
        self.process.kill()
        self.process.wait()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where clients are pointed at, with keys that have no limit."""

    folder: Path
    """For what clients write."""
    url: str
    """Ends in /v1."""
    api_key: str
    """Of the scope buyer."""
    read_only_key: str

    def start(self, command: Sequence[str | Path], **environment: str) -> Client:
        """Start a client with `environment` added to a bare one: nothing of ours, and no proxy, but the endpoint."""
        home = Path(tempfile.mkdtemp(dir=self.folder))
        log = home / "output.txt"
        variables = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "OPENAI_BASE_URL": self.url,
            "OPENAI_API_KEY": self.api_key,
            "READ_ONLY_KEY": self.read_only_key,
        }
        with log.open("wb") as output:
            process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=variables | environment,
            )
        return Client(process, log)


@pytest.fixture(scope="session")
def client_market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveMarket]:
    """A seller of scripted models, one of the bundled chat and embedding models, and a buyer."""
    folder = tmp_path_factory.mktemp("clients")
    config = folder / "node.toml"
    config.write_text(f"[proxy]\nkeep_alive_s = {KEEP_ALIVE_S}\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patched, live_market(folder) as market:
        patched.setenv(VARIABLE, "1")
        prices = ("--jurisdiction", "DE", "--price-in", "0.05", "--price-out", "0.2")
        market.start("mocks", "--engine", "scripted", *prices, "--config", str(config)).wait_until_ready()
        market.sell("real", "DE", "0.05", "ryvion-tiny", "ryvion-embed-tiny")
        market.buy("buyer", "--config", str(config))
        market.ready(offers=2)
        yield market


@pytest.fixture(scope="session")
def endpoint(client_market: LiveMarket) -> Endpoint:
    """The buyer's endpoint: mock models of the scripted engine, ryvion-tiny and ryvion-embed-tiny are on offer."""
    return Endpoint(
        folder=client_market.folder,
        url=client_market.endpoint,
        api_key=client_market.key("buyer", limits=NO_BUDGETS),
        read_only_key=client_market.key("read-only"),
    )
