"""Field types of messages: a Python annotation that says exactly which values are legal.

A message is a frozen dataclass whose annotations use the aliases below; `codec` reads them once per class
and checks every value that is encoded or decoded. Source: specs/00.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, NewType

from ryvion_protocol.constants import MAX_FEATURES, MAX_GRAMMAR_BYTES, MAX_METERING_UNITS, MAX_PRICE


@dataclass(frozen=True, slots=True)
class Size:
    """Inclusive bounds: of a number's value, of bytes, of a string's UTF-8 bytes, of a tuple's length."""

    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Pattern:
    """A regular expression that the whole string must match."""

    regex: str


@dataclass(frozen=True, slots=True)
class Lengths:
    """The only lengths in bytes that are legal."""

    allowed: tuple[int, ...]


NodeKey = NewType("NodeKey", bytes)
"""32-byte Ed25519 public key: a node's identity, its libp2p peer id and its receipt key."""
JobId = NewType("JobId", str)
"""64 lowercase hex digits: SHA-256 of the JobOffer body."""

U32 = Annotated[int, Size(0, 2**32 - 1)]
U53 = Annotated[int, Size(0, MAX_METERING_UNITS)]
"""Counts, money in micro-credits, and times in Unix milliseconds."""
Price = Annotated[int, Size(0, MAX_PRICE)]
"""Micro-credits per million tokens."""
U64 = Annotated[int, Size(0, 2**64 - 1)]
Key = Annotated[NodeKey, Size(32, 32)]
Hash = Annotated[bytes, Size(32, 32)]
OptionalHash = Annotated[bytes, Size(0, 32), Lengths((0, 32))]
"""32 bytes, or none at all."""
Nonce = Annotated[bytes, Size(16, 16)]
Signature = Annotated[bytes, Size(64, 64)]
PRINTABLE = r"[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]*"
"""No control characters, line separators or text-direction overrides: what a peer says is shown on terminals."""
Label = Annotated[str, Size(0, 64), Pattern(PRINTABLE)]
"""Short human-readable text; shown, never interpreted. `as_label` makes one of any text."""
ModelName = Annotated[str, Size(1, 96), Pattern(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]*")]
OptionalModelName = Annotated[str, Size(0, 96), Pattern(r"([A-Za-z0-9][A-Za-z0-9._:/@+-]*)?")]
Code = Annotated[str, Size(1, 64), Pattern(r"[a-z][a-z0-9_]*")]
OptionalCode = Annotated[str, Size(0, 64), Pattern(r"([a-z][a-z0-9_]*)?")]
Country = Annotated[str, Size(2, 2), Pattern(r"[A-Z]{2}")]
"""ISO 3166-1 alpha-2, upper case."""
Text = Annotated[str, Size(0, 256 * 1024)]
"""Prompt or answer text."""
Note = Annotated[str, Size(0, 512), Pattern(PRINTABLE)]
"""A sentence for a person; never parsed. `as_note` makes one of any text."""
ToolName = Annotated[str, Size(1, 64), Pattern(r"[A-Za-z0-9_-]+")]
OptionalToolName = Annotated[str, Size(0, 64), Pattern(r"[A-Za-z0-9_-]*")]
Grammar = Annotated[str, Size(0, MAX_GRAMMAR_BYTES)]
"""A JSON Schema, a regular expression or a Lark grammar."""
Features = Annotated[tuple[Code, ...], Size(0, MAX_FEATURES)]
"""What an engine can do (spec 03): seeded, counted, top_k, min_p, penalties, ... in rising order."""
Address = Annotated[str, Size(1, 256), Pattern(r"/[!-~]+")]
"""A multiaddr in text form."""
HexJobId = Annotated[JobId, Size(1, 64), Pattern(r"[0-9a-f-]{1,64}")]


_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]+")


def as_label(text: str) -> str:
    """Make a legal Label of any text: unprintable runs become a space, and it is cut to 64 bytes."""
    return _fitted(text, 64)


def as_note(text: str) -> str:
    """Make a legal Note of any text, cut to 512 bytes."""
    return _fitted(text, 512)


def _fitted(text: str, max_bytes: int) -> str:
    return _UNPRINTABLE.sub(" ", text).encode()[:max_bytes].decode(errors="ignore")
