"""Reads the header of a GGUF file without llama.cpp, hardened against damaged and hostile files.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from ryvion_node.engine import constants as limits

_SCALARS: Final[Mapping[int, struct.Struct]] = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_STRING: Final = 8
_ARRAY: Final = 9
_U32: Final = _SCALARS[4]
_U64: Final = _SCALARS[10]
_MAX_DIMENSIONS: Final = 8
"""ggml's own limit is 4."""

# llama.h, enum llama_ftype.
_QUANTISATIONS: Final[Mapping[int, str]] = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    19: "IQ2_XXS",
    20: "IQ2_XS",
    21: "Q2_K_S",
    22: "IQ3_XS",
    23: "IQ3_XXS",
    24: "IQ1_S",
    25: "IQ4_NL",
    26: "IQ3_S",
    27: "IQ3_M",
    28: "IQ2_S",
    29: "IQ2_M",
    30: "IQ4_XS",
    31: "IQ1_M",
    32: "BF16",
    36: "TQ1_0",
    37: "TQ2_0",
    38: "MXFP4_MOE",
    39: "NVFP4",
    40: "Q1_0",
    41: "Q2_0",
}


class GgufError(Exception):
    """The model file is missing, unreadable or damaged. Fetch it again, or correct its path in the configuration."""


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What the metadata says about the model; empty or 0 where it says nothing."""

    name: str
    architecture: str
    quantisation: str
    context_tokens: int
    has_template: bool
    tensors: int
    pooling: int
    """llama.cpp's pooling type; above 0 the model embeds instead of chatting."""


def read_header(path: Path) -> GgufHeader:
    """Read the metadata. Raises GgufError."""
    with damage_named(path), path.open("rb") as file:
        reader = MetadataReader(file)
        preamble = reader.preamble()
        return header_of(preamble, dict(reader.entry() for _ in range(preamble.entries)))


@contextmanager
def damage_named(source: Path | str) -> Iterator[None]:
    """Translate what is wrong with a file's content or with reading it into a GgufError that names the file."""
    try:
        yield
    except FileNotFoundError as exc:
        raise GgufError(f"{source}: no such file") from exc
    except OSError as exc:
        raise GgufError(f"{source}: cannot be read ({exc.strerror})") from exc
    except Damaged as exc:
        raise GgufError(f"{source}: {exc}") from exc


class Damaged(Exception):
    """The bytes are no sound GGUF; the message says why."""


class Source(Protocol):
    """Where bytes come from, in order: a file, or one that is still under way."""

    def read(self, length: int, /) -> bytes:
        """The next bytes; fewer only at the end."""


@dataclass(frozen=True, slots=True)
class Preamble:
    """What stands before the metadata."""

    version: int
    tensors: int
    entries: int


@dataclass(frozen=True, slots=True)
class Skipped:
    """An array that was read over: of texts, of arrays, or longer than any list of layers."""

    items: int


class MetadataReader:
    """Reads the header of a GGUF in order: the preamble, each entry, each tensor. Raises Damaged."""

    def __init__(self, file: Source) -> None:
        self._file = file
        self._left = limits.MAX_HEADER_BYTES

    @property
    def position(self) -> int:
        """Bytes read so far."""
        return limits.MAX_HEADER_BYTES - self._left

    def preamble(self) -> Preamble:
        if self._take(4) != b"GGUF":
            raise Damaged("not a GGUF file (wrong magic)")
        version = self._number(_U32)
        if version not in (2, 3):
            raise Damaged(f"GGUF version {version}, supported are 2 and 3")
        tensors, entries = self._number(_U64), self._number(_U64)
        if entries > limits.MAX_HEADER_ENTRIES:
            raise Damaged(f"claims {entries} metadata entries")
        return Preamble(version, tensors, entries)

    def entry(self) -> tuple[str, object]:
        """Key and value of the next entry; a short array of numbers is a tuple, any other one is Skipped."""
        key = self._string()
        return key, self._value(self._number(_U32), 0)

    def tensor(self) -> tuple[str, int]:
        """Name of the next tensor, and where it begins within the data."""
        name, dimensions = self._string(), self._number(_U32)
        if dimensions > _MAX_DIMENSIONS:
            raise Damaged(f"claims a tensor of {dimensions} dimensions")
        self._skip(dimensions * _U64.size + _U32.size)
        return name, self._number(_U64)

    def _value(self, kind: int, depth: int) -> object:
        if kind in _SCALARS:
            return self._scalar(_SCALARS[kind])
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            return self._array(depth)
        raise Damaged(f"unknown value type {kind}")

    def _array(self, depth: int) -> tuple[object, ...] | Skipped:
        kind, items = self._number(_U32), self._number(_U64)
        if items > limits.MAX_HEADER_ARRAY_ITEMS or depth >= limits.MAX_HEADER_ARRAY_DEPTH:
            raise Damaged(f"claims an array of {items} items at depth {depth}")
        if kind in _SCALARS and items <= limits.MAX_HEADER_LAYERS:
            return tuple(self._scalar(_SCALARS[kind]) for _ in range(items))
        if kind in _SCALARS:
            self._skip(items * _SCALARS[kind].size)
            return Skipped(items)
        if kind == _STRING:
            self._skip_strings(items)
            return Skipped(items)
        for _ in range(items):
            self._value(kind, depth + 1)
        return Skipped(items)

    def _skip_strings(self, items: int) -> None:
        """As `_skip(self._length())` for each, several times faster: vocabularies have some 400,000."""
        read, unpack, left = self._file.read, _U64.unpack, self._left
        for _ in range(items):
            prefix = read(8)
            if len(prefix) < 8:
                raise Damaged("truncated")
            (length,) = unpack(prefix)
            left -= 8 + length
            if length > limits.MAX_HEADER_STRING_BYTES:
                raise Damaged(f"claims a string of {length} bytes")
            if left < 0:
                raise Damaged("metadata too large")
            if len(read(length)) < length:
                raise Damaged("truncated")
        self._left = left

    def _string(self) -> str:
        return self._take(self._length()).decode("utf-8", "replace")

    def _length(self) -> int:
        length = self._number(_U64)
        if length > limits.MAX_HEADER_STRING_BYTES:
            raise Damaged(f"claims a string of {length} bytes")
        return length

    def _number(self, layout: struct.Struct) -> int:
        value = self._scalar(layout)
        assert isinstance(value, int)
        return value

    def _scalar(self, layout: struct.Struct) -> object:
        (value,) = layout.unpack(self._take(layout.size))
        return value

    def _skip(self, length: int) -> None:
        # Read, not seek: seeking past the end of a truncated file succeeds.
        while length:
            length -= len(self._take(min(length, 1 << 20)))

    def _take(self, length: int) -> bytes:
        self._left -= length
        if self._left < 0:
            raise Damaged("metadata too large")
        data = self._file.read(length)
        if len(data) < length:
            raise Damaged("truncated")
        return data


def header_of(preamble: Preamble, values: Mapping[str, object]) -> GgufHeader:
    """What the entries of a file say."""
    architecture = _text(values.get("general.architecture"))
    file_type = _whole(values.get("general.file_type"))
    return GgufHeader(
        name=_text(values.get("general.name")),
        architecture=architecture,
        quantisation=_QUANTISATIONS.get(file_type, "unknown") if "general.file_type" in values else "unknown",
        context_tokens=_whole(values.get(f"{architecture}.context_length")),
        has_template=bool(_text(values.get("tokenizer.chat_template"))),
        tensors=preamble.tensors,
        pooling=_whole(values.get(f"{architecture}.pooling_type")),
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0
