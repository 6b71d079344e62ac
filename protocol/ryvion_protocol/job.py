"""The life of a job stream: one table that both sides follow (spec 04, "States").

A state is what one side has sent and received so far. Frames that are under way when the requester cancels stay
legal: every state in which a job runs has a twin in which it is cancelled.
"""

from __future__ import annotations

from functools import cache
from typing import Final, Literal

from ryvion_protocol.any_message import Message
from ryvion_protocol.errors import StateError
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
from ryvion_protocol.packet import MessageClass, Packet
from ryvion_protocol.schema import JobId

Role = Literal["requester", "executor"]
JobState = Literal[
    "idle",
    "asked",
    "quoted",
    "offered",
    "requested",
    "running",
    "embed_requested",
    "embedding",
    "finished",
    "receipted",
    "enveloped",
    "requested_cancelled",
    "running_cancelled",
    "embed_requested_cancelled",
    "embedding_cancelled",
    "finished_cancelled",
    "receipted_cancelled",
    "enveloped_cancelled",
    "ended",
]
Transitions = dict[MessageClass, tuple[Role, JobState]]
"""Message class -> who sends it, and the state after it."""

_R: Final = "requester"
_E: Final = "executor"

JOB_TABLE: Final[dict[JobState, Transitions]] = {
    "idle": {QuoteRequest: (_R, "asked")},
    "asked": {Quote: (_E, "quoted"), Refusal: (_E, "ended")},
    "quoted": {JobOffer: (_R, "offered"), Cancel: (_R, "ended")},
    "offered": {JobRequest: (_R, "requested"), EmbedRequest: (_R, "embed_requested"), Cancel: (_R, "ended")},
    "requested": {Started: (_E, "running"), Cancel: (_R, "requested_cancelled")},
    "running": {Delta: (_E, "running"), Finished: (_E, "finished"), Cancel: (_R, "running_cancelled")},
    "embed_requested": {Started: (_E, "embedding"), Cancel: (_R, "embed_requested_cancelled")},
    "embedding": {Vectors: (_E, "embedding"), Finished: (_E, "finished"), Cancel: (_R, "embedding_cancelled")},
    "finished": {Receipt: (_E, "receipted"), Cancel: (_R, "finished_cancelled")},
    "receipted": {AuditEnvelope: (_E, "enveloped"), Cancel: (_R, "receipted_cancelled")},
    "enveloped": {Acceptance: (_R, "ended"), Cancel: (_R, "enveloped_cancelled")},
    "requested_cancelled": {Started: (_E, "running_cancelled"), Finished: (_E, "finished_cancelled")},
    "running_cancelled": {Delta: (_E, "running_cancelled"), Finished: (_E, "finished_cancelled")},
    "embed_requested_cancelled": {Started: (_E, "embedding_cancelled"), Finished: (_E, "finished_cancelled")},
    "embedding_cancelled": {Vectors: (_E, "embedding_cancelled"), Finished: (_E, "finished_cancelled")},
    "finished_cancelled": {Receipt: (_E, "receipted_cancelled")},
    "receipted_cancelled": {AuditEnvelope: (_E, "enveloped_cancelled")},
    "enveloped_cancelled": {Acceptance: (_R, "ended")},
    "ended": {},
}
"""Beside what stands here, either side may send Error in every state but `ended`; it ends the job."""


class JobMachine:
    """One side's view of one job stream."""

    __slots__ = ("_peer", "_role", "_state")

    def __init__(self, role: Role) -> None:
        self._role: Role = role
        self._peer: Role = "executor" if role == "requester" else "requester"
        self._state: JobState = "idle"

    @property
    def state(self) -> JobState:
        return self._state

    @property
    def expects(self) -> tuple[MessageClass, ...]:
        """The classes that the peer may send now; none once the job has ended."""
        return senders(self._state, self._peer)

    @property
    def max_frame_bytes(self) -> int:
        """The largest frame that the peer may send before it has to wait for us; 0 once the job has ended."""
        return _largest_bytes(self._state, self._peer)

    def on_sent(self, message_class: MessageClass) -> None:
        """Note what we send; raises StateError, and changes nothing, when it may not be sent now."""
        self._state = step(self._state, self._role, message_class)

    def on_received(self, message_class: MessageClass) -> None:
        """Note what came; raises StateError, and changes nothing, when it may not come now."""
        self._state = step(self._state, self._peer, message_class)


def step(state: JobState, sender: Role, message_class: MessageClass) -> JobState:
    """The state after a message; raises StateError on anything that is not in the table."""
    if message_class is Error and state != "ended":
        return "ended"
    by, after = JOB_TABLE[state].get(message_class, (None, state))
    if by != sender:
        raise StateError(f"the {sender} may not send {message_class.TYPE} in state {state}")
    return after


@cache
def senders(state: JobState, sender: Role) -> tuple[MessageClass, ...]:
    """The classes that `sender` may send in `state`."""
    if state == "ended":
        return ()
    return (*(cls for cls, (by, _) in JOB_TABLE[state].items() if by == sender), Error)


@cache
def _largest_bytes(state: JobState, sender: Role) -> int:
    """Over everything that `sender` may send in a row, so that frames read in one go are judged alike."""
    reached: set[JobState] = {state}
    largest = 0
    todo = [state]
    while todo:
        here = todo.pop()
        largest = max([largest, *(cls.MAX_BYTES for cls in senders(here, sender))])
        after = {new for by, new in JOB_TABLE[here].values() if by == sender}
        todo += after - reached
        reached |= after
    return largest


def job_id_of(job_offer: Packet) -> JobId:
    """The job id: the SHA-256 of the JobOffer's body in hex, so that it commits to everything both sides agreed."""
    message: Message = job_offer.message
    if not isinstance(message, JobOffer):
        raise TypeError(f"a job is named by its JobOffer, not by a {type(message).__name__}")
    return JobId(job_offer.hash.hex())
