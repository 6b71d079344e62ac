"""The bookmarks of a PDF as the headings of its text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

from pypdf import PdfReader
from pypdf.generic import Destination

from ryvion_node.knowledge import constants as limits
from ryvion_node.knowledge.reading.builder import TextBuilder
from ryvion_node.knowledge.reading.outline import Outline
from ryvion_node.knowledge.reading.plain import read_plain

Bookmark = tuple[int, str]
"""Level, title."""

_LOOK_AHEAD: Final = 8
"""Bookmarks of one page whose title is looked for at once: those of pictures are not found."""
_NUMBERING_CHARS: Final = 12
"""Of a line before its title: `Chapter 12`, `12.3.4`."""


def bookmarks(reader: PdfReader) -> dict[int, list[Bookmark]]:
    """By page number, in their order; none where they are damaged."""
    found: defaultdict[int, list[Bookmark]] = defaultdict(list)
    try:
        for level, entry in _flat(reader.outline):
            if isinstance(entry, Destination) and entry.title:
                page = reader.get_destination_page_number(entry)
                if page is not None and page >= 0:
                    found[page + 1].append((level, entry.title))
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - a damaged file raises anything, and its text can be read without them
        return {}
    return found


def _flat(outline: Sequence[object]) -> Iterator[tuple[int, object]]:
    """Inner lists follow the entry that they stand under."""
    waiting = [iter(outline)]
    for _ in range(limits.MAX_BOOKMARKS):
        entry = next(waiting[-1], None)
        if isinstance(entry, list):
            waiting.append(iter(entry))
        elif entry is not None:
            yield len(waiting), entry
        else:
            waiting.pop()
            if not waiting:
                return


def read_page(text: str, marks: list[Bookmark], outline: Outline, builder: TextBuilder, page: int) -> None:
    """Add the page's blocks; a line that reads like a bookmark is a heading.

    Bookmarks without such a line count from the top of the page, or from its end where others were found above.
    """
    lines = text.split("\n")
    begun, entered = 0, 0
    for line, mark in [*_headings(lines, marks), (len(lines), len(marks))]:
        if not begun:
            _enter(marks[entered:mark], outline)
        read_plain("\n".join(lines[begun:line]), builder, page, outline.path)
        if begun:
            _enter(marks[entered:mark], outline)
        if mark < len(marks):
            level, title = marks[mark]
            builder.add("heading", lines[line], outline.enter(level, title), page)
        begun, entered = line + 1, mark + 1


def _enter(marks: list[Bookmark], outline: Outline) -> None:
    for level, title in marks:
        outline.enter(level, title)


def _headings(lines: list[str], marks: list[Bookmark]) -> Iterator[tuple[int, int]]:
    """Numbers of lines and of the bookmarks that they show."""
    keys = [_key(title) for _level, title in marks]
    following = 0
    for number, line in enumerate(lines):
        if following == len(keys):
            return
        key = _key(line) if len(line) <= limits.MAX_HEADING_CHARS else ""
        for mark in range(following, min(following + _LOOK_AHEAD, len(keys))):
            if keys[mark] and key.endswith(keys[mark]) and len(key) <= len(keys[mark]) + _NUMBERING_CHARS:
                yield number, mark
                following = mark + 1
                break


def _key(line: str) -> str:
    """Letters and digits alone: spaces are guessed in a PDF."""
    return "".join(filter(str.isalnum, line[: limits.MAX_HEADING_CHARS])).casefold()
