"""Receipts in this node's ledger, by the names that people have for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from ryvion_node.errors import EXIT_NO_INPUT, OperatorError
from ryvion_node.paths import Paths

if TYPE_CHECKING:
    from ryvion_node.ledger.reader import LedgerView
    from ryvion_node.ledger.records import ReceiptDetail
    from ryvion_protocol.exported import JsonObject

PAGE: Final = 1000
"""What the ledger gives at once."""


class ReceiptUnknown(OperatorError):
    """The ledger {ledger} has no receipt {name}. `ryvion-node receipts list` shows what there is."""

    exit_code = EXIT_NO_INPUT


def find_receipts(ledger: LedgerView, name: str, paths: Paths) -> list[ReceiptDetail]:
    """The receipts that a cid, a job id or a completion id names; raises ReceiptUnknown when there is none."""
    found = [ledger.receipt(cid) for cid in _cids(ledger, name)]
    details = [detail for detail in found if detail is not None]
    if not details:
        raise ReceiptUnknown(ledger=paths.ledger_file, name=name)
    return details


def _cids(ledger: LedgerView, name: str) -> list[str]:
    if name.startswith("ryv1:"):
        return [name]
    job_id = name.removeprefix("chatcmpl-")  # a completion is named after its job
    jobs = (*ledger.by_completion_id(name), ledger.job(job_id, "bought"), ledger.job(job_id, "sold"))
    return list(dict.fromkeys(job.receipt_cid for job in jobs if job is not None and job.receipt_cid))


def all_receipts(ledger: LedgerView) -> Iterator[ReceiptDetail]:
    """Newest first."""
    before: int | None = None
    while page := ledger.receipts(PAGE, before):
        for record in page:
            detail = ledger.receipt(record.job.receipt_cid)
            if detail is not None:
                yield detail
        before = page[-1].position


def exported_receipt(detail: ReceiptDetail) -> JsonObject:
    """As anybody can verify it."""
    from ryvion_protocol.exported import export_receipt
    from ryvion_protocol.messages import Receipt
    from ryvion_protocol.packet import unpack

    packet = detail.packet("receipt")
    assert packet is not None, "a receipt record without its packet"
    receipt = unpack(packet, (Receipt,)).message
    assert isinstance(receipt, Receipt)
    return export_receipt(receipt, detail.packet("envelope"))
