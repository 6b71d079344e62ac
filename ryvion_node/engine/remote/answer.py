"""Reads the chunks of a streamed chat completion, whatever server they come from (pure)."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from ryvion_node.engine.interface import Alternative, CallPiece, Piece, TokenLogprob
from ryvion_node.engine.remote import constants as limits
from ryvion_node.engine.remote.http import ServerRefused, parsed
from ryvion_node.engine.remote.sse import Garbled

Reason = Literal["stop", "length", "tool_calls"]
_REASONS: Final[Mapping[str, Reason]] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "eos_token": "stop",
    "stop_sequence": "stop",
}
_NAME: Final = re.compile(r"[A-Za-z0-9_-]+")
DONE: Final = "[DONE]"
_Object = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Usage:
    """What the server says it read and wrote, in tokens."""

    prompt_tokens: int
    completion_tokens: int
    reasoning_tokens: int


class Answer:
    """One answer as it grows. `add` takes an event's data; what it raises names the fault and holds no text of it."""

    def __init__(self, max_tokens: int, logprobs: int | None, echo: str = "") -> None:
        """`echo`: what the server repeats in front of the answer, a prefix that it continues."""
        self._echo = echo
        self._most_bytes = limits.ANSWER_BASE_BYTES + limits.ANSWER_BYTES_PER_TOKEN * max_tokens
        self._logprobs = logprobs
        self._bytes = 0
        self._text = _Joined()
        self._thoughts = _Joined()
        self._calls = _Calls()
        self._reason: str = ""
        self.usage: Usage | None = None
        self.done = False
        self.chunks = 0
        """Those that carried something generated."""

    def add(self, data: str) -> Piece | None:
        """What a chunk adds to the answer. Raises Garbled or ServerRefused."""
        if data.strip() == DONE:
            self.done = True
            return None
        chunk = parsed(data)
        if not isinstance(chunk, dict):
            raise Garbled("a chunk of its stream is not a JSON object")
        _raise_error(chunk)
        self.usage = _usage(chunk.get("usage")) or self.usage
        choices = chunk.get("choices") or []
        if not isinstance(choices, list) or len(choices) > 1:
            raise Garbled("a chunk of its stream has more than the one choice that was asked for")
        return self._choice(_object(choices[0], "choice")) if choices else None

    def end(self) -> Reason:
        """Why the answer ended, once the stream is over. Raises Garbled when it was cut off."""
        if not self._reason or not self.done:
            raise Garbled("its stream ended before the answer did")
        reason = _REASONS.get(self._reason)
        if reason is None:
            raise Garbled("it broke the answer off")
        return "tool_calls" if reason == "stop" and self.has_calls() else reason

    def rest(self) -> Piece | None:
        """What was held back because it may have been half a character."""
        text, thoughts = self._text.rest(), self._thoughts.rest()
        return Piece(text=text, reasoning=thoughts) if text or thoughts else None

    def has_calls(self) -> bool:
        return bool(self._calls.texts())

    def texts(self) -> tuple[str, ...]:
        """Billable texts but the reasoning: the content, then each call's name and arguments (spec 04)."""
        return tuple(text for text in (self._text.whole(), *self._calls.texts()) if text)

    def thoughts(self) -> str:
        return self._thoughts.whole()

    def _choice(self, choice: _Object) -> Piece | None:
        if choice.get("index") not in (None, 0):
            raise Garbled("a chunk of its stream is of another choice than the one that was asked for")
        delta = choice.get("delta")
        piece = self._delta(_object(delta, "delta"), choice.get("logprobs")) if delta is not None else None
        if piece is not None and self._reason:
            raise Garbled("its stream goes on after the answer's end")
        reason = choice.get("finish_reason")
        if reason is not None:
            if not isinstance(reason, str) or self._reason not in ("", reason):
                raise Garbled("its stream ends the answer in two ways")
            self._reason = reason
        return piece

    def _delta(self, delta: _Object, logprobs: object) -> Piece | None:
        text = self._text.add(self._without_echo(_text(delta.get("content"))))
        thoughts = self._thoughts.add(_text(delta.get("reasoning")) or _text(delta.get("reasoning_content")))
        calls = self._calls.add(delta.get("tool_calls") or ())
        chances = self._chances(logprobs)
        if not (text or thoughts or calls or chances):
            return None
        self.chunks += 1
        self._bytes += _utf8_bytes(text) + _utf8_bytes(thoughts)
        self._bytes += sum(len(call.arguments.encode()) + len(call.name) for call in calls)
        if self._bytes > self._most_bytes:
            raise Garbled(f"its answer is longer than {self._most_bytes} bytes, for the tokens that were asked for")
        return Piece(text=text, reasoning=thoughts, calls=calls, logprobs=chances)

    def _without_echo(self, text: str) -> str:
        if not self._echo:
            return text
        echoed = min(len(text), len(self._echo))
        if text[:echoed] != self._echo[:echoed]:
            raise Garbled("it continues another text than it was given")
        self._echo = self._echo[echoed:]
        return text[echoed:]

    def _chances(self, logprobs: object) -> tuple[TokenLogprob, ...]:
        if self._logprobs is None or not isinstance(logprobs, dict):
            return ()
        content = logprobs.get("content") or ()
        if not isinstance(content, Sequence):
            raise Garbled("its log-probabilities are no list")
        return tuple(self._chance(_object(entry, "log-probability")) for entry in content)

    def _chance(self, entry: _Object) -> TokenLogprob:
        top = entry.get("top_logprobs") or []
        if not isinstance(top, list):
            raise Garbled("its alternatives are no list")
        others = [_alternative(_object(other, "alternative")) for other in top[: self._logprobs]]
        others.sort(key=lambda other: -other.logprob)
        return TokenLogprob(_alternative(entry), tuple(others))


