"""Which write may follow what is recorded; pure, shared by the real ledger and the fake."""

from __future__ import annotations

from ryvion_node.ledger.errors import JobUnknown, LedgerConflict
from ryvion_node.ledger.records import JobState

Found = tuple[JobState, bytes | None]
"""A job's state, and the packet that ended it, if there is one."""


def verdict(accepted: bool) -> JobState:
    """The state that a verdict leads to."""
    return "accepted" if accepted else "disputed"


def expect_running(job_id: str, found: Found | None, packet: bytes) -> bool:
    """May `packet` end this running job? False when this very packet did so before; raises on anything else."""
    return _expect("running", job_id, found, packet)


def expect_delivered(job_id: str, found: Found | None, packet: bytes) -> bool:
    """As `expect_running`, for a verdict on a delivered job."""
    return _expect("delivered", job_id, found, packet)


def _expect(state: JobState, job_id: str, found: Found | None, packet: bytes) -> bool:
    if found is None:
        raise JobUnknown(f"job {job_id} was never begun")
    if found[0] == state:
        return True
    if found[1] == packet:
        return False
    raise LedgerConflict(f"job {job_id} is {found[0]}, not {state}, and what ended it was something else")
