"""The endpoint's view of the node's own stores: receipts from the ledger, keys from the key file."""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from ryvion_node.keys import ApiKey, KeyStore
from ryvion_node.ledger.interface import LedgerReader
from ryvion_node.ledger.records import ReceiptDetail
from ryvion_node.proxy.access import Caller
from ryvion_node.proxy.receipts import StoredReceipt
from ryvion_protocol.exported import export_envelope
from ryvion_protocol.messages import Receipt
from ryvion_protocol.packet import unpack
from ryvion_protocol.schema import JobId


@dataclass(frozen=True, slots=True)
class ControlCaller:
    """Whoever may read the running node's control file: its operator."""

    id: str = "control"
    scope: str = "operator"
    jurisdictions: tuple[str, ...] = ()


class NodeKeys:
    """Implements `Keys`: the key file, and the token that the running node wrote for its own command line."""

    def __init__(self, store: KeyStore, control_token: str) -> None:
        self._store = store
        self._control_token = control_token.encode()

    async def authenticate(self, token: str) -> Caller | None:
        """The key that `token` is; None when it is none."""
        if hmac.compare_digest(token.encode(), self._control_token):
            return ControlCaller()
        key: ApiKey | None = self._store.authenticate(token)
        return key


class LedgerReceipts:
    """Implements `ReceiptStore`: receipts of bought jobs."""

    def __init__(self, ledger: LedgerReader) -> None:
        self._ledger = ledger

    async def of_job(self, job_id: str) -> tuple[StoredReceipt, ...]:
        """The receipt of one bought job; empty when there is none."""
        job = await self._ledger.job(JobId(job_id), "bought")
        found = await self.by_cid(job.receipt_cid) if job is not None and job.receipt_cid else None
        return () if found is None else (found,)

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
    )
