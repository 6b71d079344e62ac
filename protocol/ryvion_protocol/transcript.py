"""What both sides hash while an answer streams (spec 04, "Hashes of an answer")."""

from __future__ import annotations

import hashlib

from ryvion_protocol.errors import PayloadInvalid
from ryvion_protocol.messages import Delta
from ryvion_protocol.schema import JobId

_DOMAIN = b"ryvion/v1/transcript\0"


class Transcript:
    """The chain over the Delta frames as they were sent: h_0 = SHA-256(domain, job id), h_i = SHA-256(h_(i-1), frame_i)."""

    __slots__ = ("_head",)

    def __init__(self, job_id: JobId) -> None:
        self._head = hashlib.sha256(_DOMAIN + job_id.encode("ascii")).digest()

    def add(self, raw: bytes) -> None:
        """Take in the next Delta's packet bytes, without the frame header."""
        self._head = hashlib.sha256(self._head + raw).digest()

    @property
    def digest(self) -> bytes:
        """The head of the chain so far; 32 bytes."""
        return self._head


class ResultHasher:
    """The result hash of a text answer: SHA-256 of the UTF-8 of all its pieces."""

    __slots__ = ("_hash", "text_bytes")

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.text_bytes = 0
        """UTF-8 bytes so far."""

    def add(self, text: str) -> None:
        data = text.encode()
        self._hash.update(data)
        self.text_bytes += len(data)

    @property
    def digest(self) -> bytes:
        """The hash so far; 32 bytes."""
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
