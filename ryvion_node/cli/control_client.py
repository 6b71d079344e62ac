"""Talking to the node that runs on this machine, through its control API on loopback."""

from __future__ import annotations

import contextlib
import http.client
import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from ryvion_node.cli.output import printable
from ryvion_node.errors import EXIT_DATA, EXIT_UNAVAILABLE, OperatorError
from ryvion_node.paths import FileMissing, Paths, read_private_file

ANSWER_LIMIT_BYTES = 16 * 1024 * 1024
"""A full book of offers is a few MB; more is not an answer of ours."""
TIMEOUT_S = 15.0
"""A quote round takes well under a second; a busy machine gets the rest."""
DISK_TIMEOUT_S = 120.0
"""For what the node writes or deletes on disk, where another program may hold the file for 30 s."""
PIECE_BYTES = 64 * 1024
"""Of a file, sent at once."""


class NodeNotRunning(OperatorError):
    """No node with an endpoint is running with home {home}. Start one with `ryvion-node up --proxy`, or name another
    with --home.
    """

    exit_code = EXIT_UNAVAILABLE


class NodeDoesNotAnswer(OperatorError):
    """The node with home {home} does not answer at {url} ({reason}). If it crashed, start it again with
    `ryvion-node up`.
    """

    exit_code = EXIT_UNAVAILABLE


class ControlFileBroken(OperatorError):
    """{path} is not what a running node writes there. Restart the node."""

    exit_code = EXIT_DATA


class NodeRefused(OperatorError):
    """{message}"""

    # `facts` has the HTTP `status` and the `code` of the error object besides.

    exit_code = EXIT_UNAVAILABLE


@dataclass(frozen=True, slots=True)
class ControlAddress:
    """Where the control API of a running node is, and the token it wants."""

    url: str
    token: str


def read_control_address(paths: Paths) -> ControlAddress:
    """Read what the running node wrote; raises NodeNotRunning or ControlFileBroken."""
    path = paths.control_file
    try:
        found = json.loads(read_private_file(path, limit_bytes=4096))
    except FileMissing as exc:
        raise NodeNotRunning(home=paths.home) from exc
    except ValueError as exc:
        raise ControlFileBroken(path=path) from exc
    match found:
        case {"url": str(url), "token": str(token)}:
            return ControlAddress(url, token)
    raise ControlFileBroken(path=path)


def call_node(
    paths: Paths, method: str, path: str, body: Mapping[str, object] | None = None, timeout_s: float = TIMEOUT_S
) -> object:
    """One request to the running node; returns the decoded answer, raises OperatorError otherwise."""
    data = None if body is None else json.dumps(body).encode()
    return _exchange(paths, method, path, data, {"Content-Type": "application/json"}, timeout_s)


def send_file(paths: Paths, path: str, filename: str, data: bytes, on_sent: Callable[[int], None]) -> object:
    """POST a file as multipart/form-data (RFC 7578); `on_sent` gets the number of bytes of each piece.

    Raises as `call_node` does.
    """
    boundary = secrets.token_hex(16)
    label = printable(filename).replace("\\", "\\\\").replace('"', '\\"')
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{label}"\r\n\r\n'.encode()
    tail = f"\r\n--{boundary}--\r\n".encode()

    def pieces() -> Iterator[bytes]:
        yield head
        for start in range(0, len(data), PIECE_BYTES):
            piece = data[start : start + PIECE_BYTES]
            yield piece
            on_sent(len(piece))
        yield tail

    headers = {
        "Content-Type": f"multipart/form-data; boundary={boundary}",
        "Content-Length": str(len(head) + len(data) + len(tail)),
    }
    return _exchange(paths, "POST", path, pieces(), headers, DISK_TIMEOUT_S)


def _exchange(
    paths: Paths,
    method: str,
    path: str,
    body: bytes | Iterator[bytes] | None,
    headers: Mapping[str, str],
    timeout_s: float,
) -> object:
    """Plain http.client: it starts fast and never asks a proxy."""
    address = read_control_address(paths)
    host = urlsplit(address.url)
    connection = http.client.HTTPConnection(host.hostname or "127.0.0.1", host.port, timeout=timeout_s)
    try:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused before all was sent: it says why
            connection.request(
                method, host.path.rstrip("/") + path, body, {**headers, "Authorization": f"Bearer {address.token}"}
            )
        response = connection.getresponse()
        status, data = response.status, response.read(ANSWER_LIMIT_BYTES)
        answer: object = json.loads(data)
    except (OSError, http.client.HTTPException, ValueError) as exc:
        raise NodeDoesNotAnswer(home=paths.home, url=address.url, reason=str(exc) or type(exc).__name__) from exc
    finally:
        connection.close()
    if status >= 400:
        message, code = _error_of(answer, status)
        raise NodeRefused(message=message, status=status, code=code)
    return answer


def _error_of(answer: object, status: int) -> tuple[str, str]:
    match answer:
        case {"error": {"message": str(message), **rest}}:
            return message, str(rest.get("code"))
    return f"the node answered with HTTP status {status}", ""
