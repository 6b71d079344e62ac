"""The demo's nodes: separate processes on loopback, each with a home of its own, all on free ports."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ryvion_node.errors import EXIT_UNAVAILABLE, OperatorError
from ryvion_node.paths import HOME_VARIABLE, Paths, make_private_folder, resolve_paths

READY_TIMEOUT_S = 60.0
"""Four nodes starting at once on two slow cores take about 20 s."""
STOP_TIMEOUT_S = 8.0
"""A node asked to stop withdraws its offers and ends its workers first; after that it is killed."""
LOG_TAIL_LINES = 15


class DemoNodeFailed(OperatorError):
    """The demo's node {name} {what}. The last line of its log: {last_line}"""

    exit_code = EXIT_UNAVAILABLE


@dataclass(frozen=True, slots=True)
class NodePlan:
    """A node of the demo: its name and role as shown, and its flags for `ryvion-node up`."""

    name: str
    role: str
    flags: tuple[str, ...]


class DemoNode:
    """One running `ryvion-node up`."""

    def __init__(self, plan: NodePlan, home: Path, bootstrap: str | None) -> None:
        make_private_folder(home)
        self.plan = plan
        self.paths: Paths = resolve_paths(home)
        self.log_file = home / "node.log"
        self.ready: dict[str, Any] = {}
        """The ready line, once it came."""
        self.started_at = time.monotonic()
        self.command = ("up", "--json", "--home", str(home), "--listen", "/ip4/127.0.0.1/tcp/0", *plan.flags)
        if bootstrap is not None:
            self.command += ("--bootstrap", bootstrap)
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ryvion_node", *self.command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env={name: value for name, value in os.environ.items() if name != HOME_VARIABLE},
                start_new_session=True,  # Ctrl-C reaches the demo alone, which then stops its nodes in order
            )

    def wait_until_ready(self) -> None:
        """Read the ready line, once; raises DemoNodeFailed when the process ends or takes too long."""
        if self.ready:
            return
        assert self.process.stdout is not None
        overdue = threading.Timer(READY_TIMEOUT_S, self.process.kill)
        overdue.start()
        try:
            line = self.process.stdout.readline()
        finally:
            overdue.cancel()
        try:
            self.ready = json.loads(line)
        except ValueError as exc:
            raise self.failure(f"did not become ready within {READY_TIMEOUT_S:.0f} s, or ended") from exc

    @property
    def address(self) -> str:
        """A multiaddr that other nodes can bootstrap from."""
        return str(self.ready["listening"][0])

    @property
    def node_key(self) -> str:
        return str(self.ready["node_key"])

    def failure(self, what: str) -> DemoNodeFailed:
        """The error that says `what` happened, with the node's last words."""
        return DemoNodeFailed(name=self.plan.name, what=what, last_line=self.log_tail().rpartition("\n")[2].strip())

    def log_tail(self) -> str:
        """The last lines the node wrote to stderr."""
        lines = self.log_file.read_text("utf-8", "replace").splitlines()
        return "\n".join(f"    {line}" for line in lines[-LOG_TAIL_LINES:]) or "    (empty)"

    def ask_to_stop(self) -> None:
        """SIGTERM, when it still runs."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def wait_until_stopped(self, deadline: float) -> int:
        """Wait until `deadline` (monotonic), then kill; returns the exit code."""
        try:
            return self.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()
        finally:
            if self.process.stdout is not None:
                self.process.stdout.close()


def stop_all(nodes: list[DemoNode]) -> list[tuple[str, int]]:
    """Ask all to stop at once, kill those that do not; returns (name, exit code) in the order they were started."""
    for node in nodes:
        node.ask_to_stop()
    deadline = time.monotonic() + STOP_TIMEOUT_S
    return [(node.plan.name, node.wait_until_stopped(deadline)) for node in nodes]
