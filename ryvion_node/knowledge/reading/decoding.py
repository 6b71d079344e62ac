"""Bytes to characters: by what the file declares, then UTF-8, then the likeliest."""

from __future__ import annotations

import codecs
import re
from typing import Final

from ryvion_node.knowledge.reading.builder import TextBuilder
from ryvion_node.knowledge.reading.errors import UnreadableDocument

_MARKS: Final = (
    # The mark of UTF-32 begins with that of UTF-16.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_REPLACED: Final = "\ufffd"
_SAMPLE_BYTES: Final = 32 * 1024
"""Enough to tell encodings apart; guessing takes a tenth of a second for it."""
_DECLARED_WITHIN: Final = 2048
"""HTML wants its declaration within 1,024 bytes."""
_DECLARED: Final = re.compile(
    rb"""(?:<meta[^>]{0,200}?charset|<\?xml[^>]{0,100}?encoding)\s*=\s*["']?([\w.:-]{1,40})""", re.I
)
_NOT_FOR_FILES: Final = frozenset(
    {"idna", "punycode", "unicode-escape", "raw-unicode-escape", "undefined", "mbcs", "oem"}
)
_BINARY: Final = "it is no text: export it as text, Markdown, HTML, PDF, DOCX, CSV or JSON and add that"


def decode(data: bytes, builder: TextBuilder) -> str:
    """The file's characters, line ends as they are. Raises UnreadableDocument for what is no text."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _certain(data, encoding, builder)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        pass
    else:
        if _nuls_are_rare(data):
            return text
    if (text := data.decode("utf-8", "replace")) and _is_damaged_utf8(data, text):
        builder.warn(f"bytes that are no valid UTF-8 were replaced: {text.count(_REPLACED)}")
        return text
    if encoding := _utf16_without_mark(data):
        return _certain(data, encoding, builder)
    if not _nuls_are_rare(data) or _looks_binary(data[:_SAMPLE_BYTES]):
        raise UnreadableDocument(_BINARY)
    return _guess(data, builder)


def _certain(data: bytes, encoding: str, builder: TextBuilder) -> str:
    text = data.decode(encoding, "replace")
    if (damaged := text.count(_REPLACED)) > 0:
        builder.warn(f"characters that are no valid {encoding} were replaced: {damaged}")
    if damaged > len(text) // 10 or not _is_readable(text[:_SAMPLE_BYTES], 0.95):
        raise UnreadableDocument(_BINARY)
    return text


def _is_damaged_utf8(data: bytes, text: str) -> bool:
    """Far more characters of several bytes than bytes that fit none: no other encoding looks like that by chance."""
    return _nuls_are_rare(data) and len(data) - len(text) >= 20 * text.count(_REPLACED)


def _nuls_are_rare(data: bytes) -> bool:
    """A few slip into logs; programs and pictures are full of them."""
    return data.count(0) * 50 <= len(data)


def _utf16_without_mark(data: bytes) -> str:
    """Western text in UTF-16 has a zero in every other byte."""
    sample = data[: _SAMPLE_BYTES // 2 * 2]
    pairs = len(sample) // 2
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    for zeros, others, encoding in ((odd, even, "utf-16-le"), (even, odd, "utf-16-be")):
        # Line ends and spaces are enough where the letters are no Latin ones.
        if zeros * 20 >= pairs and others * 100 <= pairs and _is_valid(sample, encoding):
            return encoding
    return ""


def _is_valid(sample: bytes, encoding: str) -> bool:
    try:
        # A pair of surrogates may be cut in two at the end.
        text = sample[:-2].decode(encoding)
    except UnicodeDecodeError:
        return False
    return _is_readable(text, 0.98)


def _is_readable(text: str, share: float) -> bool:
    """Are so many of its characters letters, signs and spaces?"""
    return sum(char.isprintable() or char.isspace() for char in text) >= share * len(text)


def _looks_binary(sample: bytes) -> bool:
    controls = sum(byte < 32 and byte not in b"\t\n\v\f\r\x1b" for byte in sample)
    return controls * 50 > len(sample)


def _guess(data: bytes, builder: TextBuilder) -> str:
    declared = _DECLARED.search(data[:_DECLARED_WITHIN])
    encoding = _known(declared[1].decode("ascii")) if declared else ""
    if not encoding:
        encoding = _likeliest(data)
        builder.warn(
            f"its encoding is not declared and was taken for {encoding}: save it as UTF-8 if letters look wrong"
        )
    return data.decode(encoding, "replace")


def _known(name: str) -> str:
    try:
        # Python also has codecs that make bytes of bytes; those are refused here.
        b"a".decode(name)
        return "" if (known := codecs.lookup(name).name) in _NOT_FOR_FILES else known
    except (LookupError, ValueError):
        return ""


def _likeliest(data: bytes) -> str:
    from charset_normalizer import from_bytes

    # From the first byte that is not ASCII: a long English head says nothing.
    first = next(re.finditer(rb"[\x80-\xff]", data)).start()
    best = from_bytes(data[max(0, first - 1024) : first + _SAMPLE_BYTES]).best()
    return best.encoding if best else "cp1252"
