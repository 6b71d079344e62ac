"""The endpoint's view of the node's own stores: receipts from the ledger, keys from the key file."""

from __future__ import annotations

import hmac

from ryvion_node.keys import OWNER, ApiKey, KeyStore
from ryvion_node.ledger.interface import LedgerReader
from ryvion_node.ledger.records import ReceiptDetail
from ryvion_node.proxy.access import Caller
from ryvion_node.proxy.answers import job_named_by
from ryvion_node.proxy.idempotency import Progress
from ryvion_node.proxy.receipts import StoredReceipt
from ryvion_protocol.exported import export_envelope
from ryvion_protocol.messages import Receipt
from ryvion_protocol.packet import unpack


class NodeKeys:
    """Implements `Keys`: the key file, and the token that the running node wrote for its own command line."""

    def __init__(self, store: KeyStore, control_token: str) -> None:
        self._store = store
        self._control_token = control_token.encode()

    async def authenticate(self, token: str) -> Caller | None:
        """The key that `token` is; None when it is none."""
        if hmac.compare_digest(token.encode(), self._control_token):
            return OWNER
        key: ApiKey | None = self._store.authenticate(token)
        return key


class LedgerReceipts:
    """Implements `ReceiptStore`: bought jobs and their receipts."""

    def __init__(self, ledger: LedgerReader) -> None:
        self._ledger = ledger

    async def of_completion(self, completion_id: str) -> tuple[StoredReceipt, ...]:
        """The receipts of all jobs of one answer, oldest first."""
        jobs = await self._ledger.by_completion_id(completion_id)
        named = job_named_by(completion_id)
        only = None if jobs or named is None else await self._ledger.job(named, "bought")
        found = [await self.by_cid(job.receipt_cid) for job in (*jobs, only) if job is not None and job.receipt_cid]
        return tuple(receipt for receipt in found if receipt is not None)

    async def progress(self, completion_id: str) -> Progress:
        """What came of a completion so far."""
        jobs = await self._ledger.by_completion_id(completion_id)
        if any(job.state == "running" for job in jobs):
            return "running"
        if any(job.cost_microcredits for job in jobs):
            return "paid"
        return "free" if any(job.receipt_cid for job in jobs) else "nothing"

    async def by_cid(self, cid: str) -> StoredReceipt | None:
        """The receipt with this name."""
        detail = await self._ledger.receipt(cid)
        return None if detail is None else _stored(detail)


def _stored(detail: ReceiptDetail) -> StoredReceipt | None:
    receipt_packet, envelope = detail.packet("receipt"), detail.packet("envelope")
    if receipt_packet is None or envelope is None:
        return None
    receipt = unpack(receipt_packet, (Receipt,)).message
    assert isinstance(receipt, Receipt)
    job = detail.record.job
    return StoredReceipt(
        receipt=receipt,
        cid=job.receipt_cid,
        envelope=export_envelope(envelope),
        checks=detail.checks,
        accepted=job.state == "accepted",
        cost=job.cost_microcredits,
        model=job.model,
        created_ms=job.created_ms,
        completion_id=job.completion_id,
    )
