"""Takes a DOCX apart without trusting what it says about its size."""

from __future__ import annotations

import io
import zipfile
import zlib
from typing import Final

from ryvion_node.knowledge import constants as limits
from ryvion_node.knowledge.reading.errors import UnreadableDocument

_AT_ONCE_BYTES: Final = 1 << 16
_READ: Final = (".xml", ".rels")
_BOMB: Final = f"it unpacks to more than {limits.MAX_UNPACKED_BYTES >> 20} MiB of text: split it into several files"
_DAMAGED: Final = "it is a damaged DOCX: open it in a word processor and save it anew"
_ENTITIES: Final = "it defines XML entities, which no word processor does: open it in one and save it anew"


def without_media(data: bytes) -> bytes:
    """The same archive with its XML unpacked and its pictures and other objects emptied. Raises UnreadableDocument."""
    packed = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(packed, "w") as plain:
            _check_directory(archive.infolist())
            left = limits.MAX_UNPACKED_BYTES
            for member in archive.infolist():
                content = b""
                if member.filename.lower().endswith(_READ):
                    content = _unpack(archive, member, left)
                    left -= len(content)
                plain.writestr(zipfile.ZipInfo(member.filename), content)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, ValueError, OSError) as exc:
        raise UnreadableDocument(_DAMAGED) from exc
    return packed.getvalue()


def _check_directory(members: list[zipfile.ZipInfo]) -> None:
    """What the archive says of itself; an honest bomb ends here."""
    if len(members) > limits.MAX_MEMBERS:
        raise UnreadableDocument(f"it holds more than {limits.MAX_MEMBERS:,} files: split it into several")
    names = [member.filename for member in members]
    if len(set(names)) < len(names):
        # Which of two files of one name is read depends on the program.
        raise UnreadableDocument(_DAMAGED)
    if (
        sum(member.file_size for member in members if member.filename.lower().endswith(_READ))
        > limits.MAX_UNPACKED_BYTES
    ):
        raise UnreadableDocument(_BOMB)


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo, left: int) -> bytes:
    """One file, in steps: what the directory says of its size may be a lie."""
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # Others inflate by far more, and the format does not know them.
        raise UnreadableDocument(_DAMAGED)
    content = bytearray()
    with archive.open(member) as stream:
        while part := stream.read(_AT_ONCE_BYTES):
            content += part
            if len(content) > left:
                raise UnreadableDocument(_BOMB)
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise UnreadableDocument(_ENTITIES)
    return bytes(content)
