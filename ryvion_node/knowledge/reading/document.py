"""A file as text: finds out what it is and hands it to the reader of that format."""

from __future__ import annotations

from typing import Final

from ryvion_node.knowledge import constants as limits
from ryvion_node.knowledge.interface import DocumentText
from ryvion_node.knowledge.reading.builder import TextBuilder
from ryvion_node.knowledge.reading.decoding import decode
from ryvion_node.knowledge.reading.errors import UnreadableDocument
from ryvion_node.knowledge.reading.filenames import extension
from ryvion_node.knowledge.reading.kinds import TextKind, binary_kind, text_kind

_BINARY_MODULES: Final = {"pdf": "pdf", "docx": "word"}
_MODULES: Final[dict[TextKind, str]] = {
    "plain": "plain",
    "markdown": "markdown",
    "html": "html",
    "table": "tables",
    "json": "records",
    "code": "code",
}


def read_document(data: bytes, filename: str) -> DocumentText:
    """The same bytes and name always give the same text. Raises UnreadableDocument.

    Hostile files cost memory and time here: use `open_readers` unless the file is known.
    """
    check_size(data)
    builder = TextBuilder()
    pages: int | None = None
    # Each library is loaded only for its own format: most documents need none.
    match binary_kind(data):
        case "pdf":
            from ryvion_node.knowledge.reading.pdf import read_pdf

            pages = read_pdf(data, builder)
        case "docx":
            from ryvion_node.knowledge.reading.word import read_docx

            read_docx(data, builder)
        case None:
            text = decode(data, builder)
            kind, warning = text_kind(text, filename)
            if warning:
                builder.warn(warning)
            _read_text(kind, text, builder)
    if builder.is_empty:
        raise UnreadableDocument("it holds no text: add one that does")
    return builder.build(pages)


def module_for(filename: str) -> str:
    """The module that reads such a file if its name is right, to be loaded before it is needed."""
    ending = extension(filename)
    name = _MODULES[text_kind("", filename)[0]] if ending not in _BINARY_MODULES else _BINARY_MODULES[ending]
    return f"{__package__}.{name}"


def check_size(data: bytes) -> None:
    """Raises UnreadableDocument for empty and for huge files."""
    if not data:
        raise UnreadableDocument("it is empty: add one that holds text")
    if len(data) > limits.MAX_FILE_BYTES:
        raise UnreadableDocument(f"it is larger than {limits.MAX_FILE_BYTES >> 20} MiB: split it into several files")


def _read_text(kind: TextKind, text: str, builder: TextBuilder) -> None:
    match kind:
        case "plain":
            from ryvion_node.knowledge.reading.plain import read_plain

            read_plain(text, builder)
        case "markdown":
            from ryvion_node.knowledge.reading.markdown import read_markdown

            read_markdown(text, builder)
        case "html":
            from ryvion_node.knowledge.reading.html import read_html

            read_html(text, builder)
        case "table":
            from ryvion_node.knowledge.reading.tables import read_table

            read_table(text, builder)
        case "json":
            from ryvion_node.knowledge.reading.records import read_json

            read_json(text, builder)
        case "code":
            from ryvion_node.knowledge.reading.code import read_code

            read_code(text, builder)
