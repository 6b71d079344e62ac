"""What only the fake does."""

from __future__ import annotations

import pytest

from ryvion_node.ledger.errors import LedgerUnavailable
from ryvion_node.ledger.fake import FakeLedger
from tests.node.ledger.ledger_samples import begun, job_id, sold, ticking


async def test_it_can_be_told_to_refuse_every_write() -> None:
    ledger = FakeLedger(clock=ticking())
    await ledger.begin_job(begun(1, "sold"))
    ledger.fail_writes("the disk is full")
    assert ledger.write_failure == "the disk is full"
    with pytest.raises(LedgerUnavailable, match="disk is full"):
        await ledger.finish_sold(sold(1))
    job = await ledger.job(job_id(1), "sold")
    assert job is not None
    assert job.state == "running"
