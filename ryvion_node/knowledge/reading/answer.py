"""What a reading process writes to its stdout: a document, or why there is none.

A reader that a hostile file has taken over may write anything, so the form has nothing that grows when it is read: a
head of counts, then text, titles and warnings as UTF-8, then fixed-size records. Little-endian:

    head      tag (4 bytes), bytes of text, bytes of titles, bytes of warnings, titles, blocks, pages (u32 each)
    text      of the document
    titles    one a line; a title and its parents are a path of headings
    warnings  one a line
    parents   u32 for each title: 0, or the number of an earlier title, from 1
    blocks    kind (u8), start, end, number of its last heading or 0, page or 0 (u32 each)

An unreadable document is its tag and the message.
"""

from __future__ import annotations

import struct
from itertools import islice
from typing import Final, get_args

from ryvion_node.knowledge import constants as limits
from ryvion_node.knowledge.interface import Block, BlockKind, DocumentText
from ryvion_node.knowledge.reading.errors import UnreadableDocument

_HEAD: Final = struct.Struct("<4s6I")
_PARENT: Final = struct.Struct("<I")
_BLOCK: Final = struct.Struct("<B4I")
_DOCUMENT: Final = b"text"
_UNREADABLE: Final = b"none"
_KINDS: Final[tuple[BlockKind, ...]] = get_args(BlockKind)


class BadAnswer(Exception):
    """The process wrote what no reader writes."""


def pack_document(document: DocumentText) -> bytes:
    """The document in the form above; raises UnreadableDocument when it has too many headings."""
    numbers: dict[tuple[str, ...], int] = {(): 0}
    parents: list[int] = []
    blocks = bytearray()
    for block in document.blocks:
        for depth in range(1, len(block.headings) + 1):
            if (path := block.headings[:depth]) not in numbers:
                parents.append(numbers[path[:-1]])
                numbers[path] = len(parents)
        kind = _KINDS.index(block.kind)
        blocks += _BLOCK.pack(kind, block.start, block.end, numbers[block.headings], block.page or 0)
    if len(parents) > limits.MAX_TITLES:
        raise UnreadableDocument(f"it has more than {limits.MAX_TITLES:,} headings: split it into several files")
    text = document.text.encode()
    titles = "\n".join(path[-1] for path in islice(numbers, 1, None)).encode()
    warnings = "\n".join(document.warnings).encode()
    counts = (len(text), len(titles), len(warnings), len(parents), len(document.blocks), document.pages or 0)
    head = _HEAD.pack(_DOCUMENT, *counts)
    return b"".join((head, text, titles, warnings, *map(_PARENT.pack, parents), blocks))


def pack_unreadable(message: str) -> bytes:
    """Why there is no document."""
    return _UNREADABLE + message.encode("utf-8", "replace")


def unpack(answer: bytes) -> DocumentText:
    """The document. Raises UnreadableDocument with the reader's message, and BadAnswer."""
    if answer.startswith(_UNREADABLE):
        message = answer[len(_UNREADABLE) :][: 4 * limits.MAX_MESSAGE_CHARS].decode("utf-8", "replace")
        raise UnreadableDocument(_shown(message))
    try:
        return _document(answer)
    except (struct.error, UnicodeDecodeError) as exc:
        raise BadAnswer(f"{type(exc).__name__} in its answer") from exc


def _document(answer: bytes) -> DocumentText:
    tag, text_bytes, title_bytes, warning_bytes, titles, blocks, pages = _HEAD.unpack_from(answer)
    sizes = (text_bytes, title_bytes, warning_bytes, titles * _PARENT.size, blocks * _BLOCK.size)
    _check(tag == _DOCUMENT and len(answer) == _HEAD.size + sum(sizes), "sizes")
    _check(pages <= limits.MAX_PAGES and blocks <= limits.MAX_BLOCKS and titles <= limits.MAX_TITLES, "counts")
    parts: list[bytes] = []
    at = _HEAD.size
    for size in sizes:
        parts.append(answer[at : at + size])
        at += size
    text = parts[0].decode()
    _check(len(text) <= limits.MAX_TEXT_CHARS, "text")
    warnings = tuple(_shown(line) for line in parts[2].decode().split("\n")[: limits.MAX_WARNINGS] if line)
    return DocumentText(text, _blocks(parts[4], _paths(parts[1], parts[3]), len(text), pages), pages or None, warnings)


def _paths(titles: bytes, parents: bytes) -> list[tuple[str, ...]]:
    paths: list[tuple[str, ...]] = [()]
    names = titles.decode().split("\n") if titles else []
    _check(len(names) == len(parents) // _PARENT.size, "titles")
    for name, (parent,) in zip(names, _PARENT.iter_unpack(parents), strict=True):
        _check(parent < len(paths) and 0 < len(name) <= limits.MAX_HEADING_CHARS, "title")
        paths.append((*paths[parent], name))
        _check(len(paths[-1]) <= limits.MAX_HEADINGS, "depth of headings")
    return paths


def _blocks(records: bytes, paths: list[tuple[str, ...]], length: int, pages: int) -> tuple[Block, ...]:
    blocks: list[Block] = []
    last = 0
    for kind, start, end, path, page in _BLOCK.iter_unpack(records):
        _check(kind < len(_KINDS) and path < len(paths) and page <= pages, "block")
        _check(last <= start < end <= length, "span of a block")
        blocks.append(Block(_KINDS[kind], start, end, paths[path], page or None))
        last = end
    return tuple(blocks)


def _check(holds: bool, what: str) -> None:
    if not holds:
        raise BadAnswer(f"wrong {what} in its answer")


def _shown(message: str) -> str:
    """Words for the owner that steer no terminal."""
    return "".join(char if char.isprintable() else " " for char in message[: limits.MAX_MESSAGE_CHARS])