class _Joined:
    """A text in pieces, none of which splits a character that a server cut into two halves of a surrogate pair."""

    def __init__(self) -> None:
        self._half = ""
        self._parts: list[str] = []

    def add(self, text: str) -> str:
        if not text and not self._half:
            return ""
        text = self._half + text
        self._half = ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        return self._keep(text)

    def rest(self) -> str:
        half, self._half = self._half, ""
        return self._keep(half)

    def whole(self) -> str:
        return "".join(self._parts)

    def _keep(self, text: str) -> str:
        joined = _whole_characters(text)
        self._parts.append(joined)
        return joined


@dataclass(slots=True)
class _Call:
    """One tool call as it grows."""

    id: str
    name: str
    arguments: list[str]


class _Calls:
    """Tool calls in pieces. Some servers leave the index away, repeat id and name, or give no id."""

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._places: dict[int, int] = {}
        """The server's index -> ours."""

    def texts(self) -> tuple[str, ...]:
        return tuple(text for call in self._calls for text in (call.name, "".join(call.arguments)))

    def add(self, pieces: object) -> tuple[CallPiece, ...]:
        if not isinstance(pieces, Sequence) or isinstance(pieces, str):
            raise Garbled("its tool calls are no list")
        return tuple(self._add(_object(piece, "tool call")) for piece in pieces)

    def _add(self, piece: _Object) -> CallPiece:
        said = _object(piece.get("function") or {}, "function")
        name, arguments = _text(said.get("name")), said.get("arguments")
        if isinstance(arguments, dict):  # some give the finished arguments as an object
            arguments = _compact(arguments)
        index = self._place(piece.get("index"), _text(piece.get("id")), name)
        fresh = index == len(self._calls)
        if fresh:
            if not _NAME.fullmatch(name) or len(name) > limits.MAX_CALL_NAME_CHARS:
                raise Garbled("a tool call of its answer has no usable name")
            if index >= limits.MAX_CALLS:
                raise Garbled(f"its answer has more than {limits.MAX_CALLS} tool calls")
            self._calls.append(_Call(self._id(_text(piece.get("id"))), name, []))
        elif index < len(self._calls) - 1:
            raise Garbled("it goes on with a tool call after the next one began")
        call = self._calls[index]
        added = _whole_characters(_text(arguments))
        call.arguments.append(added)
        return CallPiece(index, call.id if fresh else "", call.name if fresh else "", added)

    def _id(self, given: str) -> str:
        usable = given and given.isascii() and given.isprintable() and len(given) <= limits.MAX_CALL_ID_BYTES
        is_taken = any(call.id == given for call in self._calls)
        return given if usable and not is_taken else f"call_{secrets.token_hex(12)}"

    def _place(self, index: object, call_id: str, name: str) -> int:
        """Our index of the call that a piece belongs to; one past the last for a new call."""
        if isinstance(index, int) and not isinstance(index, bool):
            place = self._places.setdefault(index, len(self._calls))
            begins_another = name and place < len(self._calls) and call_id not in ("", self._calls[place].id)
            if begins_another:  # all calls under one index
                place = self._places[index] = len(self._calls)
            return place
        if index is not None:
            raise Garbled("the index of a tool call is no number")
        if name or not self._calls:
            return len(self._calls)
        return len(self._calls) - 1


def _compact(arguments: object) -> str:
    try:
        return json.dumps(arguments, ensure_ascii=False, separators=(",", ":"))
    except RecursionError:
        raise Garbled("the arguments of a tool call are nested too deep") from None


def _utf8_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _whole_characters(text: str) -> str:
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _raise_error(chunk: _Object) -> None:
    error = chunk.get("error")
    if error is None and chunk.get("object") == "error":
        error = chunk
    if error is not None:
        code = error.get("code") if isinstance(error, dict) else None
        status = code if isinstance(code, int) and 400 <= code <= 599 else 500
        raise ServerRefused(status, chunk)


def _usage(told: object) -> Usage | None:
    if not isinstance(told, dict):
        return None
    prompt, completion = _count(told.get("prompt_tokens")), _count(told.get("completion_tokens"))
    if prompt is None or completion is None:
        return None
    written = told.get("completion_tokens_details")
    thought = _count((written if isinstance(written, dict) else told).get("reasoning_tokens"))
    return Usage(prompt, completion, min(thought or 0, completion))


def _count(value: object) -> int | None:
    usable = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31
    return value if isinstance(value, int) and usable else None


def _alternative(entry: _Object) -> Alternative:
    raw, logprob = entry.get("bytes"), entry.get("logprob")
    if isinstance(logprob, bool) or not isinstance(logprob, int | float) or not abs(logprob) < limits.MAX_LOGPROB:
        raise Garbled("a log-probability is no number, or none that can be")
    if isinstance(raw, list) and all(isinstance(byte, int) and 0 <= byte <= 255 for byte in raw):
        piece = bytes(raw)
    else:
        piece = _whole_characters(_text(entry.get("token"))).encode()
    return Alternative(piece[: limits.MAX_PIECE_BYTES], min(float(logprob), 0.0))


def _object(value: object, what: str) -> _Object:
    if not isinstance(value, dict):
        raise Garbled(f"a {what} in its stream is not a JSON object")
    return value


def _text(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Garbled("a text in its stream is no text")
    return value
