"""Markdown: its source, in blocks; marks say as much to a model as to a person."""

from __future__ import annotations

import re
from itertools import zip_longest
from typing import Final

from markdown_it import MarkdownIt

from ryvion_node.knowledge.interface import BlockKind
from ryvion_node.knowledge.reading.builder import TextBuilder, clean, without_pictures
from ryvion_node.knowledge.reading.outline import Outline

_KINDS: Final[dict[str, BlockKind]] = {
    "paragraph_open": "prose",
    "blockquote_open": "prose",
    "bullet_list_open": "list",
    "ordered_list_open": "list",
    "table_open": "table",
    "fence": "code",
    "code_block": "code",
}
_FRONT_MATTER: Final = re.compile(r"\A(---|\+\+\+)[ \t]*\n(.{0,20000}?\n)\1[ \t]*(?:\n|\Z)", re.S)
_LINK: Final = re.compile(r"!?\[([^\]\n]{0,300})\]\([^)\s]{0,500}\)")
_MARKS: Final = re.compile(r"[*_`~]{1,3}(?=\S)|(?<=\S)[*_`~]{1,3}")


def read_markdown(text: str, builder: TextBuilder) -> None:
    """Add its blocks; headings without their marks."""
    text = clean(without_pictures(text))
    if front := _FRONT_MATTER.match(text):
        builder.add("prose", front[2])
        text = text[front.end() :]
    lines = text.split("\n")
    # What stands within a line is of no interest, and the part of the parser that hostile files slow down.
    parser = MarkdownIt("commonmark").enable("table").disable("inline")
    outline = Outline()
    tokens = parser.parse(text)
    for token, following in zip_longest(tokens, tokens[1:]):
        if token.level or token.map is None:
            continue
        source = "\n".join(lines[token.map[0] : token.map[1]])
        if token.type == "heading_open" and following is not None:
            title = _MARKS.sub("", _LINK.sub(r"\1", following.content))
            builder.add("heading", title, outline.enter(int(token.tag[1]), title))
        elif token.type == "html_block":
            from ryvion_node.knowledge.reading.html import visible_text

            builder.add("prose", visible_text(source), outline.path)
        elif (kind := _KINDS.get(token.type)) is not None:
            builder.add(kind, source, outline.path)
