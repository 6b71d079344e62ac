"""When a Delta frame is sent: the first token at once, later ones gathered (pure)."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from typing import Final

from ryvion_node.engine import interface as engine
from ryvion_node.executor.constants import (
    FRAME_BASE_S,
    FRAME_MAX_S,
    FRAME_PER_JOB_S,
    MAX_FRAME_LOGPROB_BYTES,
    MAX_FRAME_TEXT_BYTES,
)
from ryvion_node.executor.request import wire_logprob
from ryvion_protocol.constants import MAX_TOKENS_PER_DELTA, MAX_TOOL_CALLS
from ryvion_protocol.messages import CallPiece, Delta, TokenLogprob
from ryvion_protocol.schema import as_label

_TOOL_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_CALL_BYTES: Final = 144
"""Of a call's piece at most, beside its arguments: id and name of 64 bytes, index, lengths."""
_ALTERNATIVE_BYTES: Final = 9
"""Of an alternative at most, beside the token's own bytes."""
_TOKEN_BYTES: Final = 10
"""Of a token's id and the array of its log-probability at most, beside the alternatives."""


def next_frame_at(now_s: float, running_jobs: int) -> float:
    """When a job's next frame goes out, on the clock of `now_s`: at most one interval away, longer the more jobs run.

    All jobs of a node send at the same ticks, so that one wake-up of each process on the way serves them all.
    """
    interval_s = min(FRAME_MAX_S, FRAME_BASE_S + FRAME_PER_JOB_S * running_jobs)
    return (math.floor(now_s / interval_s) + 1) * interval_s


@dataclass(slots=True)
class DeltaBuffer:
    """Gathers pieces of an answer and cuts them into Delta messages within the frame's limits."""

    seq: int = 0
    _reasoning: list[str] = field(default_factory=list)
    _text: list[str] = field(default_factory=list)
    _calls: list[CallPiece] = field(default_factory=list)
    _tokens: list[int] = field(default_factory=list)
    _logprobs: list[TokenLogprob] = field(default_factory=list)
    _begun_calls: int = 0

    def add(self, piece: engine.Piece) -> None:
        """Take in what the engine made; raises EngineError for a tool call that no Delta can carry."""
        self._reasoning.append(piece.reasoning)
        self._text.append(piece.text)
        for call in piece.calls:
            self._add_call(call)
        self._tokens += piece.tokens
        self._logprobs += map(wire_logprob, piece.logprobs)

    def _add_call(self, piece: engine.CallPiece) -> None:
        """Calls come one after the other, each with id and name first (spec 04)."""
        if piece.id and _TOOL_NAME.fullmatch(piece.name) and piece.index == self._begun_calls < MAX_TOOL_CALLS:
            self._begun_calls += 1
            self._calls.append(CallPiece(piece.index, as_label(piece.id), piece.name, piece.arguments))
        elif piece.id or piece.name or piece.index != self._begun_calls - 1:
            raise engine.EngineError("worker_crashed", f"the engine made tool call {piece.index} in no legal order")
        elif self._calls:
            self._calls[-1] = replace(self._calls[-1], arguments=self._calls[-1].arguments + piece.arguments)
        else:
            self._calls.append(CallPiece(piece.index, "", "", piece.arguments))

    def take(self) -> list[Delta]:
        """Everything gathered, as one Delta, or several where one would be too large."""
        reasoning, text = "".join(self._reasoning), "".join(self._text)
        calls, logprobs = self._calls, self._logprobs
        # Ids are optional, but beside log-probabilities there is one for each (spec 04).
        tokens = self._tokens if len(logprobs) in (0, len(self._tokens)) else []
        self._reasoning, self._text, self._calls, self._tokens, self._logprobs = [], [], [], [], []
        deltas: list[Delta] = []
        while reasoning or text or calls or tokens or logprobs:
            room = MAX_FRAME_TEXT_BYTES
            thought = _prefix(reasoning, room)
            room -= len(thought.encode())
            said = _prefix(text, room)
            room -= len(said.encode())
            called, calls = _first_calls(calls, room)
            count = _fitting(logprobs) if logprobs else MAX_TOKENS_PER_DELTA
            deltas.append(
                Delta(self.seq, 0, said, tuple(tokens[:count]), thought, tuple(called), tuple(logprobs[:count]))
            )
            self.seq += 1
            reasoning, text = reasoning[len(thought) :], text[len(said) :]
            tokens, logprobs = tokens[count:], logprobs[count:]
        return deltas


def _prefix(text: str, max_bytes: int) -> str:
    """As many whole characters as fit."""
    if len(text) * 4 <= max_bytes:
        return text
    return text.encode()[: max(max_bytes, 0)].decode(errors="ignore")


def _first_calls(calls: list[CallPiece], room: int) -> tuple[list[CallPiece], list[CallPiece]]:
    """The pieces that fit into `room` bytes, the last of them cut if need be, and the rest."""
    taken: list[CallPiece] = []
    for number, call in enumerate(calls):
        room -= _CALL_BYTES
        if room < 4 or len(taken) == MAX_TOOL_CALLS:
            return taken, calls[number:]
        arguments = _prefix(call.arguments, room)
        room -= len(arguments.encode())
        taken.append(replace(call, arguments=arguments))
        if len(arguments) < len(call.arguments):
            rest = CallPiece(call.index, "", "", call.arguments[len(arguments) :])
            return taken, [rest, *calls[number + 1 :]]
    return taken, []


def _fitting(logprobs: list[TokenLogprob]) -> int:
    """How many fit one Delta, with the tokens that they are of; at least one."""
    room = MAX_FRAME_LOGPROB_BYTES
    for count, logprob in enumerate(logprobs[:MAX_TOKENS_PER_DELTA]):
        alternatives = (logprob.chosen, *logprob.top)
        room -= sum(len(one.piece) + _ALTERNATIVE_BYTES for one in alternatives) + _TOKEN_BYTES
        if room < 0:
            return max(count, 1)
    return MAX_TOKENS_PER_DELTA
