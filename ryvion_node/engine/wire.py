"""What node and worker say to each other over the child's stdin and stdout.

A frame is u32be(length) + msgpack array of messages; a message is an array [tag, field, ...] in the order of its
class. One frame carries everything that one decode step produced. Both ends are ours, but a worker that runs a
damaged model may write anything: decoding raises WireError and nothing else.
"""

from __future__ import annotations

import struct
import types
import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import msgpack  # type: ignore[import-untyped]

from ryvion_node.engine.constants import MAX_FRAME_BYTES

_LENGTH = struct.Struct(">I")


class WireError(Exception):
    """The other end of the pipe does not speak our language."""


WireCall = tuple[str, str, str]
"""Id, name, arguments."""
WireTurn = tuple[str, str, str, tuple[WireCall, ...], str]
"""Role, content, name, tool calls, id of the call that it answers."""
WireTools = tuple[tuple[tuple[str, str, str], ...], str, str, bool]
"""Name, description and parameters of each tool; choice; the tool that is named; whether several calls may be made."""
WireOutput = tuple[str, str]
"""Kind and text of what the answer must be; two empty texts: anything."""
WireSampling = tuple[float, float, int, float, float, float, float, int, tuple[tuple[int, float], ...]]
"""Temperature, top_p, top_k, min_p, presence, frequency and repetition penalty, seed, logit bias."""
WireAlternative = tuple[bytes, float]
WireLogprob = tuple[bytes, float, tuple[WireAlternative, ...]]
"""The chosen token's bytes and log-probability, and the alternatives."""
WireCallPiece = tuple[int, str, str, str]
"""Index, id, name, arguments."""
WireScore = tuple[float, float, int]
"""Margin, log-probability, rank."""


# Node to worker.


@dataclass(frozen=True, slots=True)
class Start:
    """First message: what to load. Zero or empty means: not given."""

    path: str
    expected_digest: bytes
    known_digest: bytes
    """Digest of exactly this file as found earlier; saves hashing it again."""
    context_tokens: int
    slots: int
    gpu_layers: int
    threads: int
    vocab_only: bool
    template: str
    """Path of a chat template in place of the file's own; empty: none."""
    template_digest: bytes = b""
    """SHA-256 that the template's file must have."""


@dataclass(frozen=True, slots=True)
class Generate:
    """Run a chat job."""

    job: int
    turns: tuple[WireTurn, ...]
    max_tokens: int
    sampling: WireSampling
    stop: tuple[str, ...]
    tools: WireTools
    output: WireOutput
    logprobs: int
    """-1: none; else the number of alternatives."""
    owner: bytes
    credit: int


@dataclass(frozen=True, slots=True)
class Cancel:
    """Nobody waits for this job any more."""

    job: int


@dataclass(frozen=True, slots=True)
class Credit:
    """The reader took so many tokens: the job may run on."""

    job: int
    tokens: int


@dataclass(frozen=True, slots=True)
class CountPrompt:
    """How many tokens has the rendered prompt?"""

    job: int
    turns: tuple[WireTurn, ...]
    tools: WireTools


@dataclass(frozen=True, slots=True)
class CountTexts:
    """How many tokens have these texts, canonically, each by itself, all together?"""

    job: int
    texts: tuple[str, ...]
    whole: bool
    """With the marks that the model wants around a text that is the whole input, as it is embedded?"""


@dataclass(frozen=True, slots=True)
class Score:
    """How well does claimed output fit the model?"""

    job: int
    turns: tuple[WireTurn, ...]
    tokens: tuple[int, ...]
    sampling: WireSampling
    tools: WireTools
    output: WireOutput


@dataclass(frozen=True, slots=True)
class Embed:
    """Make a vector of each text."""

    job: int
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ping:
    """Answered once it went through the tokenising thread, where it is the next to come, and the decode thread."""

    number: int


# Worker to node.


@dataclass(frozen=True, slots=True)
class Loading:
    """Progress while it hashes, loads and measures; keeps the watchdog quiet."""

    stage: str


@dataclass(frozen=True, slots=True)
class Ready:
    """Loaded, tested and measured."""

    digest: bytes
    """Empty in vocab-only mode: the file may be a header cut from the model."""
    file_state: tuple[int, ...]
    """Size, mtime_ns and inode of the file that was hashed."""
    quantisation: str
    kind: str
    """chat or embedding."""
    dimensions: int
    context_tokens: int
    millitokens_per_s: int
    prompt_millitokens_per_s: int
    step_us: tuple[int, ...]
    """Measured time of a decode step with 1, 2, ... slots sequences."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The model cannot be served; the worker exits."""

    message: str


