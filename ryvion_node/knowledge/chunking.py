"""Cuts a document into chunks: passages small enough to be found and quoted.

A chunk is a span of the document's text. It ends where a section ends; within a section at the end of a block, else of
a sentence or line, else of a word, else anywhere but within what is seen as one character. Chunks of one section overlap
by whole sentences; those of tables do not, since a row says all it has to say. A chunk may go over a page's end, as
sentences do. Time is linear in the text.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ryvion_node.knowledge import constants as limits
from ryvion_node.knowledge.interface import Block, Chunk, DocumentText

_TOP_LEVELS: Final = 2
"""Headings that no chunk goes across: the document's title stands at the first level in most, its chapters at the second."""
_LONGEST_CHARACTER: Final = 32
"""Code points that are kept together at most: a family of emoji has eleven; endless accents are an attack."""
_SENTENCE_END: Final = re.compile(
    # Looks back for the full stop: a pattern that begins with one would try a row of dots from each of them.
    r"""(?<=[.!?…])["'”’»)\]]{0,3}(?=\s+[^\sa-z])|(?<=[。！？｡])[」』”）]{0,3}(?![。！？｡])|(?=\n\s*\n)"""  # noqa: RUF001
)
_SPACE: Final = re.compile(r"\s+")
_LONGEST_END: Final = 4
"""A full stop, a quote and a bracket."""
_OF_LINES: Final = ("table", "list", "code")
_JOINER: Final = "\u200d"
_REGIONAL: Final = "".join(map(chr, range(0x1F1E6, 0x1F200)))


@dataclass(frozen=True, slots=True)
class ChunkSizes:
    """In characters."""

    most: int = limits.CHUNK_CHARS
    """Of one chunk."""
    overlap: int = limits.CHUNK_OVERLAP_CHARS
    """At most, of a chunk that the next one repeats."""

    def __post_init__(self) -> None:
        if self.most < limits.MIN_CHUNK_CHARS or not 0 <= self.overlap <= self.most // 2:
            raise ValueError(f"chunks have at least {limits.MIN_CHUNK_CHARS} characters and overlap by half at most")


DEFAULT_SIZES: Final = ChunkSizes()


def cut(document: DocumentText, sizes: ChunkSizes = DEFAULT_SIZES) -> tuple[Chunk, ...]:
    """All chunks in the order of the text; together they hold every word of every block.

    A chunk's headings are those that all its blocks stand under.
    """
    sections = (_Section(document.text, blocks, sizes) for blocks in _sections(document.blocks))
    found = ((start, end, section.blocks_in(start, end)) for section in sections for start, end in section.spans())
    return tuple(
        Chunk(number, document.text[start:end], start, end, _shared_headings(blocks), blocks[0].page)
        for number, (start, end, blocks) in enumerate(found)
    )


def _sections(blocks: tuple[Block, ...]) -> Iterator[list[Block]]:
    """Runs of blocks that chunks do not leave: each begins with its headings."""
    section: list[Block] = []
    has_body = False
    for block in blocks:
        is_heading = block.kind == "heading"
        if is_heading and has_body and len(block.headings) < _TOP_LEVELS:
            yield section
            section, has_body = [], False
        section.append(block)
        has_body = has_body or not is_heading
    if section:
        yield section


