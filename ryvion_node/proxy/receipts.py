"""What the endpoint needs of the ledger: the receipts of finished jobs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ryvion_node.proxy.answers import COMPLETION_PREFIX
from ryvion_node.proxy.idempotency import Purchases
from ryvion_protocol.checks import Check
from ryvion_protocol.messages import Receipt
from ryvion_protocol.receipt import receipt_to_json


@dataclass(frozen=True, slots=True)
class StoredReceipt:
    """A receipt with its evidence, as it was judged when it came."""

    receipt: Receipt
    cid: str
    envelope: dict[str, object]
    checks: tuple[Check, ...]
    accepted: bool
    cost: int
    """Micro-credits settled."""
    model: str
    created_ms: int
    completion_id: str
    """Empty for a job that was bought before completions had names of their own."""

    def to_json(self) -> dict[str, object]:
        """As the endpoint shows it."""
        return {
            "object": "ryvion.receipt",
            "cid": self.cid,
            "completion_id": self.completion_id or f"{COMPLETION_PREFIX}{self.receipt.job_id}",
            "job_id": self.receipt.job_id,
            "model": self.model,
            "created": self.created_ms // 1000,
            "receipt": receipt_to_json(self.receipt),
            "envelope": self.envelope,
            "checks": [{"name": c.name, "outcome": c.outcome, "detail": c.detail} for c in self.checks],
            "accepted": self.accepted,
            "cost_microcredits": self.cost,
        }


class ReceiptStore(Purchases, Protocol):
    """Finished jobs' receipts, durably kept."""

    async def of_completion(self, completion_id: str) -> tuple[StoredReceipt, ...]:
        """The receipts of all jobs of one answer, oldest first. `completion_id` is whatever a client sent."""
        ...

    async def by_cid(self, cid: str) -> StoredReceipt | None:
        """The receipt with this name. `cid` is whatever a client sent."""
        ...
