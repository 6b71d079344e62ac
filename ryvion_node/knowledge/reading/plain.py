"""Plain text: a block for each paragraph."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ryvion_node.knowledge.interface import BlockKind
from ryvion_node.knowledge.reading.builder import TextBuilder, clean

_LIST_ITEM = re.compile(r"\s*(?:[-*+•‣]|\d{1,3}[.)])\s")


def read_plain(text: str, builder: TextBuilder, page: int | None = None, headings: tuple[str, ...] = ()) -> None:
    """Paragraphs stand between empty lines."""
    for paragraph in paragraphs(text):
        kind: BlockKind = "list" if _LIST_ITEM.match(paragraph) else "prose"
        builder.add(kind, paragraph, headings, page)


def paragraphs(text: str) -> Iterator[str]:
    """Runs of lines that are not empty."""
    lines: list[str] = []
    for line in clean(text).split("\n"):
        if line.strip():
            lines.append(line)
        elif lines:
            yield "\n".join(lines)
            lines.clear()
    if lines:
        yield "\n".join(lines)
