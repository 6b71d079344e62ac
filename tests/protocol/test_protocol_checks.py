"""The requester's verdicts beyond the vectors: broken jobs, forged evidence, and that details carry figures."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ryvion_protocol.checks import (
    CHECK_NAMES,
    Check,
    JobEvidence,
    all_passed,
    check_finished_job,
    first_failure,
)
from ryvion_protocol.constants import MAX_METERING_UNITS, MAX_PRICE
from ryvion_protocol.errors import (
    EncodingError,
    FramingError,
    PayloadInvalid,
    ProtocolError,
    SchemaError,
    SignatureInvalid,
    StateError,
)
from ryvion_protocol.messages import AuditEnvelope, Error, Finished, Quote, Receipt
from ryvion_protocol.money import cost_microcredits
from ryvion_protocol.packet import pack
from ryvion_protocol.schema import as_label, as_note
from specs.samples import EXECUTOR, NOW_MS, evidence_of, message_of, sample_job
from tests.protocol.strategies import legal

JOB = sample_job()
EVIDENCE = evidence_of(JOB)


def verdicts(evidence: JobEvidence) -> dict[str, Check]:
    return {check.name: check for check in check_finished_job(evidence)}


def test_a_good_job_passes_all_ten() -> None:
    """R-04-19."""
    checks = check_finished_job(EVIDENCE)
    assert tuple(check.name for check in checks) == CHECK_NAMES
    assert {check.outcome for check in checks} == {"passed"}
    assert all_passed(checks)
    assert first_failure(checks) == ""
    for check in checks:
        assert check.detail[0].isupper() or check.detail[0].isdigit()
        assert check.detail.endswith(".")


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        (FramingError("frame_too_large", "70000 bytes"), "frames"),
        (EncodingError("not canonical"), "frames"),
        (SchemaError("Delta.seq: integer wanted"), "frames"),
        (PayloadInvalid("delta_order", "delta 3 of choice 0 wanted"), "frames"),
        (SignatureInvalid("the signature does not verify"), "signature"),
        (StateError("the executor may not send receipt in state running"), "state"),
    ],
)
def test_a_fault_fails_the_check_it_belongs_to(fault: ProtocolError, name: str) -> None:
    broken = replace(EVIDENCE, state="running", finished=None, receipt=None, envelope=None, fault=fault)
    checks = check_finished_job(broken)
    assert first_failure(checks) == name
    assert not all_passed(checks)
    assert fault.code in verdicts(broken)[name].detail


def test_a_job_that_was_cut_off_says_what_is_missing() -> None:
    """R-04-23."""
    cut = replace(EVIDENCE, state="finished", receipt=None, envelope=None)
    checks = check_finished_job(cut)
    assert [(check.name, check.outcome) for check in checks] == [("frames", "passed"), ("state", "failed")]
    assert checks[1].detail == "The job broke in state finished, without Receipt, AuditEnvelope."


def test_failed_checks_carry_both_figures() -> None:
    """R-04-16: the sentence names what was billed and what we count."""
    found = verdicts(replace(EVIDENCE, own_completion_units=9))["units_counted"]
    assert (found.outcome, found.detail) == ("failed", "11 completion tokens are billed, we count 9.")


def test_a_bound_is_not_enough_where_a_count_was_demanded() -> None:
    """R-04-24: the outcome of an uncounted job stays `bounded`; who wants more than that does not settle it."""
    uncounted = replace(EVIDENCE, own_completion_units=None)
    assert verdicts(uncounted)["units_counted"].outcome == "bounded"
    found = verdicts(replace(uncounted, must_be_counted=True))["units_counted"]
    assert (found.outcome, found.detail.startswith("11 completion tokens are billed")) == ("failed", True)
    assert verdicts(replace(EVIDENCE, must_be_counted=True))["units_counted"].outcome == "passed"


def test_a_price_above_the_limit_fails_whatever_the_tokens() -> None:
    """R-04-18 and R-04-19."""
    quote = replace(message_of(Quote, JOB.quote), price_out=4_000_000)
    found = verdicts(replace(EVIDENCE, quote=pack(quote, EXECUTOR)))["units_within_limit"]
    assert (found.outcome, found.detail) == ("failed", "47 micro-credits, ordered were at most 28.")


def test_the_dearest_possible_job_has_a_cost_that_every_reader_keeps_exactly() -> None:
    """R-04-18."""
    most_tokens = 2**32 - 1
    assert cost_microcredits(most_tokens, most_tokens, MAX_PRICE, MAX_PRICE) <= MAX_METERING_UNITS


@given(
    st.sampled_from(
        [
            {"result_hash": bytes(32)},
            {"transcript_hash": bytes(32)},
            {"own_prompt_units": 22},
            {"own_completion_units": 12},
            {"state": "receipted"},
            {"ended_ms": NOW_MS - 200_000},
            {"offered_ms": NOW_MS + 200_000},
            {"receipt": None},
            {"envelope": None},
            {"finished": None},
            {"finished": Finished("length", 23, 12)},
            {"finished": Finished("cancelled", 23, 11)},
        ]
    )
)
def test_no_single_piece_of_evidence_may_be_missing_or_wrong(change: dict[str, Any]) -> None:
    assert not all_passed(check_finished_job(replace(EVIDENCE, **change)))


@given(legal(AuditEnvelope), legal(Receipt), legal(Finished))
def test_any_legal_report_is_judged_without_an_exception(
    envelope: AuditEnvelope, receipt: Receipt, finished: Finished
) -> None:
    """What an executor may send is arbitrary; the verdict on it is a value, never a crash."""
    named = replace(
        envelope,
        executor_key=EXECUTOR.public_key,
        status="completed",
        started_ms=0,
        first_token_ms=0,
    )
    evidence = replace(EVIDENCE, envelope=pack(named, EXECUTOR), receipt=receipt, finished=finished)
    checks = check_finished_job(evidence)
    assert tuple(check.name for check in checks) == CHECK_NAMES
    assert not all_passed(checks)


def test_evidence_of_the_wrong_kind_is_our_own_mistake() -> None:
    with pytest.raises(TypeError):
        check_finished_job(replace(EVIDENCE, quote=JOB.started))
    with pytest.raises(TypeError):
        check_finished_job(replace(EVIDENCE, job_offer=JOB.quote))


@given(st.text(st.characters()))
def test_any_text_becomes_a_legal_label_and_note(text: str) -> None:
    """R-00-17."""
    assert len(as_label(text).encode()) <= 64
    for make in (as_label, as_note):
        pack(Error(500, "worker_crashed", make(text), 0))
        assert make(make(text)) == make(text)