class _Section:
    """One section on its way into spans."""

    def __init__(self, text: str, blocks: list[Block], sizes: ChunkSizes) -> None:
        self._text = text
        self._blocks = blocks
        self._starts = [block.start for block in blocks]
        self._ends = [block.end for block in blocks]
        self._most = sizes.most
        self._overlap = sizes.overlap

    def spans(self) -> Iterator[tuple[int, int]]:
        """In order, without white space at their ends, none empty."""
        end = self._ends[-1]
        start = self._begin(self._starts[0])
        stop = start
        while start < end:
            if end - start <= self._most:
                stop = following = end
            else:
                stop = self._stop(start, stop + 1)
                following = self._begin(self._repeat_from(start, stop))
            if trimmed := self._text[start:stop].rstrip():
                yield start, start + len(trimmed)
            start = following

    def blocks_in(self, start: int, end: int) -> list[Block]:
        """Those that a span holds some of."""
        return self._blocks[self._index(start) : bisect_left(self._starts, end)]

    def _index(self, at: int) -> int:
        """Of the block there, or before the gap there."""
        return max(0, bisect_right(self._starts, at) - 1)

    def _begin(self, at: int) -> int:
        """The first place from `at` on where a chunk can begin: at a word, or the indentation of its line."""
        if at >= self._ends[index := self._index(at)]:
            at = self._starts[index + 1] if index + 1 < len(self._starts) else at
        if (space := _SPACE.match(self._text, at)) is None:
            return at
        line_end = self._text.rfind("\n", max(0, at - 1), space.end())
        return line_end + 1 if line_end >= 0 or at == 0 else space.end()

    def _stop(self, start: int, first: int) -> int:
        """The best end, not before `first`, of the chunk that begins at `start`."""
        high = start + self._most
        across = self._blocks[self._index(high)]
        fits_alone = across.end - across.start <= self._most
        # Better a small chunk now than to cut a block that the next chunk could hold whole.
        low = max(first, start + self._most // (4 if fits_alone else 2))
        best = 0
        for index in range(bisect_right(self._ends, high) - 1, bisect_left(self._ends, low) - 1, -1):
            if self._blocks[index].kind == "heading":
                continue
            if self._blocks[index + 1].kind == "heading":
                return self._ends[index]
            best = best or self._ends[index]
        return best or self._stop_within(across, max(first, start + self._most // 2), high)

    def _stop_within(self, block: Block, low: int, high: int) -> int:
        if block.kind in _OF_LINES and (line_end := self._text.rfind("\n", low, high + 1)) > 0:
            return line_end
        if sentences := [end for end in self._sentence_ends(low, high + 2) if end <= high]:
            return sentences[-1]
        for at in range(high, low - 1, -1):
            if self._text[at].isspace():
                return at
        return _between_characters(self._text, low, high)

    def _repeat_from(self, start: int, stop: int) -> int:
        """Where the next chunk begins, to repeat the end of the one within [start, stop]."""
        index = self._index(stop - 1)
        block = self._blocks[index]
        is_whole = stop >= block.end
        if block.kind == "table" or not self._overlap or (is_whole and self._blocks[index + 1].kind == "heading"):
            return stop
        low = max(start + 1, stop - self._overlap)
        if block.kind in _OF_LINES:
            line_end = self._text.find("\n", low - 1, stop)
            return line_end + 1 if line_end >= 0 else stop
        if sentences := [end for end in self._sentence_ends(low, stop) if end < stop]:
            return sentences[0]
        if is_whole or stop in self._sentence_ends(stop, stop + 2):
            # The last sentence is longer than an overlap.
            return stop
        space = _SPACE.search(self._text, low, stop)
        return space.start() if space else stop

    def _sentence_ends(self, low: int, high: int) -> list[int]:
        """All within [low, high]; what follows them counts as far as `high`."""
        matches = _SENTENCE_END.finditer(self._text, max(0, low - _LONGEST_END), high)
        return [match.end() for match in matches if match.end() >= low]


def _between_characters(text: str, low: int, high: int) -> int:
    """The last place within [low, high] that parts no character from its accents, and no emoji."""
    for at in range(high, max(low, high - _LONGEST_CHARACTER) - 1, -1):
        if not _belongs_together(text, at):
            return at
    return high


def _belongs_together(text: str, at: int) -> bool:
    before, after = text[at - 1], text[at]
    if after < "\u0300":
        return before == "\r" and after == "\n"
    if before == _JOINER or after == _JOINER or unicodedata.category(after) in ("Mn", "Mc", "Me"):
        return True
    if "\U0001f3fb" <= after <= "\U0001f3ff" or "\U000e0020" <= after <= "\U000e007f" or "\u1160" <= after <= "\u11ff":
        # Skin tones, the tags of flags, and the vowels and finals of Hangul.
        return True
    if _is_regional(before) and _is_regional(after):
        # A flag is two of them.
        head = text[max(0, at - _LONGEST_CHARACTER) : at]
        return (len(head) - len(head.rstrip(_REGIONAL))) % 2 == 1
    return False


def _is_regional(char: str) -> bool:
    return _REGIONAL[0] <= char <= _REGIONAL[-1]


def _shared_headings(blocks: list[Block]) -> tuple[str, ...]:
    """A heading within the chunk is read there; those above all of its text are not."""
    paths = [block.headings for block in blocks if block.kind != "heading"] or [blocks[0].headings]
    first, last = min(paths), max(paths)
    # What the first and the last in alphabetical order share, all share.
    shared = 0
    while shared < min(len(first), len(last)) and first[shared] == last[shared]:
        shared += 1
    return first[:shared]
