"""Random marks that stand for texts of other people while a template is rendered.

The template sees a mark wherever such a text would be, and whoever cuts the result at the marks knows which parts the
template wrote itself. A mark that is found must stand there whole: filters that alter it make it unknown.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, SupportsIndex

from ryvion_node.engine.constants import MAX_MARKED_CHARS, MAX_MARKS

_WING: Final = "\u2003"
"""White space put on both sides of a content's mark: gone after rendering, the template trims that side."""
_HEAD, _TAIL = "<\"&'", "Xx'&\">"
"""Escaping filters alter the signs, case filters the letters."""
_SEAL: Final = "([0-9a-f]{24})%s([0-9a-f]{5})"
_MARK: Final = re.compile(f"({_WING}?){_HEAD}{_SEAL % 'c'}{_TAIL}({_WING}?)|{_HEAD}{_SEAL % 'q'}{_TAIL}")
"""White space belongs to a content's mark only: what is quoted may stand right before one."""


class MarksExhausted(Exception):
    """The template makes too much out of what it is given."""


@dataclass(frozen=True, slots=True)
class _Entry:
    text: str
    contents: tuple[int, ...]
    """Messages whose content the text is or holds."""
    is_content: bool = False


class Marks:
    """The marks of one rendering."""

    def __init__(self) -> None:
        self._secret = secrets.token_hex(12)
        self._entries: list[_Entry] = []
        self._room = MAX_MARKED_CHARS

    def content(self, text: str, message: int) -> str:
        """Stands for the content of a message, which must come out exactly once."""
        # Nothing but white space needs no disguise, and templates ask whether there is any content.
        return f"{_WING}{self._add(_Entry(text, (message,), is_content=True))}{_WING}" if text.strip() else text

    def quote(self, value: object) -> Any:
        """The same value with every text in it in disguise, keys too."""
        match value:
            case str():
                return self._quoted(value, ())
            case dict():
                return {self.quote(key): self.quote(item) for key, item in value.items()}
            case list():
                return [self.quote(item) for item in value]
            case _:
                return value

    def arguments(self, value: dict[str, object], text: str) -> Arguments:
        """The arguments of a call: to the template a mapping, or JSON text where it wants a text."""
        return Arguments(self.quote(value), self.quote(text))

    def dump(self, value: object, **layout: Any) -> str:
        """As JSON, in disguise when anything in it was."""
        found: list[_Entry] = []
        text = json.dumps(self._reveal(value, found), **layout)
        if not found:
            return text
        return self._quoted(text, tuple({content for entry in found for content in entry.contents}))

    def cut(self, rendered: str) -> Iterator[tuple[str, bool, tuple[int, ...]]]:
        """The parts of a rendered text: the text, whether it stood behind a mark, and which contents it is or holds."""
        at = 0
        for match, entry, text in self._find(rendered):
            yield rendered[at : match.start()], False, ()
            yield text, True, entry.contents
            at = match.end()
        yield rendered[at:], False, ()

    def left_in(self, text: str) -> bool:
        """Does it hold what is left of a mark that was altered?"""
        return self._secret[:8] in text.lower()

    def _quoted(self, text: str, contents: tuple[int, ...]) -> Quoted:
        def again(part: str) -> Quoted:
            return self._quoted(part, contents)

        return Quoted(self._add(_Entry(text, contents)), text, again)

    def _add(self, entry: _Entry) -> str:
        self._room -= len(entry.text)
        if self._room < 0 or len(self._entries) == MAX_MARKS:
            raise MarksExhausted("the chat template makes too much text of tools and calls")
        self._entries.append(entry)
        return f"{_HEAD}{self._secret}{'c' if entry.is_content else 'q'}{len(self._entries) - 1:05x}{_TAIL}"

    def _find(self, rendered: str) -> Iterator[tuple[re.Match[str], _Entry, str]]:
        """Each mark, and the text behind it, trimmed as the template trimmed the mark."""
        for match in _MARK.finditer(rendered):
            left, secret, index, right, *quoted = match.groups()
            if quoted[0] is not None:
                secret, index = quoted
            if secret != self._secret or int(index, 16) >= len(self._entries):
                continue
            entry = self._entries[int(index, 16)]
            text = entry.text
            if entry.is_content:
                text = text if left else text.lstrip()
                text = text if right else text.rstrip()
            yield match, entry, text

    def _reveal(self, value: object, found: list[_Entry]) -> object:
        match value:
            case str():
                rendered, parts, at = str(value), [], 0
                for match, entry, text in self._find(rendered):
                    parts += [rendered[at : match.start()], text]
                    found.append(entry)
                    at = match.end()
                return "".join((*parts, rendered[at:]))
            case Mapping():
                return {self._reveal(key, found): self._reveal(item, found) for key, item in value.items()}
            case list() | tuple():
                return [self._reveal(item, found) for item in value]
            case _:
                return value


class Quoted(str):
    """Prints as a mark; compares, measures and takes apart as the text behind it."""

    __slots__ = ("_again", "_text")

    def __new__(cls, mark: str, text: str, again: Callable[[str], Quoted]) -> Quoted:
        made = super().__new__(cls, mark)
        made._text, made._again = text, again
        return made

    _text: str
    _again: Callable[[str], Quoted]

    def __eq__(self, other: object) -> bool:
        return bool(self._text == _plain(other))

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __lt__(self, other: str) -> bool:
        return bool(self._text < _plain(other))

    def __hash__(self) -> int:
        return hash(self._text)

    def __len__(self) -> int:
        return len(self._text)

    def __contains__(self, part: object) -> bool:
        return isinstance(part, str) and _plain(part) in self._text

    def __getitem__(self, key: SupportsIndex | slice) -> str:
        return self._again(self._text[key])

    def __iter__(self) -> Iterator[str]:
        return map(self._again, self._text)

    def startswith(self, *args: Any) -> bool:
        return self._text.startswith(*args)

    def endswith(self, *args: Any) -> bool:
        return self._text.endswith(*args)

    def strip(self, *args: Any) -> str:
        return self._again(self._text.strip(*args))

    def lstrip(self, *args: Any) -> str:
        return self._again(self._text.lstrip(*args))

    def rstrip(self, *args: Any) -> str:
        return self._again(self._text.rstrip(*args))

    def lower(self) -> str:
        return self._again(self._text.lower())

    def upper(self) -> str:
        return self._again(self._text.upper())

    def replace(self, *args: Any) -> str:
        return self._again(self._text.replace(*args))

    def split(self, *args: Any, **layout: Any) -> list[str]:
        return [self._again(part) for part in self._text.split(*args, **layout)]


def _plain(value: Any) -> Any:
    return value._text if isinstance(value, Quoted) else value  # noqa: SLF001 - templates must not reach it


class Arguments(dict[str, object]):
    """A mapping that prints as JSON text: templates treat the arguments of a call as either."""

    def __init__(self, values: Mapping[str, object], text: str) -> None:
        super().__init__(values)
        self._text = text

    def __str__(self) -> str:
        return str(self._text)

    def __add__(self, after: str) -> str:
        return str(self) + after

    def __radd__(self, before: str) -> str:
        return before + str(self)
