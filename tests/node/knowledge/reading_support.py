"""Files to read, and what came of them in a form that is easy to compare."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable

import docx
import pytest
from docx.document import Document

from ryvion_node.knowledge.interface import DocumentText
from ryvion_node.knowledge.reading.document import read_document
from ryvion_node.knowledge.reading.errors import UnreadableDocument

Shown = tuple[str, str, tuple[str, ...]]


def shown(document: DocumentText) -> list[Shown]:
    """Kind, text and headings of each block."""
    return [(block.kind, document.text[block.start : block.end], block.headings) for block in document.blocks]


def read(data: bytes | str, filename: str) -> list[Shown]:
    """The blocks of a file that is read without a complaint."""
    document = read_document(data.encode() if isinstance(data, str) else data, filename)
    assert document.warnings == ()
    check(document)
    return shown(document)


def check(document: DocumentText) -> None:
    """What holds for every document."""
    end = 0
    for block in document.blocks:
        assert end <= block.start < block.end <= len(document.text)
        assert document.text[end : block.start] in ("", "\n\n")
        assert document.text[block.start : block.end].strip()
        end = block.end
    assert end == len(document.text)
    document.text.encode()
    assert not {"\0", "\r", "\x1b", "\ufeff"} & set(document.text)


def refusal(data: bytes, filename: str) -> str:
    """Why it is not read."""
    with pytest.raises(UnreadableDocument) as caught:
        read_document(data, filename)
    return str(caught.value)


def docx_file(write: Callable[[Document], object]) -> bytes:
    """A DOCX as python-docx writes it."""
    document = docx.Document()
    write(document)
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def with_member(
    archive: bytes, name: str, change: Callable[[bytes], bytes], packed: int = zipfile.ZIP_DEFLATED
) -> bytes:
    """The same archive with one file changed."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as before, zipfile.ZipFile(out, "w", packed) as after:
        for member in before.namelist():
            content = before.read(member)
            after.writestr(member, change(content) if member == name else content)
    return out.getvalue()
