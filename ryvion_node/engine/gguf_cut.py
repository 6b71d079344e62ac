"""Cuts a GGUF down to its metadata and vocabulary: all that a requester needs to count a model's tokens.

The result is a GGUF without tensors, which llama.cpp loads with vocab_only. The cutter reads forward only and stops
before the first tensor description, so the beginning of a file that is still under way is enough.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final

from ryvion_node.engine.gguf import Damaged, MetadataReader, Source, damage_named

_PREAMBLE: Final = struct.Struct("<4sIQQ")
_LEFT_OUT: Final = ("split.",)
"""Keys that speak of further files of the same model; llama.cpp would look for those beside the cut one."""
_TOKENS: Final = "tokenizer.ggml.model"


def cut_header(source: Source, name: Path | str) -> bytes:
    """The GGUF cut down to its header; `name` is what an error calls it. Raises GgufError.

    All of it is in memory at once, at most MAX_HEADER_BYTES.
    """
    with damage_named(name):
        return _cut(source)


def cut_file(path: Path) -> bytes:
    """As `cut_header`, for a file. Raises GgufError."""
    with damage_named(path), path.open("rb") as file:
        return _cut(file)


def _cut(source: Source) -> bytes:
    recorder = _Recorder(source)
    reader = MetadataReader(recorder)
    preamble = reader.preamble()
    recorder.take()
    kept: list[bytes] = []
    keys: set[str] = set()
    for _ in range(preamble.entries):
        key, _value = reader.entry()
        entry = recorder.take()
        if not key.startswith(_LEFT_OUT):
            kept.append(entry)
            keys.add(key)
    if _TOKENS not in keys:
        raise Damaged("holds no vocabulary")
    return _PREAMBLE.pack(b"GGUF", preamble.version, 0, len(kept)) + b"".join(kept)


class _Recorder:
    """Passes bytes on and keeps them, so that what was understood is copied as it was."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._kept: list[bytes] = []

    def read(self, length: int, /) -> bytes:
        data = self._source.read(length)
        self._kept.append(data)
        return data

    def take(self) -> bytes:
        """What was read since the last call."""
        taken = b"".join(self._kept)
        self._kept.clear()
        return taken
