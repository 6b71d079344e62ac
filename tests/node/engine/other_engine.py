"""A second engine in a process of its own: llama-cpp-python's server, or a llama-server that the environment names."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal
from urllib.error import URLError

LLAMA_SERVER: Final = os.environ.get("RYVION_LLAMA_SERVER", "")
"""Path of a llama-server to test with as well; empty: none."""
KEY: Final = "sk-of-the-other-engine"
_START_S: Final = 60.0

Kind = Literal["llama-cpp-python", "llama-server"]
KINDS: Final[tuple[Kind, ...]] = ("llama-cpp-python", "llama-server") if LLAMA_SERVER else ("llama-cpp-python",)


@dataclass(slots=True)
class OtherEngine:
    """A server that can be killed and started again where it was."""

    kind: Kind
    command: Sequence[str]
    port: int
    log: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        """Returns once it lists its models."""
        with self.log.open("ab") as log:
            environment = {**os.environ, "LLAMA_API_KEY": KEY}
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        request = urllib.request.Request(f"{self.url}/models", headers={"Authorization": f"Bearer {KEY}"})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        deadline = time.monotonic() + _START_S
        while True:
            try:
                with opener.open(request, timeout=5):
                    return
            except (URLError, OSError):
                assert self.process.poll() is None, self.log.read_text()[-2000:]
                assert time.monotonic() < deadline, self.log.read_text()[-2000:]
                time.sleep(0.05)

    def kill(self) -> None:
        """As `kill -9` does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@contextmanager
def other_engine(
    kind: Kind, model: Path, folder: Path, *, slots: int = 2, context_tokens: int = 512
) -> Iterator[OtherEngine]:
    """A server of `model`, called `other`, that wants KEY."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    place = ["--host", "127.0.0.1", "--port", str(port), "--model", str(model)]
    if kind == "llama-server":
        sizes = ["--parallel", str(slots), "--ctx-size", str(slots * context_tokens), "--threads", "1"]
        command = [LLAMA_SERVER, *place, *sizes, "--alias", "other", "--api-key", KEY, "--jinja"]
    else:
        sizes = ["--n_ctx", str(context_tokens), "--n_threads", "1", "--interrupt_requests", "false"]
        command = [sys.executable, "-m", "llama_cpp.server", *place, *sizes, "--model_alias", "other", "--api_key", KEY]
    engine = OtherEngine(kind, command, port, folder / f"{kind}.log")
    engine.start()
    try:
        yield engine
    finally:
        engine.kill()
