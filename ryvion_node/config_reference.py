"""Writes docs/configuration.md from the configuration's own field descriptions."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from ryvion_node.config import all_sections
from ryvion_node.config_values import Credits, Price, Section, Size
from ryvion_node.hours import Window

_INTRODUCTION = """\
# Configuration

<!-- Written by ryvion_node.config_reference; a test compares the two. Change the descriptions in ryvion_node/config.py. -->

One TOML file, every key optional. `ryvion-node up` reads `config.toml` in the node's configuration folder (with `--home DIR`:
in that folder), or the file given with `--config`. A key that is not listed here is an error, and flags go over the file.

```toml
[node]
jurisdiction = "DE"
bootstrap = ["/dns4/example.org/tcp/7987/p2p/12D3KooW..."]

[proxy]
enabled = true

[executor]
enabled = true
price_in = "0.05"   # credits per million tokens
price_out = "0.20"

[[executor.models]]
name = "ryvion-tiny"
```
"""


def config_reference() -> str:
    """The whole page, in Markdown."""
    return _INTRODUCTION + "".join(_section(heading, section) for heading, section in all_sections())


def _section(heading: str, section: type[Section]) -> str:
    rows = [_row(name, field) for name, field in section.model_fields.items() if not _is_section(field)]
    table = ["| Key | Type | Default | Meaning |", "|---|---|---|---|", *rows]
    return f"\n## `{heading}`\n\n{section.__doc__}\n\n" + "\n".join(table) + "\n"


def _is_section(field: FieldInfo) -> bool:
    """Has it a heading of its own?"""
    return isinstance(field.annotation, type) and issubclass(field.annotation, Section)


def _row(name: str, field: FieldInfo) -> str:
    return f"| `{name}` | {_type(field.annotation, field.metadata)} | {_default(field)} | {field.description} |"


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is PydanticUndefined:
        return "required"
    return "unset" if value is None else f"`{_toml(value)}`"


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if value == {}:
        return "{}"
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, (int, float)):
        return f"{value:g}" if isinstance(value, float) else str(value)
    return f'"{value}"'


_WORDS: dict[object, str] = {
    str: "string",
    int: "integer",
    bool: "true or false",
    float: "seconds",
    Path: "path",
    bytes: "hex",
    Window: "window",
}

_SIZE = get_args(Size)[1]
_MONEY = {*get_args(Credits)[1:], *get_args(Price)[1:]}


def _type(annotation: Any, metadata: list[Any]) -> str:
    if _MONEY & set(metadata):
        return "credits"
    if _SIZE in metadata:
        return "size"
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(parts[0], list(parts[1:]))
    if origin in (Union, types.UnionType):
        return next(_type(part, []) for part in parts if part is not type(None))
    if origin is Literal:
        return " or ".join(f"`{part}`" for part in parts)
    if origin is dict:
        return f"{_type(parts[1], [])}s by name"
    if origin is tuple:
        return f"list of {_type(parts[0], [])}s"
    return _WORDS.get(annotation, "table")


if __name__ == "__main__":
    sys.stdout.write(config_reference())
