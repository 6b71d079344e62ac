"""A control API that answers what a test tells it to, on a real loopback socket."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

TOKEN = "control-token"
Answer = tuple[int, object]


@dataclass(slots=True)
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    token: str
    body: Any


@dataclass(slots=True)
class ControlFake:
    """Path, or method and path -> (status, answer), or several of them in turn, the last of which stays; `asked`
    collects the requests.
    """

    answers: Mapping[str, Answer | list[Answer]]
    asked: list[Asked] = field(default_factory=list)

    def answer(self, method: str, path: str) -> Answer:
        found = self.answers[f"{method} {path}" if f"{method} {path}" in self.answers else path]
        if isinstance(found, tuple):
            return found
        return found[0] if len(found) == 1 else found.pop(0)


@contextmanager
def serve_control(home: Path, answers: Mapping[str, Answer | list[Answer]]) -> Iterator[ControlFake]:
    """Serve `answers` and write the control file that a running node would write."""
    fake = ControlFake(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def do_DELETE(self) -> None:
            self._answer()

        def _answer(self) -> None:
            data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            token = self.headers.get("Authorization", "")
            is_json = data and self.headers.get("Content-Type") == "application/json"
            fake.asked.append(Asked(self.command, self.path, token, json.loads(data) if is_json else data or None))
            status, answer = fake.answer(self.command, self.path)
            body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    control_file = home / "control.json"
    control_file.touch(mode=0o600)
    control_file.write_text(json.dumps({"url": f"http://127.0.0.1:{server.server_port}", "token": TOKEN}))
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
