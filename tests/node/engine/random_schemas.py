"""Random JSON Schemas whose answers stay short, from a seed."""

from __future__ import annotations

import random
from typing import Any

Schema = dict[str, Any]
_NAMES = ("name", "age", "tags", "a", "b c", "größe", "id", "x1", "note", "_")
_PATTERNS = ("^[a-z]{2,6}$", "^(yes|no|maybe)$", "^[A-Z][a-z]{0,5}-[0-9]{2}$", "^\\d{3}$", "^a[bc]{1,4}d$")
_FORMATS = ("date", "time", "date-time", "uuid", "ipv4")
_VALUES: tuple[Any, ...] = (
    "red",
    "",
    'quo"te',
    7,
    -3,
    2.5,
    True,
    False,
    None,
    [1, "two"],
    {"k": "v"},
    "ünïcode",
    "a\nb",
)
MAX_DEPTH = 3


def random_schema(seed: int) -> Schema:
    """One of a stable sequence of schemas; each can be satisfied."""
    pick = random.Random(seed)
    schema = _container(pick, 0) if pick.random() < 0.8 else _schema(pick, 0)
    if pick.random() < 0.25:
        schema = {
            "type": "object",
            "properties": {"first": {"$ref": "#/$defs/part"}, "second": {"$ref": "#/$defs/part"}},
            "required": ["first"],
            "additionalProperties": False,
            "$defs": {"part": schema},
        }
    return schema


def _schema(pick: random.Random, depth: int) -> Schema:
    kinds = [_string, _string, _integer, _number, _enum, _const, _plain]
    if depth < MAX_DEPTH:
        kinds += [_container, _any_of, _nullable]
    return pick.choice(kinds)(pick, depth)


def _container(pick: random.Random, depth: int) -> Schema:
    return pick.choice((_object, _object, _array, _tuple))(pick, depth)


def _object(pick: random.Random, depth: int) -> Schema:
    names = pick.sample(_NAMES, pick.randint(1, 4))
    schema: Schema = {
        "type": "object",
        "properties": {name: _schema(pick, depth + 1) for name in names},
        "required": [name for name in names if pick.random() < 0.7],
        "additionalProperties": False,
    }
    if pick.random() < 0.3:
        schema |= {"title": "A thing", "description": "Described."}
    return schema


def _array(pick: random.Random, depth: int) -> Schema:
    least = pick.randint(0, 2)
    return {
        "type": "array",
        "items": _schema(pick, depth + 1),
        "minItems": least,
        "maxItems": least + pick.randint(0, 2),
    }


def _tuple(pick: random.Random, depth: int) -> Schema:
    items = [_schema(pick, depth + 1) for _ in range(pick.randint(1, 3))]
    return {"type": "array", "prefixItems": items, "items": False, "minItems": len(items)}


def _any_of(pick: random.Random, depth: int) -> Schema:
    return {"anyOf": [_schema(pick, depth + 1) for _ in range(pick.randint(1, 3))]}


def _nullable(pick: random.Random, depth: int) -> Schema:
    if pick.random() < 0.5:
        return {"type": ["string", "null"], "maxLength": 6}
    return {"anyOf": [{"type": "null"}, _schema(pick, depth + 1)]}


def _string(pick: random.Random, depth: int) -> Schema:
    choice = pick.randrange(4)
    if choice == 0:
        return {"type": "string", "pattern": pick.choice(_PATTERNS)}
    if choice == 1:
        # Times may have digits without end.
        return {"type": "string", "format": pick.choice(_FORMATS), "maxLength": 40}
    least = pick.randint(0, 3)
    return {"type": "string", "minLength": least, "maxLength": least + pick.randint(0, 8)}


def _integer(pick: random.Random, depth: int) -> Schema:
    low = pick.randint(-200, 200)
    high = low + pick.randint(0, 500)
    if pick.random() < 0.3:
        return {"type": "integer", "exclusiveMinimum": low, "exclusiveMaximum": high + 2}
    if pick.random() < 0.2:
        return {"type": "integer", "minimum": 0, "maximum": 100, "multipleOf": pick.choice((2, 5, 10))}
    return {"type": "integer", "minimum": low, "maximum": high}


def _number(pick: random.Random, depth: int) -> Schema:
    """Multiples of a tenth, as digits without end are legal for any other number."""
    low = pick.randint(-50, 50)
    return {"type": "number", "minimum": low, "maximum": low + pick.randint(1, 90), "multipleOf": 0.5}


def _enum(pick: random.Random, depth: int) -> Schema:
    return {"enum": pick.sample(_VALUES, pick.randint(1, 5))}


def _const(pick: random.Random, depth: int) -> Schema:
    return {"const": pick.choice(_VALUES)}


def _plain(pick: random.Random, depth: int) -> Schema:
    return {"type": pick.choice(("boolean", "null"))}
