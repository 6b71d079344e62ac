"""What both sides hash while an answer streams (spec 04, "Hashes of an answer")."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from ryvion_protocol.codec import pack_value
from ryvion_protocol.errors import PayloadInvalid
from ryvion_protocol.messages import CallPiece, Delta, Finished, ToolCall, Vectors
from ryvion_protocol.schema import JobId

_DOMAIN = b"ryvion/v1/transcript\0"


class Transcript:
    """The chain over the Delta or Vectors frames as they were sent: h_0 = SHA-256(domain, job id), h_i = SHA-256(h_(i-1), frame_i)."""

    __slots__ = ("_head",)

    def __init__(self, job_id: JobId) -> None:
        self._head = hashlib.sha256(_DOMAIN + job_id.encode("ascii")).digest()

    def add(self, raw: bytes) -> None:
        """Take in the next one's packet bytes, without the frame header."""
        self._head = hashlib.sha256(self._head + raw).digest()

    @property
    def digest(self) -> bytes:
        """The head of the chain so far; 32 bytes."""
        return self._head


def result_payload(content: str, reasoning: str, calls: Sequence[ToolCall]) -> bytes:
    """The bytes that the result hash is over: the text itself when it is all there is, else one canonical array.

    The two can never be the same bytes: an array of three begins with 0x93, which begins no UTF-8 text.
    """
    if not reasoning and not calls:
        return content.encode()
    return pack_value((content, reasoning, tuple((call.id, call.name, call.arguments) for call in calls)))


class ResultBuilder:
    """Puts an answer together from its Deltas: what is hashed (spec 02) and what is billed (spec 04)."""

    __slots__ = ("_arguments", "_content", "_names", "_reasoning", "text_bytes")

    def __init__(self) -> None:
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._names: list[tuple[str, str]] = []
        """Id and name of each call."""
        self._arguments: list[list[str]] = []
        self.text_bytes = 0
        """UTF-8 bytes of all billable texts so far."""

    def add(self, delta: Delta) -> None:
        """Take in the next Delta; raises PayloadInvalid when it holds a piece of a call out of order."""
        self._content.append(delta.text)
        self._reasoning.append(delta.reasoning)
        self.text_bytes += len(delta.text.encode()) + len(delta.reasoning.encode())
        for piece in delta.calls:
            self._add_piece(piece)

    def _add_piece(self, piece: CallPiece) -> None:
        """A call's first piece has the next index, id and name; more pieces of it follow until the next call begins."""
        begun = len(self._names)
        if piece.id and piece.name and piece.index == begun:
            self._names.append((piece.id, piece.name))
            self._arguments.append([])
        elif piece.id or piece.name or piece.index != begun - 1:
            raise PayloadInvalid("call_order", f"a piece of call {piece.index} cannot come after {begun} begun calls")
        self._arguments[-1].append(piece.arguments)
        self.text_bytes += len(piece.name) + len(piece.arguments.encode())

    @property
    def content(self) -> str:
        """The answer's text so far."""
        return "".join(self._content)

    @property
    def reasoning(self) -> str:
        """The thoughts before it so far."""
        return "".join(self._reasoning)

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The tool calls so far."""
        return tuple(
            ToolCall(call_id, name, "".join(arguments))
            for (call_id, name), arguments in zip(self._names, self._arguments, strict=True)
        )

    @property
    def payload(self) -> bytes:
        """What the result hash is over."""
        return result_payload(self.content, self.reasoning, self.calls)

    @property
    def digest(self) -> bytes:
        """The result hash so far; 32 bytes."""
        return hashlib.sha256(self.payload).digest()

    def billable_texts(self) -> tuple[str, ...]:
        """The texts whose token counts are billed: content, reasoning, each call's name and arguments; no empty ones."""
        texts = [self.content, self.reasoning]
        for call in self.calls:
            texts += (call.name, call.arguments)
        return tuple(text for text in texts if text)


class VectorsResult:
    """Holds the Vectors of one job to their order, and hashes their numbers (spec 02, "Result hash")."""

    __slots__ = ("_hash", "_next_seq", "_texts", "count", "dimensions", "value_bytes")

    def __init__(self, texts: int) -> None:
        """`texts`: how many were ordered."""
        self._texts = texts
        self._hash = hashlib.sha256()
        self._next_seq = 0
        self.count = 0
        """Vectors so far: those of the first texts."""
        self.dimensions = 0
        """0 before the first."""
        self.value_bytes = 0

    def add(self, vectors: Vectors) -> None:
        """Take in the next message; raises PayloadInvalid when it is another one."""
        place, wanted = (vectors.seq, vectors.first), (self._next_seq, self.count)
        if place != wanted:
            raise PayloadInvalid("vectors_order", f"message {wanted[0]} with vector {wanted[1]} wanted, {place} came")
        if self.dimensions not in (0, vectors.dimensions):
            raise PayloadInvalid("vectors_order", f"{vectors.dimensions} dimensions after {self.dimensions}")
        if self.count + vectors.count > self._texts:
            raise PayloadInvalid("vectors_order", f"more vectors than the {self._texts} texts ordered")
        self.dimensions = vectors.dimensions
        self._next_seq += 1
        self.count += vectors.count
        self.value_bytes += len(vectors.values)
        self._hash.update(vectors.values)

    def check_end(self, finished: Finished) -> None:
        """Raise PayloadInvalid when such a job cannot end so: with stop all texts have their vectors."""
        if finished.reason == "tool_calls" or (finished.reason == "stop" and self.count < self._texts):
            raise PayloadInvalid(
                "vectors_missing", f"it ended with {finished.reason} after {self.count} of {self._texts} vectors"
            )

    @property
    def digest(self) -> bytes:
        """The result hash so far; 32 bytes."""
        return self._hash.digest()


class DeltaOrder:
    """Holds deltas to seq 0, 1, 2, ... and to choice 0, the only one a job has in this version."""

    __slots__ = ("_next",)

    def __init__(self) -> None:
        self._next = 0

    def add(self, delta: Delta) -> None:
        """Raise PayloadInvalid when this is not the next one."""
        if delta.seq != self._next or delta.choice != 0:
            raise PayloadInvalid("delta_order", f"delta {self._next} of choice 0 wanted, {delta.seq} of {delta.choice}")
        self._next += 1
