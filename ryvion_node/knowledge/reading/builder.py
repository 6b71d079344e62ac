"""Puts a document together, block by block, in one form of text.

The text of a document is Unicode NFC with `\\n` as line end, without control characters other than line ends and tabs,
without characters that only steer how others are shown, and without lone surrogates: two files that look alike give the same chunks, and so the same hashes.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from ryvion_node.knowledge import constants as limits
from ryvion_node.knowledge.interface import Block, BlockKind, DocumentText
from ryvion_node.knowledge.reading.errors import UnreadableDocument

_BETWEEN: Final = "\n\n"
_LINE_ENDS: Final = re.compile("\r\n?|[\v\f\x85\u2028\u2029]")
_CONTROLS: Final = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")
_INVISIBLE: Final = re.compile("[\u00ad\u202a-\u202e\u2060\u2066-\u2069\ufeff\U000e0000-\U000e007f]")
"""Soft hyphens, marks of direction and order, tags: they hide words from a search, or hold some that nobody sees."""
_SURROGATES: Final = re.compile("[\ud800-\udfff]")
_EMBEDDED: Final = re.compile(r"data:[\w/+.;=-]{1,100}base64,[A-Za-z0-9+/=]+")
_TRAILING_SPACES: Final = re.compile(r"(?<=\S)[ \t]+(?=\n)")
_EMPTY_LINES: Final = re.compile(r"\n(?:[ \t]*\n){2,}")


class TextBuilder:
    """Collects blocks and warnings; raises UnreadableDocument when a document outgrows its limits."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._blocks: list[Block] = []
        self._warnings: list[str] = []
        self._paths: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._length = 0

    @property
    def is_empty(self) -> bool:
        """Nothing was added that can be read."""
        return not self._blocks

    def add(self, kind: BlockKind, text: str, headings: tuple[str, ...] = (), page: int | None = None) -> None:
        """Add a block; one without any text is left out."""
        text = clean(text).strip("\n")
        if kind != "code":
            text = text.strip()
        if not text.strip():
            return
        start = self._length + len(_BETWEEN) if self._blocks else 0
        if start + len(text) > limits.MAX_TEXT_CHARS or len(self._blocks) >= limits.MAX_BLOCKS:
            raise UnreadableDocument(
                f"it holds more than {limits.MAX_TEXT_CHARS // 1_000_000} million characters or"
                f" {limits.MAX_BLOCKS:,} paragraphs: split it into several files"
            )
        self._length = start + len(text)
        self._parts.append(text)
        self._blocks.append(Block(kind, start, self._length, self._path(headings), page))

    def warn(self, warning: str) -> None:
        """Note what could not be read."""
        if len(self._warnings) < limits.MAX_WARNINGS:
            self._warnings.append(line(warning, limits.MAX_MESSAGE_CHARS))

    def build(self, pages: int | None = None) -> DocumentText:
        """The document so far."""
        return DocumentText(_BETWEEN.join(self._parts), tuple(self._blocks), pages, tuple(self._warnings))

    def _path(self, headings: tuple[str, ...]) -> tuple[str, ...]:
        """One object for all blocks under a heading."""
        if (known := self._paths.get(headings)) is None:
            titles = (line(heading, limits.MAX_HEADING_CHARS) for heading in headings[: limits.MAX_HEADINGS])
            known = self._paths[headings] = tuple(title for title in titles if title)
        return known


def clean(text: str) -> str:
    """The one form of text; see the module."""
    text = _LINE_ENDS.sub("\n", text)
    text = _CONTROLS.sub(" ", text)
    text = _INVISIBLE.sub("", text)
    text = _SURROGATES.sub("\ufffd", text)
    text = _TRAILING_SPACES.sub("", text)
    text = _EMPTY_LINES.sub("\n\n", text)
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def without_pictures(text: str) -> str:
    """Saved pages hold them as text: it says nothing, and is too long for some parsers."""
    return _EMBEDDED.sub("", text)


def line(text: str, longest: int) -> str:
    """One line without control characters, cut at `longest` characters."""
    words = " ".join(clean(text[: 4 * longest]).split())
    return words if len(words) <= longest else words[: longest - 1].rstrip() + "…"
