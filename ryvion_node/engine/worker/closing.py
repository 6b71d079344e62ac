"""Schemas without room for what nobody asked for.

JSON Schema lets an object have further properties where it does not say otherwise, and a small model that may go on
does. An answer under the closed schema is one under the open one, too, so nothing that was asked for is lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

_ELSEWHERE: Final = frozenset(
    (
        "allOf",
        "dependentSchemas",
        "if",
        "not",
        "patternProperties",
        "propertyNames",
        "unevaluatedProperties",
        "$dynamicRef",
        "$recursiveRef",
    )
)
"""With any of these an object's properties may be named at more than one place."""
_JOINING: Final = frozenset(("$ref", "anyOf", "oneOf"))
"""These, too, where they stand beside properties."""
_VALUES: Final = frozenset(("const", "enum", "default", "examples", "required"))
_BY_NAME: Final = frozenset(("properties", "$defs", "definitions"))


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema whose objects have the properties that it names and no others, unless it says that they may.

    Unchanged where properties of one object are named at several places.
    """
    if any(_is_joined(part) for part in _parts(schema)):
        return schema
    result = _closed(schema)
    assert isinstance(result, dict)
    return result


def _closed(value: object, *, names: bool = False) -> object:
    """`names`: the keys of `value` are names of its author's, and what they hold are schemas."""
    match value:
        case dict():
            inner = {
                key: item if key in _VALUES and not names else _closed(item, names=key in _BY_NAME and not names)
                for key, item in value.items()
            }
            return inner | {"additionalProperties": False} if not names and _may_be_closed(value) else inner
        case list():
            return [_closed(item) for item in value]
        case _:
            return value


def _may_be_closed(schema: dict[str, Any]) -> bool:
    properties = schema.get("properties")
    if not isinstance(properties, dict) or not properties or "additionalProperties" in schema:
        return False
    required, least = schema.get("required", []), schema.get("minProperties", 0)
    known = isinstance(required, list) and all(name in properties for name in required if isinstance(name, str))
    return known and isinstance(least, int) and least <= len(properties)


def _is_joined(schema: dict[str, Any]) -> bool:
    return bool(schema.keys() & _ELSEWHERE) or ("properties" in schema and bool(schema.keys() & _JOINING))


def _parts(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The schema and all those in it; nesting is bounded by who read it."""
    yield schema
    for key, item in schema.items():
        if key in _VALUES:
            continue
        inner = (
            item.values() if key in _BY_NAME and isinstance(item, dict) else item if isinstance(item, list) else [item]
        )
        for part in inner:
            if isinstance(part, dict):
                yield from _parts(part)
