"""DOCX: headings by style, paragraphs, lists and tables in their order."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Final

import docx
from docx.oxml.ns import qn
from docx.oxml.xmlchemy import BaseOxmlElement
from docx.styles.style import ParagraphStyle
from docx.styles.styles import Styles
from lxml import etree

from ryvion_node.knowledge import constants as limits
from ryvion_node.knowledge.interface import BlockKind
from ryvion_node.knowledge.reading.builder import TextBuilder
from ryvion_node.knowledge.reading.errors import UnreadableDocument
from ryvion_node.knowledge.reading.outline import Outline
from ryvion_node.knowledge.reading.unpacking import without_media

_DAMAGED: Final = "it is a damaged DOCX: open it in a word processor and save it anew"
_HEADING: Final = re.compile(r"heading ([1-9])$", re.I)
_PARAGRAPH: Final = qn("w:p")
_TABLE: Final = qn("w:tbl")
_ROW: Final = qn("w:tr")
_CELL: Final = qn("w:tc")
_RUN: Final = qn("w:r")
_HIDDEN: Final = f"{qn('w:rPr')}/{qn('w:vanish')}"
_TEXT: Final = qn("w:t")
_BREAKS: Final = {qn("w:tab"): "\t", qn("w:br"): "\n", qn("w:cr"): "\n", qn("w:noBreakHyphen"): "-"}
_SKIPPED: Final = frozenset(
    {qn("w:del"), qn("w:moveFrom"), qn("w:pPr"), qn("w:rPr"), qn("w:tblPr"), qn("w:sectPr")}
    # The same once more, for programs that know less.
    | {"{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"}
)


def read_docx(data: bytes, builder: TextBuilder) -> None:
    """Add its blocks. Raises UnreadableDocument."""
    plain = without_media(data)
    try:
        document = docx.Document(io.BytesIO(plain))
        levels = _heading_levels(document.styles)
        body = document.element.body
    except (UnreadableDocument, MemoryError):
        raise
    except Exception as exc:  # a damaged file raises anything
        raise UnreadableDocument(_DAMAGED) from exc
    outline = Outline()
    items: list[str] = []
    for element in _blocks(body):
        text, is_item = _words(element), False
        if element.tag == _PARAGRAPH:
            style, is_item = _style_of(element)
            if (level := levels.get(style)) is not None and text.strip():
                _add_list(items, builder, outline)
                builder.add("heading", text, outline.enter(level, text))
                continue
        if is_item:
            items.append(f"- {text.strip()}")
            continue
        _add_list(items, builder, outline)
        kind: BlockKind = "table" if element.tag == _TABLE else "prose"
        builder.add(kind, _rows(element) if kind == "table" else text, outline.path)
    _add_list(items, builder, outline)


def _add_list(items: list[str], builder: TextBuilder, outline: Outline) -> None:
    """Items in a row are one block."""
    builder.add("list", "\n".join(items), outline.path)
    items.clear()


def _heading_levels(styles: Styles) -> dict[str, int]:
    """Level by style id. The names of built-in styles are English in every language's files."""
    levels = {}
    for style in styles:
        if isinstance(style, ParagraphStyle) and (level := _level(style)) is not None:
            levels[style.style_id] = level
    return levels


def _level(style: ParagraphStyle) -> int | None:
    """Of the style itself, or of the one that it builds on."""
    for _ in range(limits.MAX_HEADINGS):
        name = style.name or ""
        if name == "Title":
            return 0
        if match := _HEADING.match(name):
            return int(match[1])
        base = style.base_style
        if not isinstance(base, ParagraphStyle):
            return None
        style = base
    return None


def _blocks(body: BaseOxmlElement) -> Iterator[BaseOxmlElement]:
    """Paragraphs and tables in their order, also those within content controls and text boxes' frames."""
    waiting = [iter(body)]
    while waiting:
        element = next(waiting[-1], None)
        if element is None:
            waiting.pop()
        elif element.tag in (_PARAGRAPH, _TABLE):
            yield element
        elif element.tag not in _SKIPPED:
            waiting.append(iter(element))


def _style_of(paragraph: BaseOxmlElement) -> tuple[str, bool]:
    """The id of its style, and whether it is numbered or has a bullet."""
    properties = paragraph.find(qn("w:pPr"))
    if properties is None:
        return "", False
    style = properties.find(qn("w:pStyle"))
    name = "" if style is None else style.get(qn("w:val"), "")
    return name, properties.find(qn("w:numPr")) is not None or name.startswith("List")


def _words(element: BaseOxmlElement) -> str:
    """All visible text below; deleted text that is still tracked is not."""
    parts: list[str] = []
    skipping: etree._Element | None = None
    for event, part in etree.iterwalk(element, events=("start", "end")):
        if skipping is not None:
            if event == "end" and part is skipping:
                skipping = None
        elif event == "start":
            if part.tag in _SKIPPED or (part.tag == _RUN and part.find(_HIDDEN) is not None):
                skipping = part
            elif part.tag == _TEXT:
                parts.append(part.text or "")
            elif part.tag in _BREAKS:
                parts.append(_BREAKS[part.tag])
        elif part.tag == _PARAGRAPH and part is not element:
            parts.append("\n")
    return "".join(parts)


def _rows(table: BaseOxmlElement) -> str:
    """One line for a row; a table within a cell becomes part of its line."""
    rows = ([" ".join(_words(cell).split()) for cell in _own(row, _CELL, _ROW)] for row in _own(table, _ROW, _TABLE))
    return "\n".join(" | ".join(row) for row in rows if any(row))


def _own(element: BaseOxmlElement, tag: str, of: str) -> Iterator[BaseOxmlElement]:
    """Those below, but for those of an inner table."""
    return (part for part in element.iter(tag) if next(part.iterancestors(of), None) is element)
