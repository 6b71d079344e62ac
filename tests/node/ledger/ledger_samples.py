"""Records to fill a ledger with, all different in every field that must not be mixed up."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable

from ryvion_node.ledger.records import NO_ENVELOPE, JobBegun, Settlement, Side, SoldResult
from ryvion_node.ledger.spending import UNLIMITED, Allowance
from ryvion_protocol.checks import Check
from ryvion_protocol.schema import JobId, NodeKey

EXECUTOR = NodeKey(b"\x01" * 32)
REQUESTER = NodeKey(b"\x02" * 32)
CHECKS = (Check("signature", "passed", "the key signed it"), Check("units_counted", "bounded", "at most 40, said 12"))


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def job_id(number: int) -> JobId:
    return JobId(digest(f"job {number}").hex())


def begun(
    number: int = 1,
    side: Side = "bought",
    *,
    executor: NodeKey = EXECUTOR,
    requester: NodeKey = REQUESTER,
    completion_id: str = "",
    key_id: str = "key-1",
    max_price: int = 1_000,
    allowance: Allowance = UNLIMITED,
) -> JobBegun:
    return JobBegun(
        job_id=job_id(number),
        side=side,
        executor_key=executor,
        requester_key=requester,
        model="ryvion-tiny",
        digest=digest("model"),
        jurisdiction="CA",
        quote=f"quote {number}".encode(),
        job_offer=f"offer {number}".encode(),
        completion_id=completion_id,
        key_id=key_id if side == "bought" else "",
        max_price=max_price if side == "bought" else 0,
        allowance=allowance if side == "bought" else UNLIMITED,
    )


def sold(number: int = 1, *, previous: bytes = NO_ENVELOPE, cost: int = 700) -> SoldResult:
    return SoldResult(
        job_id=job_id(number),
        prompt_units=10,
        completion_units=number,
        cost_microcredits=cost,
        finished=b"finished",
        receipt=f"receipt {number}".encode(),
        receipt_cid=f"ryv1:sha256:{number:064x}",
        envelope=f"envelope {number}".encode(),
        envelope_hash=digest(f"envelope {number}"),
        previous_envelope=previous,
    )


def settlement(number: int = 1, *, accepted: bool = True, cost: int = 700) -> Settlement:
    return Settlement(
        job_id=job_id(number),
        prompt_units=10,
        completion_units=number,
        cost_microcredits=cost if accepted else 0,
        finished=b"finished",
        receipt=f"receipt {number}".encode(),
        receipt_cid=f"ryv1:sha256:{number:064x}",
        envelope=f"envelope {number}".encode(),
        envelope_hash=digest(f"envelope {number}"),
        acceptance=f"acceptance {number} {accepted}".encode(),
        accepted=accepted,
        reason="" if accepted else "result_hash",
        checks=CHECKS,
    )


def ticking() -> Callable[[], int]:
    """A clock that is one millisecond later at every look, so that order shows in the times."""
    times = itertools.count(1_000)
    return lambda: next(times)
