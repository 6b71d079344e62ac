"""PDF, page by page."""

from __future__ import annotations

import io
import re
from typing import Final

from pypdf import PageObject, PasswordType, PdfReader
from pypdf.errors import DependencyError, PyPdfError

from ryvion_node.knowledge import constants as limits
from ryvion_node.knowledge.reading.builder import TextBuilder
from ryvion_node.knowledge.reading.errors import UnreadableDocument
from ryvion_node.knowledge.reading.outline import Outline
from ryvion_node.knowledge.reading.pdf_outline import bookmarks, read_page

_HYPHENATED: Final = re.compile(r"(?<=[^\W\d_])[-\u2010]\n(?=[^\W\d_A-Z])")
"""A word parted at the end of a line; the few that keep their hyphen (well-known) are found without it as often."""
_LIGATURES: Final = str.maketrans({"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st"})
_DAMAGED: Final = "it is a damaged PDF: open it in a viewer, print it to a new PDF and add that"


def read_pdf(data: bytes, builder: TextBuilder) -> int:
    """Add the text of each page, and return how many pages there are. Raises UnreadableDocument."""
    reader, pages = _open(data)
    if pages > limits.MAX_PAGES:
        raise UnreadableDocument(f"it has more than {limits.MAX_PAGES:,} pages: split it into several files")
    marks, outline = bookmarks(reader), Outline()
    empty: list[int] = []
    for number in range(1, pages + 1):
        try:
            text = _text_of(reader.pages[number - 1])
        except MemoryError:
            raise
        except Exception as exc:  # noqa: BLE001 - a damaged page raises anything, and the others can be read
            builder.warn(f"page {number} could not be read ({type(exc).__name__})")
            text = ""
        else:
            empty += [] if text.strip() else [number]
        read_page(text, marks.get(number, []), outline, builder, number)
    if builder.is_empty:
        raise UnreadableDocument(
            "none of its pages holds text, it is probably scanned: run text recognition (OCR) over it and add the result"
        )
    if empty:
        builder.warn(f"{_shown(empty)} no text: pictures are not read")
    return pages


def _open(data: bytes) -> tuple[PdfReader, int]:
    try:
        reader = PdfReader(io.BytesIO(data), strict=False)
        if reader.is_encrypted and not _opens_without_password(reader):
            raise UnreadableDocument("it is protected by a password: print it to a new PDF without one and add that")
        return reader, len(reader.pages)
    except (UnreadableDocument, MemoryError):
        raise
    except Exception as exc:  # a damaged file raises anything
        raise UnreadableDocument(_DAMAGED) from exc


def _opens_without_password(reader: PdfReader) -> bool:
    """Many are encrypted only to forbid printing, with an empty password."""
    try:
        return reader.decrypt("") != PasswordType.NOT_DECRYPTED
    except (PyPdfError, DependencyError, NotImplementedError, ValueError):
        return False


def _text_of(page: PageObject) -> str:
    text = page.extract_text().translate(_LIGATURES)
    return _HYPHENATED.sub("", text)


def _shown(pages: list[int]) -> str:
    if len(pages) == 1:
        return f"page {pages[0]} has"
    some = ", ".join(map(str, pages[:10]))
    return f"pages {some}{' and others' if len(pages) > 10 else ''} have"
