"""What goes into the ledger and what comes out, as plain values.

Money is in micro-credits, times are Unix milliseconds, packets are the raw bytes as they were sent or received.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from ryvion_node.ledger.spending import UNLIMITED, Allowance
from ryvion_protocol.checks import Check
from ryvion_protocol.schema import JobId, NodeKey

Side = Literal["bought", "sold"]
"""Our part in a job. The same job can be there twice when one home plays both parts."""

JobState = Literal["running", "delivered", "accepted", "disputed", "failed", "interrupted"]
"""running -> delivered (sold: receipt committed) -> accepted | disputed (the requester's verdict);
running -> accepted | disputed (bought: settled in one step); running -> failed | interrupted (we crashed)."""

EvidenceKind = Literal["quote", "job_offer", "finished", "receipt", "envelope", "acceptance", "error"]

NO_ENVELOPE: Final = bytes(32)
"""What the first envelope of a pair names as the previous one."""

MAX_MESSAGE_CHARACTERS: Final = 512
"""A failure's sentence is cut here, as on the wire."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """One packet to keep."""

    kind: EvidenceKind
    packet: bytes


@dataclass(frozen=True, slots=True)
class JobBegun:
    """A job that both sides agreed on; written before it runs."""

    job_id: JobId
    side: Side
    executor_key: NodeKey
    requester_key: NodeKey
    model: str
    digest: bytes
    jurisdiction: str
    quote: bytes
    job_offer: bytes
    completion_id: str = ""
    """Bought: the endpoint's id of the completion, shared by all jobs that a failover made of it."""
    key_id: str = ""
    """Bought: id of the API key that asked for it."""
    max_price: int = 0
    """Bought: the most that it may cost."""
    allowance: Allowance = UNLIMITED
    """Bought: of that key. Checked when the job is begun, not kept."""


@dataclass(frozen=True, slots=True)
class SoldResult:
    """What an executor commits before it sends it."""

    job_id: JobId
    prompt_units: int
    completion_units: int
    cost_microcredits: int
    finished: bytes
    receipt: bytes
    receipt_cid: str
    envelope: bytes
    envelope_hash: bytes
    previous_envelope: bytes
    """Must still be the pair's last envelope hash when this is written, else the chain would fork."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """A requester's verdict on a finished job, with all it rests on. A disputed job costs 0."""

    job_id: JobId
    prompt_units: int
    completion_units: int
    cost_microcredits: int
    finished: bytes
    receipt: bytes
    receipt_cid: str
    envelope: bytes
    envelope_hash: bytes
    acceptance: bytes
    accepted: bool
    reason: str
    """Empty when accepted; else the first check that failed."""
    checks: tuple[Check, ...]


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job as it stands."""

    job_id: JobId
    side: Side
    executor_key: NodeKey
    requester_key: NodeKey
    model: str
    digest: bytes
    jurisdiction: str
    state: JobState
    prompt_units: int
    completion_units: int
    cost_microcredits: int
    created_ms: int
    finished_ms: int | None
    failure_code: str
    """Of a failed job; of a disputed one the check that failed."""
    failure_message: str
    receipt_cid: str
    """Empty while there is no receipt."""
    completion_id: str
    key_id: str

    @property
    def peer_key(self) -> NodeKey:
        """The other side."""
        return self.executor_key if self.side == "bought" else self.requester_key


@dataclass(frozen=True, slots=True)
class EvidenceRecord:
    """A packet that was kept, and when."""

    kind: EvidenceKind
    packet: bytes
    at_ms: int


@dataclass(frozen=True, slots=True)
class ReceiptRecord:
    """A line of the receipts' list; `position` is the cursor for the next page."""

    position: int
    at_ms: int
    job: JobRecord


@dataclass(frozen=True, slots=True)
class ReceiptDetail:
    """A receipt with everything that belongs to it."""

    record: ReceiptRecord
    evidence: tuple[EvidenceRecord, ...]
    checks: tuple[Check, ...]

    def packet(self, kind: EvidenceKind) -> bytes | None:
        """The raw packet of that kind, or None."""
        return next((item.packet for item in self.evidence if item.kind == kind), None)


@dataclass(frozen=True, slots=True)
class Totals:
    """Money and work since some time, by when jobs finished. Disputed and failed jobs count nothing."""

    earned_microcredits: int
    """Sold and accepted by the buyer."""
    unconfirmed_microcredits: int
    """Sold and delivered, but no verdict came back."""
    spent_microcredits: int
    jobs_sold: int
    jobs_bought: int
    units_sold: int
    units_bought: int
