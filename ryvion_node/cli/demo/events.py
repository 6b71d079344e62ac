"""What happens in the demo, as values. `--json` prints each as one line: its name under `event`, then its fields.

Everything in them was said by a node, by the endpoint or by the OpenAI client; the demo only measures time.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class NodeStarting:
    """A node's process was started."""

    name: str
    role: str
    command: tuple[str, ...]
    pid: int


@dataclass(frozen=True, slots=True)
class NodeReady:
    """A node says that it is ready."""

    name: str
    peer_id: str
    node_key: str
    listening: tuple[str, ...]
    endpoint: str | None
    after_ms: int


@dataclass(frozen=True, slots=True)
class OfferHeard:
    """The requester's book has a signed offer (as /api/v1/offers has it)."""

    node: str
    offer: dict[str, Any]


@dataclass(frozen=True, slots=True)
class RequestSent:
    """A chat completion was asked for with the OpenAI client."""

    number: int
    model: str
    prompt: str
    jurisdiction: str | None


@dataclass(frozen=True, slots=True)
class Bid:
    """A candidate of the decision: what it bid, or why it fell out (`ryvion.route` of the first chunk)."""

    node: str
    candidate: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Winner:
    """Who got the job, and why."""

    node: str
    node_key: str
    gpu: str
    jurisdiction: str
    location: str
    explanation: str
    decided_ms: int


@dataclass(frozen=True, slots=True)
class TextReceived:
    """A piece of the answer arrived."""

    text: str
    after_ms: int


@dataclass(frozen=True, slots=True)
class ReceiptReceived:
    """The signed RYV1 receipt (`ryvion.receipt` of the last chunk)."""

    receipt: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Checked:
    """One of the requester's own checks of the finished job."""

    name: str
    outcome: str
    detail: str


@dataclass(frozen=True, slots=True)
class Settled:
    """What the job cost (micro-credits), and how fast it was as the client saw it."""

    accepted: bool
    cost: int
    prompt_tokens: int
    completion_tokens: int
    first_token_ms: int
    tokens_per_s: float | None
    """After the first piece; None when there was only one."""
    finish_reason: str


@dataclass(frozen=True, slots=True)
class RequestRefused:
    """The endpoint answered with an error."""

    status: int
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class ReceiptVerified:
    """`receipts verify` looked at the exported file, offline."""

    file: str
    exit_code: int
    verdicts: tuple[dict[str, Any], ...]
    error: str
    """What the command said on stderr when it failed."""


@dataclass(frozen=True, slots=True)
class NetworkKept:
    """--keep: the network goes on running until Ctrl-C."""

    endpoint: str
    api_key: str
    model: str
    home: str


@dataclass(frozen=True, slots=True)
class NodeStopped:
    """A node's process ended; negative exit codes are signals."""

    name: str
    exit_code: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event: did everything happen as it should?"""

    ok: bool
    problems: tuple[str, ...]
    duration_ms: int


DemoEvent = (
    NodeStarting
    | NodeReady
    | OfferHeard
    | RequestSent
    | Bid
    | Winner
    | TextReceived
    | ReceiptReceived
    | Checked
    | Settled
    | RequestRefused
    | ReceiptVerified
    | NetworkKept
    | NodeStopped
    | Finished
)

EVENT_NAMES: dict[type[DemoEvent], str] = {
    NodeStarting: "node_starting",
    NodeReady: "node_ready",
    OfferHeard: "offer_heard",
    RequestSent: "request_sent",
    Bid: "bid",
    Winner: "winner",
    TextReceived: "text_received",
    ReceiptReceived: "receipt_received",
    Checked: "checked",
    Settled: "settled",
    RequestRefused: "request_refused",
    ReceiptVerified: "receipt_verified",
    NetworkKept: "network_kept",
    NodeStopped: "node_stopped",
    Finished: "finished",
}


def json_line(event: DemoEvent) -> str:
    """One line of `demo --json`."""
    values = {field.name: getattr(event, field.name) for field in fields(event)}
    return json.dumps({"event": EVENT_NAMES[type(event)], **values}, ensure_ascii=False)
