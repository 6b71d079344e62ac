"""JSON and JSON lines: each value on a line after its path; paths of larger parts are headings."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Final

from ryvion_node.knowledge import constants as limits
from ryvion_node.knowledge.reading.builder import TextBuilder
from ryvion_node.knowledge.reading.errors import UnreadableDocument
from ryvion_node.knowledge.reading.plain import read_plain

Json = None | bool | str | list["Json"] | dict[str, "Json"]
"""Numbers are kept as they are written."""

_BINARY_CHARS: Final = 500
"""No word is as long; keys and hashes are shorter."""
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_\n-]+={0,2}\n?")
_RECORD_CHARS: Final = 800
"""Parts up to this size are one block: what belongs together is found together."""


def read_json(text: str, builder: TextBuilder) -> None:
    """Add its values; what is no JSON is read as plain text, with a warning. Raises UnreadableDocument."""
    try:
        value = _parse(text)
    except ValueError as whole:
        records = list(_lines(text))
        if not any(isinstance(record, dict | list) for _number, record in records):
            builder.warn(f"it is no valid JSON ({_where(whole)}) and was read as plain text")
            read_plain(text, builder)
            return
        if broken := [number for number, record in records if record is _BROKEN]:
            builder.warn(f"lines that are no JSON were left out: {len(broken)}, the first of them line {broken[0]}")
        for number, record in records:
            if record is not _BROKEN:
                _add(record, (f"line {number}",), builder)
        return
    _add(value, (), builder)


_BROKEN: Final = "\0broken"


def _lines(text: str) -> Iterator[tuple[int, Json]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            yield number, _parse(line)
        except ValueError:
            yield number, _BROKEN


def _parse(text: str) -> Json:
    try:
        value: Json = json.loads(text, parse_int=str, parse_float=str, parse_constant=str)
    except RecursionError:
        raise _too_deep() from None
    return value


def _too_deep() -> UnreadableDocument:
    return UnreadableDocument(
        f"its values are nested more than {limits.MAX_JSON_DEPTH} deep: export it in a flatter form, such as CSV"
    )


def _where(exc: ValueError) -> str:
    return f"line {exc.lineno}" if isinstance(exc, json.JSONDecodeError) else "its text is damaged"


def _add(value: Json, path: tuple[str, ...], builder: TextBuilder) -> None:
    for headings, lines in _parts(value, path):
        builder.add("table", "\n".join(lines), headings)


def _parts(value: Json, path: tuple[str, ...]) -> list[tuple[tuple[str, ...], list[str]]]:
    """Pieces in order, each with its path. A piece alone is what its parent may take up into its own."""
    if len(path) > limits.MAX_JSON_DEPTH:
        raise _too_deep()
    if not isinstance(value, dict | list):
        return [(path, [_shown(value)])]
    pieces: list[tuple[tuple[str, ...], list[str]]] = []
    lines: list[str] = []
    size = 0
    for name, item in _items(value):
        below = _parts(item, (*path, name))
        taken = _prefixed(name, item, below[0][1]) if len(below) == 1 else None
        more = sum(map(len, taken)) if taken is not None else 0
        if lines and (taken is None or size + more > _RECORD_CHARS):
            pieces.append((path, lines))
            lines, size = [], 0
        if taken is None or (more > _RECORD_CHARS and isinstance(item, dict | list)):
            pieces.extend(below)
        else:
            lines.extend(taken)
            size += more
    if lines:
        pieces.append((path, lines))
    return pieces


def _items(value: list[Json] | dict[str, Json]) -> Iterator[tuple[str, Json]]:
    if isinstance(value, dict):
        yield from value.items()
    else:
        yield from ((f"[{number}]", item) for number, item in enumerate(value))


def _prefixed(name: str, item: Json, lines: list[str]) -> list[str]:
    """The lines of a small part within its parent: `address.city: Ulm`."""
    if not isinstance(item, dict | list):
        return [f"{name}: {lines[0]}"]
    joined = "" if isinstance(item, list) else "."
    return [f"{name}{joined}{line}" for line in lines]


def _shown(value: bool | str | None) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str() if len(value) >= _BINARY_CHARS and _BASE64.fullmatch(value):
            return "(binary data)"
        case str():
            return value
