"""The job machine against a plain model, and both sides against each other with messages under way."""

from __future__ import annotations

from collections import deque
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ryvion_protocol.constants import MAX_CONTROL_BYTES, MAX_DELTA_BYTES, MAX_REQUEST_BYTES
from ryvion_protocol.errors import StateError
from ryvion_protocol.job import JOB_TABLE, JobMachine, Role, job_id_of, senders
from ryvion_protocol.messages import (
    Acceptance,
    AuditEnvelope,
    Cancel,
    Delta,
    EmbedRequest,
    Error,
    Finished,
    JobOffer,
    JobRequest,
    Quote,
    QuoteRequest,
    Receipt,
    Refusal,
    Started,
    Vectors,
)
from ryvion_protocol.packet import MessageClass
from specs.samples import sample_job
from tests.protocol.strategies import MESSAGE_CLASSES

ROLES: tuple[Literal["requester"], Literal["executor"]] = ("requester", "executor")
OPENING = [QuoteRequest, Quote, JobOffer, JobRequest]
CLOSING = [Finished, Receipt, AuditEnvelope, Acceptance]
REQUESTERS = (QuoteRequest, JobOffer, JobRequest, EmbedRequest, Acceptance, Cancel)


def legal_history(history: list[tuple[Role, MessageClass]]) -> bool:
    """The rules of spec 04 in words: is this a legal course of a job, as one side sees it?"""
    classes = [cls for _, cls in history]
    if any((sender == "requester") != (cls in REQUESTERS) for sender, cls in history if cls is not Error):
        return False
    if Error in classes:
        return classes.index(Error) == len(classes) - 1 and legal_history(history[:-1]) and not over(classes[:-1])
    if Cancel in classes:
        at = classes.index(Cancel)
        before, after = classes[:at], classes[at + 1 :]
        if Cancel in after or not legal_main(before) or len(before) < 2 or over(before):
            return False
        if len(before) < len(OPENING):
            return not after
        may_skip_started = Started not in before and after[:1] == [Finished]
        return legal_main(before + ([Started] if may_skip_started else []) + after)
    return legal_main(classes)


def legal_main(classes: list[MessageClass]) -> bool:
    """Without Cancel and Error: a prefix of the opening, Started, deltas and the closing; or refused. An embedding has its
    own request and vectors instead."""
    if classes == [QuoteRequest, Refusal]:
        return True
    for request, part in ((JobRequest, Delta), (EmbedRequest, Vectors)):
        whole = [*OPENING[:3], request, Started, *[part] * classes.count(part), *CLOSING]
        if classes == whole[: len(classes)]:
            return True
    return False


def over(classes: list[MessageClass]) -> bool:
    """Has the job ended?"""
    if classes[-1:] == [Refusal] or classes[-1:] == [Acceptance] or Error in classes:
        return True
    return Cancel in classes and classes.index(Cancel) < len(OPENING)


@settings(max_examples=150)
@given(st.sampled_from(ROLES), st.data())
def test_the_machine_agrees_with_the_rules_in_words(role: Role, data: st.DataObject) -> None:
    """R-04-1: mostly legal steps, then any step at all, judged by both."""
    machine = JobMachine(role)
    peer: Role = "executor" if role == "requester" else "requester"
    history: list[tuple[Role, MessageClass]] = []
    for _ in range(data.draw(st.integers(0, 14))):
        choices = [(by, cls) for by in ROLES for cls in senders(machine.state, by) if cls is not Error]
        if not choices:
            break
        by, cls = data.draw(st.sampled_from(choices))
        (machine.on_sent if by == role else machine.on_received)(cls)
        history.append((by, cls))
    assert legal_history(history)
    assert (machine.state == "ended") == over([cls for _, cls in history])
    for by in ROLES:
        for cls in MESSAGE_CLASSES:
            wanted = legal_history([*history, (by, cls)]) and not over([c for _, c in history])
            assert (cls in senders(machine.state, by)) == wanted, (history, by, cls)
            if not wanted:
                state = machine.state
                with pytest.raises(StateError):
                    (machine.on_sent if by == role else machine.on_received)(cls)
                assert machine.state == state
    assert machine.expects == senders(machine.state, peer)


@settings(max_examples=200)
@given(st.data())
def test_messages_under_way_are_never_illegal(data: st.DataObject) -> None:
    """R-04-21: whatever each side sends by its own view, the other may receive it, unless its job has ended."""
    machines = {role: JobMachine(role) for role in ROLES}
    under_way: dict[Role, deque[MessageClass]] = {role: deque() for role in ROLES}
    other: dict[Role, Role] = {"requester": "executor", "executor": "requester"}
    for _ in range(data.draw(st.integers(0, 30))):
        steps = [("send", role, cls) for role in ROLES for cls in senders(machines[role].state, role)]
        steps += [("deliver", role, under_way[role][0]) for role in ROLES if under_way[role]]
        if not steps:
            break
        what, role, cls = data.draw(st.sampled_from(steps))
        if what == "send":
            machines[role].on_sent(cls)
            under_way[role].append(cls)
        else:
            under_way[role].popleft()
            if machines[other[role]].state != "ended":
                machines[other[role]].on_received(cls)


def test_the_decoder_limit_covers_what_may_come_in_one_read() -> None:
    """A JobRequest may follow its JobOffer at once, so the executor must not judge it by the JobOffer's cap."""
    machine = JobMachine("executor")
    assert machine.max_frame_bytes == MAX_CONTROL_BYTES
    machine.on_received(QuoteRequest)
    machine.on_sent(Quote)
    assert machine.max_frame_bytes == MAX_REQUEST_BYTES
    machine.on_received(JobOffer)
    machine.on_received(JobRequest)
    assert machine.max_frame_bytes == MAX_CONTROL_BYTES
    assert machine.expects == (Cancel, Error)
    requester = JobMachine("requester")
    for cls in (QuoteRequest, Quote, JobOffer, JobRequest):
        (requester.on_sent if cls in REQUESTERS else requester.on_received)(cls)
    assert requester.max_frame_bytes == MAX_DELTA_BYTES
    requester.on_sent(Error)
    assert (requester.max_frame_bytes, requester.expects) == (0, ())


def test_every_state_can_be_reached_and_left() -> None:
    reached = {"idle"} | {after for row in JOB_TABLE.values() for _, after in row.values()}
    assert reached == set(JOB_TABLE)
    assert [state for state, row in JOB_TABLE.items() if not row] == ["ended"]


def test_a_job_is_named_by_its_offer_only() -> None:
    """R-04-2."""
    job = sample_job()
    assert job_id_of(job.job_offer) == job.job_offer.hash.hex()
    with pytest.raises(TypeError):
        job_id_of(job.quote)
