"""What a file is: by its content first, then by its name."""

from __future__ import annotations

import io
import re
from typing import Final, Literal

from ryvion_node.knowledge.reading.errors import UnreadableDocument
from ryvion_node.knowledge.reading.filenames import extension

BinaryKind = Literal["pdf", "docx"]
TextKind = Literal["plain", "markdown", "html", "table", "json", "code"]

_PDF_HEAD_WITHIN: Final = 1024
"""Readers accept so much before the header of a PDF."""
_ZIP: Final = b"PK\x03\x04"
_OLD_OFFICE: Final = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_OTHERS: Final = (
    (b"\x89PNG", "a picture", "run text recognition (OCR) over it and add the text"),
    (b"\xff\xd8\xff", "a picture", "run text recognition (OCR) over it and add the text"),
    (b"GIF8", "a picture", "run text recognition (OCR) over it and add the text"),
    (b"{\\rtf", "an RTF file", "save it as DOCX"),
    (b"\x1f\x8b", "a packed file", "unpack it and add what is inside"),
    (b"BZh", "a packed file", "unpack it and add what is inside"),
    (b"\xfd7zXZ", "a packed file", "unpack it and add what is inside"),
    (b"7z\xbc\xaf", "a packed file", "unpack it and add what is inside"),
    (b"(\xb5/\xfd", "a packed file", "unpack it and add what is inside"),
    (b"\x7fELF", "a program", "add its source or its manual"),
    (b"SQLite format 3", "a database", "export its tables as CSV"),
    (b"%!PS", "a PostScript file", "convert it to PDF"),
)
_IN_ZIPS: Final = (
    ("xl/workbook.xml", "an Excel workbook", "save each sheet as CSV"),
    ("ppt/presentation.xml", "a PowerPoint file", "save it as PDF"),
    ("content.xml", "an OpenDocument file", "save it as DOCX or PDF"),
    ("META-INF/container.xml", "an e-book", "convert it to HTML or PDF"),
)
_BY_EXTENSION: Final[dict[str, TextKind]] = {
    **dict.fromkeys(("md", "markdown", "mdown", "mkd", "qmd", "rmd"), "markdown"),
    **dict.fromkeys(("html", "htm", "xhtml"), "html"),
    **dict.fromkeys(("csv", "tsv", "tab"), "table"),
    **dict.fromkeys(("json", "jsonl", "ndjson", "geojson", "ipynb"), "json"),
    **dict.fromkeys(
        "py pyi pyx js mjs cjs jsx ts tsx java kt kts scala groovy c h cc cpp cxx hpp hh m mm cs go rs swift rb php pl"
        " pm lua r jl dart ex exs erl hs ml mli fs clj lisp el scm zig nim v vhd sv sh bash zsh fish ps1 bat sql proto"
        " graphql tf css scss less vue svelte toml yaml yml ini cfg conf xml svg cmake make mk gradle".split(),
        "code",
    ),
}
_MAIN_PART: Final = re.compile(r"word/document\d*\.xml")
_HTML_HEAD: Final = re.compile(
    r"\s*(?:<\?xml[^>]{0,200}>\s*)?(?:<!--.{0,2000}?-->\s*)?<(?:!doctype\s+html|html|head|body)\b", re.I | re.S
)


def binary_kind(data: bytes) -> BinaryKind | None:
    """PDF, DOCX, or None for what may be text. Raises UnreadableDocument for known formats that are not read."""
    if _is_pdf(data):
        return "pdf"
    if data.startswith(_ZIP):
        return _kind_of_zip(data)
    if data.startswith(_OLD_OFFICE):
        if "EncryptedPackage".encode("utf-16-le") in data:
            raise UnreadableDocument("it is protected by a password: remove that in the program that made it")
        raise UnreadableDocument("it is a file of Office 97-2003 (.doc, .xls or .ppt): save it as DOCX, CSV or PDF")
    for magic, what, mend in _OTHERS:
        if data.startswith(magic):
            raise UnreadableDocument(f"it is {what}: {mend}")
    return None


def text_kind(text: str, filename: str) -> tuple[TextKind, str]:
    """How to read a text, and a warning where its name says otherwise."""
    ending = extension(filename)
    named = _BY_EXTENSION.get(ending, "plain")
    if named != "html" and _HTML_HEAD.match(text[:4096]) and ending not in ("vue", "svelte", "php", "xml"):
        return "html", "" if named == "plain" else f"it is named .{ending}, yet was read as HTML, which it is"
    if ending in ("pdf", "docx", "doc", "odt", "rtf", "xlsx", "pptx"):
        return "plain", f"it is named .{ending}, yet was read as plain text, which it is"
    return named, ""


def _is_pdf(data: bytes) -> bool:
    """Something may stand before the header, yet a text about PDF is none."""
    head = data[:_PDF_HEAD_WITHIN]
    return head.lstrip(b"\xef\xbb\xbf \t\r\n\0").startswith(b"%PDF-") or (
        b"%PDF-" in head and b"startxref" in data[-2048:]
    )


def _kind_of_zip(data: bytes) -> BinaryKind:
    import zipfile

    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = frozenset(archive.namelist())
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as exc:
        raise UnreadableDocument("it is a damaged DOCX or ZIP file: open it in its program and save it anew") from exc
    if any(_MAIN_PART.fullmatch(name) for name in names):
        return "docx"
    for member, what, mend in _IN_ZIPS:
        if member in names:
            raise UnreadableDocument(f"it is {what}: {mend}")
    raise UnreadableDocument("it is a ZIP file: unpack it and add what is inside")
