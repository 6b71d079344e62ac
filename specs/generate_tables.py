"""Fills the generated parts of the specs from code and vectors. `python -m specs.generate_tables [--check]`.

A part stands between `<!-- generated: KIND ARGUMENTS -->` and `<!-- end -->`; KINDS below lists what there is.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Final, get_args, get_origin, get_type_hints

from ryvion_protocol import constants, messages
from ryvion_protocol.any_message import Message
from ryvion_protocol.codec import pack_value
from ryvion_protocol.features import FEATURES
from ryvion_protocol.job import JOB_TABLE
from ryvion_protocol.packet import unpack
from ryvion_protocol.schema import PRINTABLE, Lengths, Pattern, Size
from specs.meanings import MEANINGS

FOLDER: Final = Path(__file__).parent
_PART = re.compile(r"(<!-- generated: (\w+) ?([^>]*?) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(text: str) -> str:
    """The text of a spec with every generated part made anew."""
    return _PART.sub(lambda part: f"{part[1]}\n{KINDS[part[2]](part[3].split())}\n\n{part[4]}", text)


def main() -> None:
    """Fill all specs, or with --check say which are out of date."""
    parser = argparse.ArgumentParser(description="Fill the generated parts of specs/*.md.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a spec is out of date")
    arguments = parser.parse_args()
    for path in sorted(FOLDER.glob("*.md")):
        old = path.read_text(encoding="utf-8")
        new = filled(old)
        if old == new:
            continue
        if arguments.check:
            sys.exit(f"{path} is out of date: run python -m specs.generate_tables")
        path.write_text(new, encoding="utf-8")


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in lines)


# --- message fields -----------------------------------------------------------------------------------------


def _fields(arguments: list[str]) -> str:
    (name,) = arguments
    cls = getattr(messages, name)
    hints = get_type_hints(cls, include_extras=True)
    names = [part.name for part in fields(cls)]
    if names != list(MEANINGS[name]):
        raise ValueError(f"specs/meanings.py does not name the fields of {name} in their order")
    rows = [
        (str(index), f"`{field}`", _type_of(hints[field]), MEANINGS[name][field])
        for index, field in enumerate(names, start=1)
    ]
    return _table(("#", "field", "type and legal values", "meaning"), rows)


def _type_of(hint: Any) -> str:
    if hint is bool:
        return "bool"
    if is_dataclass(hint):
        assert isinstance(hint, type)
        page = "03-offers.md" if hint in (messages.Hardware, messages.ModelOffer) else "04-jobs.md"
        return f"[{hint.__name__}]({page}#{hint.__name__.lower()})"
    assert get_origin(hint) is Annotated
    base, *marks = get_args(hint)
    base = getattr(base, "__supertype__", base)
    size = next(mark for mark in marks if isinstance(mark, Size))
    if get_origin(base) is tuple:
        return f"array of {_type_of(get_args(base)[0])}, {_range(size)} items"
    if base is int:
        return f"uint, {_range(size)}"
    if base is bytes:
        lengths = next((mark.allowed for mark in marks if isinstance(mark, Lengths)), None)
        return f"bytes, {' or '.join(map(str, lengths)) if lengths else _range(size)}"
    pattern = next((mark.regex for mark in marks if isinstance(mark, Pattern)), None)
    shown = {None: "", PRINTABLE: ", printable"}.get(pattern, f", `{pattern}`")
    return f"string, {_range(size)} bytes{shown}"


def _range(size: Size) -> str:
    return _number(size.low) if size.low == size.high else f"{_number(size.low)} .. {_number(size.high)}"


def _number(value: int) -> str:
    for power in (16, 32, 53, 64):
        if value == 2**power - 1:
            return f"2^{power}-1"
    if value == constants.MAX_PRICE:
        return "10^12"
    return f"{value:,}"


def _messages(arguments: list[str]) -> str:
    senders = {cls: by for row in JOB_TABLE.values() for cls, (by, _) in row.items()}
    rows = [
        (
            f"`{cls.TYPE}`",
            cls.__name__,
            senders.get(cls, "either" if cls is messages.Error else "gossip"),
            f"`{cls.SIGNER}`" if hasattr(cls, "SIGNER") else "not signed",
            _number(cls.MAX_BYTES),
        )
        for cls in get_args(Message)
    ]
    return _table(("type", "message", "sent by", "signed by", "packet at most, bytes"), rows)


def _features(arguments: list[str]) -> str:
    rows = [(f"`{code}`", meaning) for code, meaning in FEATURES.items()]
    return _table(("feature", "the engine"), rows)


# --- the state table ----------------------------------------------------------------------------------------


def _states(arguments: list[str]) -> str:
    rows = [
        (f"`{state}`", by, cls.__name__, f"`{after}`")
        for state, row in JOB_TABLE.items()
        for cls, (by, after) in row.items()
    ]
    return _table(("in state", "who", "may send", "which leads to"), rows)


def _diagram(arguments: list[str]) -> str:
    lines = [
        f"    {state} --> {after}: {cls.__name__}"
        for state, row in JOB_TABLE.items()
        for cls, (_, after) in row.items()
        if not state.endswith("_cancelled")
    ]
    return "\n".join(("```mermaid", "stateDiagram-v2", "    [*] --> idle", *lines, "    ended --> [*]", "```"))


# --- limits -------------------------------------------------------------------------------------------------


def _limits(arguments: list[str]) -> str:
    reasons = _reasons()
    return _table(
        ("limit", "value", "why"),
        [(f"`{name}`", _value(getattr(constants, name)), reasons.get(name, "")) for name in arguments],
    )


def _value(value: object) -> str:
    return _number(value) if isinstance(value, int) else f"`{value}`"


@cache
def _reasons() -> dict[str, str]:
    """The docstring after each constant."""
    body = ast.parse(Path(str(constants.__file__)).read_text(encoding="utf-8")).body
    return {
        before.target.id: " ".join(str(after.value.value).split())
        for before, after in pairwise(body)
        if isinstance(before, ast.AnnAssign)
        and isinstance(before.target, ast.Name)
        and isinstance(after, ast.Expr)
        and isinstance(after.value, ast.Constant)
    }


# --- worked examples ----------------------------------------------------------------------------------------


@cache
def _vectors() -> dict[str, dict[str, Any]]:
    return {
        vector["id"]: vector
        for path in sorted((FOLDER / "vectors").glob("*.json"))
        for vector in json.loads(path.read_text(encoding="utf-8"))["vectors"]
    }


def _vector(arguments: list[str]) -> str:
    """The input of a vector as hex, and what it gives."""
    (name,) = arguments
    vector = _vectors()[name]
    given = {**vector["given"], **{f"gives {key}": value for key, value in vector["gives"].items()}}
    lines = [f"{key}: {value}" for key, value in given.items() if isinstance(value, str | int)]
    data = [vector["input_hex"][at : at + 96] for at in range(0, len(vector["input_hex"]), 96)]
    return "\n".join((f"Vector `{name}`:", "", "```text", *data, *lines, "```"))


def _text(arguments: list[str]) -> str:
    """The input of a vector as the text it is."""
    (name,) = arguments
    vector = _vectors()[name]
    content = json.dumps(json.loads(bytes.fromhex(vector["input_hex"])), indent=2)
    gives = [f"{key}: {value}" for key, value in vector["gives"].items()]
    return "\n".join((f"Vector `{name}`:", "", "```json", content, "```", "", "```text", *gives, "```"))


def _bytes(arguments: list[str]) -> str:
    """A packet byte by byte."""
    (name,) = arguments
    raw = bytes.fromhex(_vectors()[name]["input_hex"])
    packet = unpack(raw, get_args(Message))
    cls = type(packet.message)
    head, signature = pack_value(packet.body)[: -len(packet.body)], pack_value(packet.signature)
    lines = [
        ("93", "array of 3"),
        (pack_value(cls.TYPE).hex(), f"type = {cls.TYPE}"),
        (head.hex(), f"body = {len(packet.body)} bytes, SHA-256 {packet.hash.hex()[:16]}..."),
        *_body_lines(packet.message, "  "),
        (signature.hex(), f"signature = {len(packet.signature)} bytes"),
    ]
    if "".join(hexes for hexes, _ in lines) != raw.hex():
        raise ValueError(f"{name} was not taken apart right")
    shown = [f"{hexes if len(hexes) <= 40 else hexes[:37] + '...':<42}{what}" for hexes, what in lines]
    return "\n".join((f"Vector `{name}`, {len(raw)} bytes:", "", "```text", *shown, "```"))


def _body_lines(value: object, indent: str) -> Iterator[tuple[str, str]]:
    parts = fields(value)  # type: ignore[arg-type]
    yield _array_head(len(parts)).hex(), f"{indent}array of {len(parts)}: {type(value).__name__}"
    for part in parts:
        yield from _value_lines(part.name, getattr(value, part.name), indent + "  ")


def _value_lines(name: str, value: object, indent: str) -> Iterator[tuple[str, str]]:
    if is_dataclass(value):
        yield from _body_lines(value, indent)
    elif isinstance(value, tuple):
        yield _array_head(len(value)).hex(), f"{indent}{name} = array of {len(value)}"
        for item in value:
            yield from _value_lines("item", item, indent + "  ")
    else:
        shown = f"{len(value)} bytes" if isinstance(value, bytes) else json.dumps(value, ensure_ascii=False)
        yield pack_value(value).hex(), f"{indent}{name} = {shown}"


def _array_head(length: int) -> bytes:
    return pack_value((0,) * length)[: -length or None]


KINDS: Final[dict[str, Callable[[list[str]], str]]] = {
    "fields": _fields,
    "messages": _messages,
    "features": _features,
    "states": _states,
    "diagram": _diagram,
    "limits": _limits,
    "vector": _vector,
    "text": _text,
    "bytes": _bytes,
}

if __name__ == "__main__":
    main()
