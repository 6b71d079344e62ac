"""Schemas and expressions of requesters, capped before any server sees them: deep nesting kills several (pure)."""

from __future__ import annotations

from ryvion_node.engine.interface import EngineError
from ryvion_node.engine.jobs import plain_text
from ryvion_node.engine.remote.constants import MAX_SCHEMA_CHARS, MAX_SCHEMA_DEPTH
from ryvion_node.engine.remote.http import parsed


def checked_schema(text: str) -> object:
    """The JSON Schema in a text: an object, or true or false. Raises EngineError."""
    if len(text) > MAX_SCHEMA_CHARS:
        raise EngineError("grammar_invalid", f"a schema is at most {MAX_SCHEMA_CHARS} characters")
    schema = parsed(plain_text(text))
    if not isinstance(schema, dict | bool):
        raise EngineError("grammar_invalid", "the schema is not a JSON object")
    if _depth(schema) > MAX_SCHEMA_DEPTH:
        raise EngineError("grammar_invalid", f"a schema is nested at most {MAX_SCHEMA_DEPTH} deep")
    return schema


def checked_expression(text: str) -> str:
    """The same regular expression. Raises EngineError."""
    if not text or len(text) > MAX_SCHEMA_CHARS:
        raise EngineError("grammar_invalid", f"an expression has 1 .. {MAX_SCHEMA_CHARS} characters")
    depth = deepest = 0
    for character in text:
        depth += (character == "(") - (character == ")")
        deepest = max(deepest, depth)
    if deepest > MAX_SCHEMA_DEPTH:
        raise EngineError("grammar_invalid", f"an expression is nested at most {MAX_SCHEMA_DEPTH} deep")
    return plain_text(text)


def _depth(value: object) -> int:
    """Levels of objects and arrays, without recursion."""
    deepest = 0
    waiting = [(value, 1)]
    while waiting:
        found, level = waiting.pop()
        if isinstance(found, dict | list):
            deepest = max(deepest, level)
            inner = found.values() if isinstance(found, dict) else found
            waiting.extend((part, level + 1) for part in inner)
    return deepest
