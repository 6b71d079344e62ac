"""curl, as people try an endpoint with it: whole and streamed, what is refused, and HTTP's older and newer ways."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.clients.conftest import Endpoint

ABOUT: Final = subprocess.run(["curl", "-V"], capture_output=True, text=True).stdout if shutil.which("curl") else ""
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(120),
    pytest.mark.skipif(not ABOUT, reason="curl is not installed"),
]

WORDS: Final = "the quick brown fox jumps over  the lazy dog"
CHAT: Final = {"model": "mock-echo", "messages": [{"role": "user", "content": WORDS}]}
JSON: Final = ("-H", "Content-Type: application/json")
TOO_LARGE: Final = 2 * 1024 * 1024
_HEAD: Final = re.compile(r"HTTP/1\.[01] (\d{3}) .*?\n\n", re.DOTALL)
_LEFT: Final = re.compile(r"<(\d+)>\n")


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request of a curl got."""

    status: int
    head: str
    body: str
    connects: int
    """Connections that curl opened for it."""

    @property
    def error(self) -> dict[str, Any]:
        error = json.loads(self.body)["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert isinstance(error, dict)
        return error

    @property
    def text(self) -> str:
        """Of the chat's answer, whole or streamed."""
        if not self.body.startswith("data: "):
            return str(json.loads(self.body)["choices"][0]["message"]["content"])
        events = self.body.split("\n\n")
        assert events[-2:] == ["data: [DONE]", ""]
        chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
        return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)


def curl(endpoint: Endpoint, *requests: tuple[str, ...]) -> list[Answer]:
    """Run one curl; each request is its flags and, last, a path below /v1."""
    command = ["curl"]
    for *flags, path in requests:
        command += ["--next", "-q", "-sSi", "-m", "30", "-w", "<%{num_connects}>\n", *flags, f"{endpoint.url}{path}"]
    parts = _LEFT.split(endpoint.start(command).finish().replace("\r\n", "\n"))
    return [_answer(said, int(connects)) for said, connects in zip(parts[:-1:2], parts[1::2], strict=True)]


def _answer(said: str, connects: int) -> Answer:
    """The last answer of those that came: 100 Continue is one, too."""
    *_, last = _HEAD.finditer(said)
    return Answer(int(last[1]), last[0], said[last.end() :], connects)


def chat(endpoint: Endpoint, *flags: str, **changes: object) -> tuple[str, ...]:
    key = ("-H", f"Authorization: Bearer {endpoint.api_key}")
    return (*key, *JSON, "-d", json.dumps(CHAT | changes), *flags, "/chat/completions")


@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("--http1.0",),
        pytest.param(("--http2",), marks=pytest.mark.skipif("HTTP2" not in ABOUT, reason="this curl has no HTTP/2")),
        ("-H", "Transfer-Encoding: chunked"),
        ("-H", "Expect: 100-continue"),
        ("--compressed",),
    ],
    ids=" ".join,
)
def test_a_chat_is_answered_whole_and_streamed_on_one_connection(endpoint: Endpoint, flags: tuple[str, ...]) -> None:
    whole, streamed = curl(endpoint, chat(endpoint, *flags), chat(endpoint, "-N", *flags, stream=True))
    for answer in (whole, streamed):
        assert (answer.status, answer.text) == (200, WORDS)
        assert "content-encoding" not in answer.head
    assert [whole.connects, streamed.connects] == ([1, 1] if "--http1.0" in flags else [1, 0])


@pytest.mark.parametrize(
    ("flags", "path", "status", "code"),
    [
        (("-H", "Authorization: Bearer wrong"), "/models", 401, "invalid_api_key"),
        ((), "/nothing", 404, "unknown_url"),
        (("-X", "DELETE"), "/models", 405, "method_not_allowed"),
        (("-d", json.dumps(CHAT)), "/chat/completions", 415, "unsupported_media_type"),
        ((*JSON, "-d", '{"model": '), "/chat/completions", 400, "invalid_json"),
        ((*JSON, "-d", "{}"), "/chat/completions", 400, "missing_required_parameter"),
        (("-H", "Host: rebound.example"), "/models", 403, "host_not_allowed"),
        (("-X", "OPTIONS", "-H", "Origin: http://page.example"), "/models", 403, "origin_not_allowed"),
    ],
)
def test_what_is_refused_is_an_error_object_and_the_connection_goes_on(
    endpoint: Endpoint, flags: tuple[str, ...], path: str, status: int, code: str
) -> None:
    key = () if "Authorization" in str(flags) else ("-H", f"Authorization: Bearer {endpoint.api_key}")
    refused, after = curl(endpoint, (*key, *flags, path), (*key, "/models"))
    assert (refused.status, refused.error["code"]) == (status, code)
    assert "x-request-id: req_" in refused.head
    assert after.connects == 0


@pytest.mark.parametrize("way", ["", "Expect:", "Transfer-Encoding: chunked"])
def test_a_body_that_is_too_large_is_told_so_and_not_cut_off(endpoint: Endpoint, tmp_path: Path, way: str) -> None:
    body = tmp_path / "body.json"
    body.write_bytes(b" " * TOO_LARGE)
    key = ("-H", f"Authorization: Bearer {endpoint.api_key}")
    flags = ("-H", way) if way else ()
    (answer,) = curl(endpoint, (*key, *JSON, *flags, "--data-binary", f"@{body}", "/chat/completions"))
    assert (answer.status, answer.error["code"]) == (413, "request_too_large")


def test_a_head_is_asked_for_alone(endpoint: Endpoint) -> None:
    key = ("-H", f"Authorization: Bearer {endpoint.api_key}")
    head, whole = curl(endpoint, (*key, "-I", "/models"), (*key, "/models"))
    assert (head.status, head.body) == (200, "")
    assert f"content-length: {len(whole.body.encode())}" in head.head
    assert whole.connects == 0


def test_http_2_without_asking_is_refused_and_the_endpoint_goes_on(endpoint: Endpoint) -> None:
    command = ["sh", "-c", '! "$@"', "sh", "curl", "-q", "-sS", "--http2-prior-knowledge", f"{endpoint.url}/models"]
    assert "curl: (" in endpoint.start(command).finish()
    (answer,) = curl(endpoint, chat(endpoint))
    assert answer.text == WORDS
