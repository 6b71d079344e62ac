"""Reads tool calls out of JSON text that streams in: one object, or a list of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final, Literal

from ryvion_node.engine.constants import MAX_HELD_CHARS
from ryvion_node.engine.worker.speech.tools import call_arguments

_SPACE: Final = " \t\r\n"
_ARGUMENTS: Final = frozenset({"arguments", "parameters"})
_KEYS: Final = _ARGUMENTS | {"name", "id", "type"}
_CLOSERS: Final = {"{": "}", "[": "]"}
_LONGEST_NAMED: Final = 200
"""A name, an id and the markers around them."""
_SCALARS: Final = frozenset("-0123456789tfn")


class NotACall(Exception):
    """This calls no tool that was offered; what is held back is plain text."""


@dataclass(frozen=True, slots=True)
class Called:
    """A call begins."""

    name: str


@dataclass(frozen=True, slots=True)
class Argued:
    """More of the arguments' text."""

    text: str


@dataclass(frozen=True, slots=True)
class CallEnded:
    """The call is complete."""


Event = Called | Argued | CallEnded


class CallReader:
    """Takes in one character after the other; `held` is the text of which nothing came out yet."""

    def __init__(self, names: frozenset[str], separator: str = "", id_marker: str = "") -> None:
        """`separator`, `id_marker`: as in `CallStyle`."""
        self._names = names
        self._separator, self._id_marker = separator, id_marker
        self._read = self._named if separator else self._start
        self._listed = False
        self._value = _Value()
        self._key = ""
        self._text: list[str] = []
        self._name = ""
        self._arguments = ""
        self._given = False
        self.held: list[str] = []
        self.begun = False
        """A call came out."""
        self.complete = False

    def feed(self, char: str) -> tuple[Event, ...]:
        """What is certain now. Raises NotACall, after which nothing may be fed."""
        self.held.append(char)
        if len(self.held) > MAX_HELD_CHARS:
            raise NotACall
        return self._read(char)

    def _start(self, char: str) -> tuple[Event, ...]:
        if char == "[" and not self._listed:
            self._listed = True
        elif char == "{":
            self._name, self._arguments, self._given = "", "", False
            self._read = self._first_key
        elif char not in _SPACE:
            raise NotACall
        return ()

    def _named(self, char: str) -> tuple[Event, ...]:
        """A name, then the arguments alone."""
        self._text.append(char)
        text = "".join(self._text).lstrip()
        if text in ("{", "["):
            self._separator, self._read = "", self._start
            return self._start(char)
        if text.endswith(self._separator):
            self._name = text.removesuffix(self._separator).partition(self._id_marker)[0].strip()
            self._key, self._read = "arguments", self._before_value
            if self._name not in self._names:
                raise NotACall
        elif len(text) > _LONGEST_NAMED:
            raise NotACall
        return ()

    def _first_key(self, char: str) -> tuple[Event, ...]:
        if char == '"':
            self._value, self._text = _Value(), []
            self._read = self._in_key
            return self._in_key(char)
        if char not in _SPACE:
            raise NotACall
        return ()

    def _in_key(self, char: str) -> tuple[Event, ...]:
        self._text.append(char)
        if self._value.take(char) == "last":
            self._key = _string("".join(self._text))
            if self._key not in _KEYS:
                raise NotACall
            self._read = self._colon
        return ()

    def _colon(self, char: str) -> tuple[Event, ...]:
        if char == ":":
            self._read = self._before_value
        elif char not in _SPACE:
            raise NotACall
        return ()

    def _before_value(self, char: str) -> tuple[Event, ...]:
        if char in _SPACE:
            return ()
        self._value, self._text = _Value(), []
        if self._key in _ARGUMENTS and char == "{" and self._name and not self._given:
            self._given = self.begun = True
            self._value.take(char)
            self._read = self._streamed
            self.held.clear()
            return Called(self._name), Argued(char)
        if self._separator:
            raise NotACall
        self._read = self._in_value
        return self._in_value(char)

    def _streamed(self, char: str) -> tuple[Event, ...]:
        where = self._value.take(char)
        self.held.clear()
        if where == "last" and self._separator:
            self.complete = True
            return Argued(char), CallEnded()
        if where == "last":
            self._read = self._after_value
        return (Argued(char),)

    def _in_value(self, char: str) -> tuple[Event, ...]:
        where = self._value.take(char)
        if where != "after":
            self._text.append(char)
        if where == "inside":
            return ()
        self._keep("".join(self._text))
        self._read = self._after_value
        return self._after_value(char) if where == "after" else ()

    def _keep(self, text: str) -> None:
        if self._key == "name":
            self._name = _string(text)
            if self._name not in self._names:
                raise NotACall
        elif self._key in _ARGUMENTS:
            self._arguments = _object(text)

    def _after_value(self, char: str) -> tuple[Event, ...]:
        if char == ",":
            self._read = self._first_key
        elif char == "}":
            return self._end()
        elif char not in _SPACE:
            raise NotACall
        return ()

    def _end(self) -> tuple[Event, ...]:
        if not self._name:
            raise NotACall
        self.held.clear()
        self.begun = True
        self.complete = not self._listed
        self._read = self._next
        if self._given:
            return (CallEnded(),)
        return Called(self._name), Argued(self._arguments or "{}"), CallEnded()

    def _next(self, char: str) -> tuple[Event, ...]:
        if char == ",":
            self._read = self._start
        elif char == "]":
            self.held.clear()
            self.complete = True
        elif char not in _SPACE:
            raise NotACall
        return ()


class _Value:
    """Finds the end of one JSON value."""

    def __init__(self) -> None:
        self._closers: list[str] = []
        self._in_string = self._escaped = self._begun = False

    def take(self, char: str) -> Literal["inside", "last", "after"]:
        """Where the character is; after a number or a word the value ends before it. Raises NotACall."""
        if self._in_string:
            if self._escaped:
                self._escaped = False
            elif char == "\\":
                self._escaped = True
            elif char == '"':
                self._in_string = False
                return "inside" if self._closers else "last"
            return "inside"
        if self._begun and not self._closers:
            return "after" if char in ",}]" or char in _SPACE else "inside"
        if char == '"':
            self._in_string = True
        elif char in _CLOSERS:
            self._closers.append(_CLOSERS[char])
        elif self._closers and char == self._closers[-1]:
            self._closers.pop()
            if not self._closers:
                return "last"
        elif char in "}]" or not (self._closers or char in _SCALARS):
            raise NotACall
        self._begun = True
        return "inside"


def _string(text: str) -> str:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, str):
        raise NotACall
    return value


def _object(text: str) -> str:
    """Arguments as JSON text, also if the model wrapped them in a string."""
    if text.startswith('"'):
        text = _string(text)
    if text == "null":
        return "{}"
    # A string may spell half of a surrogate pair, which no pipe carries.
    if call_arguments(text) is None or text != text.encode("utf-8", "replace").decode():
        raise NotACall
    return text
