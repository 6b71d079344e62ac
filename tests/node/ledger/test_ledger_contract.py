"""What every ledger promises, run on the real one and on the fake."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio

from ryvion_node.ledger.errors import ChainMoved, JobExists, JobUnknown, LedgerConflict
from ryvion_node.ledger.interface import Ledger
from ryvion_node.ledger.records import NO_ENVELOPE, Evidence
from ryvion_protocol.schema import NodeKey
from tests.node.ledger.ledger_samples import CHECKS, EXECUTOR, REQUESTER, begun, digest, job_id, settlement, sold


async def test_a_begun_job_is_running_with_its_quote_and_offer(ledger: Ledger) -> None:
    await ledger.begin_job(begun(completion_id="chatcmpl-1"))
    job = await ledger.job(job_id(1), "bought")
    assert job is not None
    assert (job.state, job.model, job.digest, job.jurisdiction) == ("running", "ryvion-tiny", digest("model"), "CA")
    assert (job.peer_key, job.completion_id, job.key_id) == (EXECUTOR, "chatcmpl-1", "key-1")
    assert (job.cost_microcredits, job.finished_ms, job.receipt_cid) == (0, None, "")
    assert job.created_ms >= 1_000
    assert [(item.kind, item.packet) for item in await ledger.evidence(job_id(1), "bought")] == [
        ("quote", b"quote 1"),
        ("job_offer", b"offer 1"),
    ]
    assert await ledger.unfinished_jobs("bought") == (job,)
    assert await ledger.unfinished_jobs("sold") == ()


async def test_a_replayed_offer_is_refused(ledger: Ledger) -> None:
    await ledger.begin_job(begun(side="sold"))
    with pytest.raises(JobExists):
        await ledger.begin_job(begun(side="sold"))
    assert len(await ledger.evidence(job_id(1), "sold")) == 2


async def test_both_sides_of_one_job_live_side_by_side(ledger: Ledger) -> None:
    await ledger.begin_job(begun(side="sold"))
    await ledger.begin_job(begun(side="bought"))
    await ledger.finish_sold(sold())
    bought = await ledger.job(job_id(1), "bought")
    assert bought is not None
    assert bought.state == "running"
    assert bought.peer_key == EXECUTOR
    sold_job = await ledger.job(job_id(1), "sold")
    assert sold_job is not None
    assert sold_job.peer_key == REQUESTER


async def test_a_sold_job_is_delivered_and_then_accepted(ledger: Ledger) -> None:
    await ledger.begin_job(begun(side="sold"))
    assert await ledger.finish_sold(sold())
    job = await ledger.job(job_id(1), "sold")
    assert job is not None
    assert (job.state, job.cost_microcredits, job.completion_units) == ("delivered", 700, 1)
    assert job.finished_ms is not None
    assert await ledger.record_acceptance(job_id(1), b"yes", accepted=True)
    job = await ledger.job(job_id(1), "sold")
    assert job is not None
    assert job.state == "accepted"
    assert [item.kind for item in await ledger.evidence(job_id(1), "sold")] == [
        "quote",
        "job_offer",
        "finished",
        "receipt",
        "envelope",
        "acceptance",
    ]


async def test_a_dispute_of_a_sold_job_is_kept_with_its_reason_and_earns_nothing(ledger: Ledger) -> None:
    await ledger.begin_job(begun(side="sold"))
    await ledger.finish_sold(sold())
    assert await ledger.record_acceptance(job_id(1), b"no", accepted=False, reason="units_counted")
    job = await ledger.job(job_id(1), "sold")
    assert job is not None
    assert (job.state, job.failure_code) == ("disputed", "units_counted")
    assert (await ledger.totals()).earned_microcredits == 0
    assert (await ledger.totals()).unconfirmed_microcredits == 0


async def test_a_second_write_of_the_same_changes_nothing(ledger: Ledger) -> None:
    await ledger.begin_job(begun(1, "sold"))
    assert await ledger.finish_sold(sold(1))
    assert not await ledger.finish_sold(sold(1))
    assert await ledger.record_acceptance(job_id(1), b"yes", accepted=True)
    assert not await ledger.record_acceptance(job_id(1), b"yes", accepted=True)
    await ledger.begin_job(begun(2))
    assert await ledger.settle_bought(settlement(2))
    before = await ledger.totals()
    assert not await ledger.settle_bought(settlement(2))
    assert await ledger.totals() == before
    assert len(await ledger.checks(job_id(2), "bought")) == len(CHECKS)


async def test_a_contradiction_is_refused_and_changes_nothing(ledger: Ledger) -> None:
    await ledger.begin_job(begun(1, "sold"))
    with pytest.raises(LedgerConflict):
        await ledger.record_acceptance(job_id(1), b"too early", accepted=True)
    await ledger.finish_sold(sold(1))
    await ledger.record_acceptance(job_id(1), b"yes", accepted=True)
    with pytest.raises(LedgerConflict):
        await ledger.record_acceptance(job_id(1), b"no", accepted=False, reason="result_hash")
    await ledger.begin_job(begun(2))
    await ledger.settle_bought(settlement(2))
    with pytest.raises(LedgerConflict):
        await ledger.settle_bought(settlement(2, accepted=False))
    job = await ledger.job(job_id(2), "bought")
    assert job is not None
    assert job.state == "accepted"


async def test_what_was_never_begun_is_unknown(ledger: Ledger) -> None:
    for write in (
        ledger.finish_sold(sold()),
        ledger.settle_bought(settlement()),
        ledger.record_acceptance(job_id(1), b"yes", accepted=True),
        ledger.fail_job(job_id(1), "bought", "gone", "it is gone"),
    ):
        with pytest.raises(JobUnknown):
            await write
    assert await ledger.job(job_id(1), "bought") is None
    assert await ledger.receipt("ryv1:sha256:00") is None


async def test_a_settled_purchase_has_its_checks_and_its_cost(ledger: Ledger) -> None:
    await ledger.begin_job(begun())
    assert await ledger.settle_bought(settlement())
    job = await ledger.job(job_id(1), "bought")
    assert job is not None
    assert (job.state, job.cost_microcredits, job.failure_code) == ("accepted", 700, "")
    assert await ledger.checks(job_id(1), "bought") == CHECKS
    assert (await ledger.totals()).spent_microcredits == 700


async def test_a_disputed_purchase_costs_nothing_and_says_why(ledger: Ledger) -> None:
    await ledger.begin_job(begun())
    assert await ledger.settle_bought(settlement(accepted=False))
    job = await ledger.job(job_id(1), "bought")
    assert job is not None
    assert (job.state, job.cost_microcredits, job.failure_code) == ("disputed", 0, "result_hash")
    assert (await ledger.totals()).jobs_bought == 0


async def test_a_failed_job_keeps_its_evidence_and_costs_nothing(ledger: Ledger) -> None:
    await ledger.begin_job(begun())
    packets = (Evidence("finished", b"half"), Evidence("error", b"error packet"))
    assert await ledger.fail_job(job_id(1), "bought", "node_failed", "x" * 600, evidence=packets)
    job = await ledger.job(job_id(1), "bought")
    assert job is not None
    assert (job.state, job.failure_code, job.failure_message) == ("failed", "node_failed", "x" * 512)
    assert [item.kind for item in await ledger.evidence(job_id(1), "bought")][2:] == ["finished", "error"]
    assert not await ledger.fail_job(job_id(1), "bought", "other", "a second failure")
    with pytest.raises(LedgerConflict):
        await ledger.settle_bought(settlement())


async def test_a_failure_after_delivery_leaves_the_receipt_alone(ledger: Ledger) -> None:
    await ledger.begin_job(begun(side="sold"))
    await ledger.finish_sold(sold())
    assert not await ledger.fail_job(job_id(1), "sold", "stream_broken", "the acceptance never came")
    totals = await ledger.totals()
    assert (totals.unconfirmed_microcredits, totals.jobs_sold, totals.units_sold) == (700, 1, 11)


async def test_envelopes_of_a_pair_form_a_chain(ledger: Ledger) -> None:
    other = NodeKey(b"\x03" * 32)
    assert await ledger.last_envelope_hash(EXECUTOR, REQUESTER) == NO_ENVELOPE
    for number, requester in ((1, REQUESTER), (2, REQUESTER), (3, other)):
        await ledger.begin_job(begun(number, "sold", requester=requester))
    await ledger.finish_sold(sold(1))
    assert await ledger.last_envelope_hash(EXECUTOR, REQUESTER) == digest("envelope 1")
    with pytest.raises(ChainMoved):
        await ledger.finish_sold(sold(2))
    assert await ledger.finish_sold(sold(2, previous=digest("envelope 1")))
    assert await ledger.last_envelope_hash(EXECUTOR, REQUESTER) == digest("envelope 2")
    assert await ledger.finish_sold(sold(3))
    assert await ledger.last_envelope_hash(EXECUTOR, other) == digest("envelope 3")
    assert await ledger.last_envelope_hash(EXECUTOR, REQUESTER, "bought") == NO_ENVELOPE


async def test_what_a_crash_left_running_is_interrupted(ledger: Ledger) -> None:
    for number in (1, 2, 3):
        await ledger.begin_job(begun(number))
    await ledger.begin_job(begun(4, "sold"))
    await ledger.settle_bought(settlement(2))
    ended = await ledger.abandon_unfinished()
    assert [job.job_id for job in ended] == [job_id(1), job_id(3), job_id(4)]
    assert await ledger.abandon_unfinished() == ()
    states = [await ledger.job(job_id(number), "bought") for number in (1, 2, 3)]
    assert [job.state for job in states if job is not None] == ["interrupted", "accepted", "interrupted"]
    assert len(await ledger.evidence(job_id(1), "bought")) == 2


async def test_receipts_come_newest_first_in_pages(ledger: Ledger) -> None:
    for number in range(1, 6):
        await ledger.begin_job(begun(number))
        await ledger.settle_bought(settlement(number))
    first = await ledger.receipts(2)
    second = await ledger.receipts(2, before=first[-1].position)
    third = await ledger.receipts(10, before=second[-1].position)
    assert [record.job.job_id for record in (*first, *second, *third)] == [job_id(n) for n in (5, 4, 3, 2, 1)]
    assert await ledger.receipts(0) == ()
    assert await ledger.receipts(-1) == ()


async def test_a_receipt_is_found_by_its_cid_with_everything(ledger: Ledger) -> None:
    await ledger.begin_job(begun(7))
    await ledger.settle_bought(settlement(7))
    detail = await ledger.receipt(settlement(7).receipt_cid)
    assert detail is not None
    assert detail.record.job.job_id == job_id(7)
    assert detail.packet("receipt") == b"receipt 7"
    assert detail.packet("envelope") == b"envelope 7"
    assert detail.packet("error") is None
    assert detail.checks == CHECKS


async def test_a_copied_receipt_does_not_hide_the_honest_one(ledger: Ledger) -> None:
    await ledger.begin_job(begun(1))
    await ledger.settle_bought(settlement(1, accepted=False))
    await ledger.begin_job(begun(2, "sold"))
    await ledger.finish_sold(replace(sold(2), receipt_cid=settlement(1).receipt_cid))
    detail = await ledger.receipt(settlement(1).receipt_cid)
    assert detail is not None
    assert detail.record.job.job_id == job_id(2)


async def test_all_jobs_of_a_completion_are_found(ledger: Ledger) -> None:
    for number in (3, 1, 2):
        await ledger.begin_job(begun(number, completion_id="chatcmpl-9"))
    await ledger.begin_job(begun(4))
    found = await ledger.by_completion_id("chatcmpl-9")
    assert [job.job_id for job in found] == [job_id(3), job_id(1), job_id(2)]
    assert await ledger.by_completion_id("") == ()


async def test_totals_count_from_a_time(ledger: Ledger) -> None:
    await ledger.begin_job(begun(1))
    await ledger.settle_bought(settlement(1, cost=100))
    first = await ledger.job(job_id(1), "bought")
    assert first is not None
    assert first.finished_ms is not None
    await ledger.begin_job(begun(2))
    await ledger.settle_bought(settlement(2, cost=20))
    assert (await ledger.totals()).spent_microcredits == 120
    assert (await ledger.totals(first.finished_ms + 1)).spent_microcredits == 20
    assert (await ledger.totals(2**53)).spent_microcredits == 0


async def test_a_cancelled_write_is_still_done_whole(ledger: Ledger) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await ledger.begin_job(begun())
    assert len(await ledger.evidence(job_id(1), "bought")) == 2
