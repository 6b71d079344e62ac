"""A server on loopback that plays the model hub: metadata by HEAD, bytes by GET with ranges, and trouble on demand."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

REVISION: Final = "a1" * 20
_PATH: Final = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


@dataclass(slots=True)
class FakeHub:
    """What the server has, how it misbehaves, and what it was asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    """`owner/name/file` -> content."""
    says_sha256: dict[str, str] = field(default_factory=dict)
    """Names another SHA-256 than the content has; empty: a file whose hash the hub does not say."""
    says_size: dict[str, int] = field(default_factory=dict)
    break_after: list[int] = field(default_factory=list)
    """The next transfers end after so many bytes, one after the other."""
    knows_ranges: bool = True
    status: int = 0
    """Answer everything with this status, and the reason below in a header."""
    error_code: str = "EntryNotFound"
    redirect_to: str = ""
    """Another server that has the bytes, as the public hub does it."""
    tokens: list[str] = field(default_factory=list)
    """The Authorization header of each request, in order; empty for none."""
    transfers: list[str] = field(default_factory=list)
    """The Range header of each GET, in order."""
    sent_bytes: int = 0
    endpoint: str = ""


@contextmanager
def fake_hub(**files: bytes) -> Iterator[FakeHub]:
    """A hub that runs until the block ends."""
    hub = FakeHub(files=dict(files))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            found = self._find()
            if found is not None:
                path, content = found
                self.send_response(200)
                self._describe(path, content)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()

        def do_GET(self) -> None:
            hub.transfers.append(self.headers.get("Range", ""))
            found = self._find()
            if found is None:
                return
            path, content = found
            first, last = 0, len(content) - 1
            span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            if span and hub.knows_ranges:
                first, last = int(span[1]), min(int(span[2] or last), last)
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
            else:
                self.send_response(200)
            body = content[first : last + 1]
            self._describe(path, content)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if hub.break_after:
                body = body[: hub.break_after.pop(0)]
                self.close_connection = True
            hub.sent_bytes += len(body)
            self.wfile.write(body)

        def _find(self) -> tuple[str, bytes] | None:
            hub.tokens.append(self.headers.get("Authorization", ""))
            asked = _PATH.fullmatch(self.path)
            path = f"{asked[1]}/{asked[3]}" if asked and asked[2] in ("main", REVISION) else ""
            if hub.status or path not in hub.files:
                self.send_response(hub.status or 404)
                self.send_header("X-Error-Code", hub.error_code)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return None
            if hub.redirect_to:
                self.send_response(302)
                self._describe(path, hub.files[path])
                self.send_header("Location", hub.redirect_to + self.path)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return None
            return path, hub.files[path]

        def _describe(self, path: str, content: bytes) -> None:
            sha256 = hub.says_sha256.get(path, hashlib.sha256(content).hexdigest())
            self.send_header("X-Repo-Commit", REVISION)
            self.send_header("ETag", f'"{sha256 or "e" * 40}"')
            if sha256:
                self.send_header("X-Linked-Etag", f'"{sha256}"')
            self.send_header("X-Linked-Size", str(hub.says_size.get(path, len(content))))

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
