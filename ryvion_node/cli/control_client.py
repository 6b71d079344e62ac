"""Talking to the node that runs on this machine, through its control API on loopback."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from ryvion_node.errors import EXIT_DATA, EXIT_UNAVAILABLE, OperatorError
from ryvion_node.paths import FileMissing, Paths, read_private_file

ANSWER_LIMIT_BYTES = 16 * 1024 * 1024
"""A full book of offers is a few MB; more is not an answer of ours."""
TIMEOUT_S = 15.0
"""A quote round takes well under a second; a busy machine gets the rest."""


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


def call_node(paths: Paths, method: str, path: str, body: Mapping[str, object] | None = None) -> object:
    """One request to the running node; returns the decoded answer, raises OperatorError otherwise.

    Plain http.client: it starts fast and never asks a proxy.
    """
    address = read_control_address(paths)
    host = urlsplit(address.url)
    connection = http.client.HTTPConnection(host.hostname or "127.0.0.1", host.port, timeout=TIMEOUT_S)
    headers = {"Authorization": f"Bearer {address.token}", "Content-Type": "application/json"}
    try:
        connection.request(
            method, host.path.rstrip("/") + path, json.dumps(body) if body is not None else None, headers
        )
        response = connection.getresponse()
        status, data = response.status, response.read(ANSWER_LIMIT_BYTES)
        answer: object = json.loads(data)
    except (OSError, http.client.HTTPException, ValueError) as exc:
        raise NodeDoesNotAnswer(home=paths.home, url=address.url, reason=str(exc) or type(exc).__name__) from exc
    finally:
        connection.close()
    if status >= 400:
        raise NodeRefused(message=_error_message(answer, status))
    return answer


def _error_message(answer: object, status: int) -> str:
    match answer:
        case {"error": {"message": str(message)}}:
            return message
    return f"the node answered with HTTP status {status}"
