"""What a worker says of its model, held to what can be true. Pure.

A worker runs files from anywhere, and one that a file has taken over may say anything. Its figures go into offers, and
its words onto terminals.
"""

from __future__ import annotations

from typing import Final, Protocol, assert_never

from ryvion_node.engine import constants as limits
from ryvion_node.engine.wire import Counted, JobEnded, JobPiece, JobRead, Ready, Speed, Start, WireError

JobMessage = JobRead | JobPiece | JobEnded | Counted
_KINDS: Final = ("chat", "embedding")


class Told(Protocol):
    """What a worker says now, or said when it was last loaded."""

    @property
    def quantisation(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def dimensions(self) -> int: ...
    @property
    def context_tokens(self) -> int: ...
    @property
    def millitokens_per_s(self) -> int: ...
    @property
    def prompt_millitokens_per_s(self) -> int: ...


def is_possible(told: Told) -> bool:
    """Can a model be so, and an offer carry it?"""
    return (
        told.kind in _KINDS
        and told.quantisation.isprintable()
        and len(told.quantisation.encode()) <= limits.MAX_QUANTISATION_BYTES
        and 0 <= told.dimensions <= limits.MAX_DIMENSIONS
        and 0 <= told.context_tokens <= limits.MAX_CONTEXT_TOKENS
        and _are_possible(told.millitokens_per_s, told.prompt_millitokens_per_s)
    )


def check_ready(ready: Ready, start: Start) -> None:
    """Raises WireError."""
    is_expected = start.vocab_only or (len(ready.digest) == 32 and start.expected_digest in (b"", ready.digest))
    has_possible_steps = len(ready.step_us) <= limits.MAX_SLOTS and _are_possible(*ready.step_us)
    if not (is_expected and has_possible_steps and is_possible(ready)):
        raise WireError("impossible figures of its model")


def check_speed(speed: Speed) -> None:
    """Raises WireError."""
    if not _are_possible(speed.millitokens_per_s, speed.prompt_millitokens_per_s):
        raise WireError("impossible speeds")


def check_job(said: JobMessage) -> None:
    """What a running job is told goes into frames and bills. Raises WireError."""
    match said:
        case JobRead(prompt_tokens=read, cached_tokens=cached):
            is_good = 0 <= cached <= read <= limits.MAX_CONTEXT_TOKENS
        case JobPiece(tokens=tokens, calls=calls):
            is_good = all(0 <= token <= limits.MAX_CONTEXT_TOKENS for token in (*tokens, *(call[0] for call in calls)))
        case JobEnded(completion_tokens=completion, reasoning_tokens=reasoning):
            is_good = 0 <= reasoning <= completion <= limits.MAX_CONTEXT_TOKENS
        case Counted(tokens=counted):
            is_good = 0 <= counted <= limits.MAX_CONTEXT_TOKENS
        case other:
            assert_never(other)
    if not is_good:
        raise WireError("impossible numbers of tokens")


def plain_line(text: str) -> str:
    """Words for the owner that steer no terminal: some quote the file, and its author chose them."""
    return "".join(char if char.isprintable() else " " for char in text[: limits.MAX_REASON_CHARS])


def _are_possible(*figures: int) -> bool:
    return all(0 <= figure <= limits.MAX_FIGURE for figure in figures)
