"""HTML: what a reader of the page sees, without its navigation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import lxml.html
from lxml import etree

from ryvion_node.knowledge import constants as limits
from ryvion_node.knowledge.interface import BlockKind
from ryvion_node.knowledge.reading.builder import TextBuilder, without_pictures
from ryvion_node.knowledge.reading.errors import UnreadableDocument
from ryvion_node.knowledge.reading.outline import Outline

_UNSEEN: Final = frozenset(
    "head script style noscript template nav svg math iframe object embed canvas audio video map"
    " button select option input textarea datalist dialog rp rt".split()
)
_HEADINGS: Final = {f"h{level}": level for level in range(1, 7)}
_LISTS: Final = frozenset({"ul", "ol", "dl", "menu"})
_ITEMS: Final = frozenset({"li", "dt", "dd"})
_INLINE: Final = frozenset(
    "a abbr acronym b bdi bdo big br cite code data del dfn em font i img ins kbd label mark meter output progress q ruby"
    " s samp small span strike strong sub sup time tt u var wbr".split()
)
_HIDDEN: Final = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.I)
_SPACE: Final = re.compile(r"[ \t\r\n\f]+")
_INNER_SPACE: Final = re.compile(r"(?<=\S)[ \t]+")
_ENDS_EARLY: Final = (
    f"it has more than {limits.MAX_HTML_DEPTH} elements within each other, or one text of more than 10 MB"
)
_UNPRINTED: Final = re.compile("[\x00-\x08\x0b\x0e-\x1f]")


def read_html(text: str, builder: TextBuilder) -> None:
    """Add its blocks."""
    root, is_whole = _parse(text)
    if root is None:
        return
    page = _Page(builder)
    title = root.find(".//title")
    if title is not None and title.text and root.find(".//h1") is None:
        builder.add("heading", title.text, page.outline.enter(0, title.text))
    page.read(root)
    if not is_whole:
        if builder.is_empty:
            raise UnreadableDocument(f"{_ENDS_EARLY}: save it as plain text")
        builder.warn(f"it was read only in part: {_ENDS_EARLY}")


def visible_text(fragment: str) -> str:
    """The text of a piece of HTML."""
    builder = TextBuilder()
    root, _is_whole = _parse(f"<body>{fragment}</body>")
    if root is not None:
        _Page(builder).read(root)
    return builder.build().text


def _parse(text: str) -> tuple[etree._Element | None, bool]:
    """The page, and whether it was read to its end."""
    # Control characters end a text early in some versions of libxml2.
    source = _UNPRINTED.sub(" ", without_pictures(text)).encode("utf-8", "replace")
    parser = lxml.html.HTMLParser(
        encoding="utf-8", no_network=True, remove_comments=True, remove_pis=True, huge_tree=False
    )
    try:
        root = lxml.html.document_fromstring(source, parser=parser, ensure_head_body=True)
    except etree.ParserError:
        # Nothing but comments.
        return None, True
    return root, not parser.error_log.filter_from_fatals()


class _Page:
    """Walks over the elements, and gathers the text of one block after another."""

    def __init__(self, builder: TextBuilder) -> None:
        self.outline = Outline()
        self._builder = builder
        self._parts: list[str] = []
        self._lists = 0

    def read(self, root: etree._Element) -> None:
        """Add the blocks of all that is seen."""
        skipped: etree._Element | None = None
        for event, element in etree.iterwalk(root, events=("start", "end")):
            if skipped is None and event == "start":
                if self._takes_whole(element):
                    skipped = element
                else:
                    self._open(element)
                    self._say(element.text)
            elif skipped is None or skipped is element:
                if skipped is None:
                    self._close(element)
                skipped = None
                if element is not root:
                    self._say(element.tail)
        self._flush()

    def _takes_whole(self, element: etree._Element) -> bool:
        """Is nothing below to be walked over: because it is not seen, or because it has just been added?"""
        tag = element.tag
        if _is_unseen(element):
            return True
        if tag == "pre":
            self._flush()
            self._builder.add("code", "".join(element.itertext()), self.outline.path)
            return True
        if tag == "table" and element.find(".//table") is None:
            self._flush()
            self._builder.add("table", "\n".join(_rows(element)), self.outline.path)
            return True
        return False

    def _open(self, element: etree._Element) -> None:
        tag = element.tag
        if tag in _LISTS:
            if not self._lists:
                self._flush()
            self._lists += 1
        elif tag in _ITEMS:
            self._parts.append("\n" + "  " * max(0, self._lists - 1) + "- ")
        elif tag == "br":
            self._parts.append("\n")
        elif tag == "img":
            self._say(element.get("alt"))
        elif tag in _HEADINGS or (tag not in _INLINE and not self._lists):
            self._flush()
        elif tag not in _INLINE:
            self._parts.append(" ")

    def _close(self, element: etree._Element) -> None:
        tag = element.tag
        if tag in _LISTS:
            self._lists -= 1
            if not self._lists:
                self._flush("list")
        elif (level := _HEADINGS.get(tag)) is not None:
            if title := self._take():
                self._builder.add("heading", title, self.outline.enter(level, title))
        elif tag not in _INLINE and tag not in _ITEMS:
            if self._lists:
                self._parts.append("\n")
            else:
                self._flush()

    def _say(self, text: str | None) -> None:
        if text:
            self._parts.append(_SPACE.sub(" ", text))

    def _flush(self, kind: BlockKind = "prose") -> None:
        text = self._take()
        self._builder.add("list" if self._lists else kind, text, self.outline.path)

    def _take(self) -> str:
        lines = (_INNER_SPACE.sub(" ", line).rstrip() for line in "".join(self._parts).split("\n"))
        self._parts.clear()
        return "\n".join(line for line in lines if line.strip())


def _rows(table: etree._Element) -> Iterator[str]:
    for row in table.iter("caption", "tr"):
        cells = [row] if row.tag == "caption" else list(row.iterchildren("td", "th"))
        words = [" ".join(_seen(cell).split()) for cell in cells]
        if any(words):
            yield " | ".join(words)


def _seen(cell: etree._Element) -> str:
    parts: list[str] = []
    skipped: etree._Element | None = None
    for event, element in etree.iterwalk(cell, events=("start", "end")):
        if skipped is None and event == "start":
            if element is not cell and _is_unseen(element):
                skipped = element
            else:
                parts.append(element.text or element.get("alt") or "")
        elif event == "end" and skipped in (None, element):
            skipped = None
            if element is not cell:
                # Blocks within a cell have a space between them, letters of one word have none.
                parts += ["" if element.tag in _INLINE and element.tag != "br" else " ", element.tail or ""]
    return "".join(parts)


def _is_unseen(element: etree._Element) -> bool:
    return (
        element.tag in _UNSEEN
        or element.get("hidden") is not None
        or element.get("role") == "navigation"
        or (element.tag == "a" and "skip" in element.get("class", ""))
        or _HIDDEN.search(element.get("style", "")) is not None
    )