@dataclass(frozen=True, slots=True)
class JobRead:
    """The job has a slot; its prompt, of this many tokens, is read now, but for those already cached."""

    job: int
    prompt_tokens: int
    cached_tokens: int


@dataclass(frozen=True, slots=True)
class JobPiece:
    """What one step added to one job."""

    job: int
    text: str
    tokens: tuple[int, ...]
    reasoning: str
    calls: tuple[WireCallPiece, ...]
    logprobs: tuple[WireLogprob, ...]


@dataclass(frozen=True, slots=True)
class JobEnded:
    """The job is complete; all its pieces came before."""

    job: int
    reason: str
    completion_tokens: int
    reasoning_tokens: int


@dataclass(frozen=True, slots=True)
class JobFailed:
    """For everything that was asked with a job number."""

    job: int
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Counted:
    """The answer to a count."""

    job: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Scored:
    """The answer to a score: one per claimed token."""

    job: int
    scores: tuple[WireScore, ...]


@dataclass(frozen=True, slots=True)
class Embedded:
    """The answer to an embed: little-endian float32 vectors and tokens read, one per text."""

    job: int
    vectors: tuple[bytes, ...]
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Speed:
    """The model runs at another speed than was said in Ready, or later."""

    millitokens_per_s: int
    prompt_millitokens_per_s: int


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to a ping."""

    number: int


ToWorker = Start | Generate | Cancel | Credit | CountPrompt | CountTexts | Score | Embed | Ping
FromWorker = (
    Loading | Ready | Failed | JobRead | JobPiece | JobEnded | JobFailed | Counted | Scored | Embedded | Speed | Pong
)
Message = ToWorker | FromWorker

_TAGS: dict[str, type[Message]] = {
    kind.__name__: kind for kind in (*typing.get_args(ToWorker), *typing.get_args(FromWorker))
}
_FIELD_NAMES = {kind: tuple(field.name for field in fields(kind)) for kind in _TAGS.values()}
_FIELD_TYPES = {
    kind: tuple(typing.get_type_hints(kind)[name] for name in _FIELD_NAMES[kind]) for kind in _TAGS.values()
}


def pack(messages: Iterable[Message]) -> bytes:
    """One frame with these messages."""
    body: bytes = msgpack.packb([_flat(message) for message in messages])
    if len(body) > MAX_FRAME_BYTES:
        raise WireError(f"frame of {len(body)} bytes, limit {MAX_FRAME_BYTES}")
    return _LENGTH.pack(len(body)) + body


def _flat(message: Message) -> list[object]:
    kind = type(message)
    return [kind.__name__, *(getattr(message, name) for name in _FIELD_NAMES[kind])]


class Frames:
    """Cuts a byte stream into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """All messages that are complete now."""
        self._buffer += data
        messages: list[Message] = []
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > MAX_FRAME_BYTES:
                raise WireError(f"frame of {length} bytes, limit {MAX_FRAME_BYTES}")
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                break
            messages += unpack(bytes(self._buffer[_LENGTH.size : end]))
            del self._buffer[:end]
        return messages


def unpack(body: bytes) -> list[Message]:
    """The messages of one frame's body."""
    try:
        rows = msgpack.unpackb(body, use_list=False, strict_map_key=True)
    except Exception as exc:  # msgpack raises a dozen unrelated types
        raise WireError(f"not msgpack: {type(exc).__name__}") from exc
    if not isinstance(rows, tuple):
        raise WireError("a frame is an array of messages")
    return [_message(row) for row in rows]


def _message(row: object) -> Message:
    if not isinstance(row, tuple) or not row or not isinstance(row[0], str) or row[0] not in _TAGS:
        raise WireError("unknown message")
    kind = _TAGS[row[0]]
    expected = _FIELD_TYPES[kind]
    if len(row) != len(expected) + 1 or not all(map(_fits, row[1:], expected)):
        raise WireError(f"malformed {row[0]}")
    return kind(*row[1:])


def _fits(value: object, expected: object) -> bool:
    if isinstance(expected, types.GenericAlias):
        items: Sequence[object] = typing.get_args(expected)
        if not isinstance(value, tuple):
            return False
        if len(items) == 2 and items[1] is Ellipsis:
            return all(_fits(item, items[0]) for item in value)
        return len(value) == len(items) and all(map(_fits, value, items))
    # type() rather than isinstance: True is not an int.
    return type(value) is expected
