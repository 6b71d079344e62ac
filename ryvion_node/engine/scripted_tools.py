"""What mock-tools does: it calls the tools that the user names, and fills every schema from the user's own words.

No skill is shown by that, only that requests, calls, results and formats arrive whole on both sides.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ryvion_node.engine.interface import GenerationRequest, OutputFormat, Tool, ToolCall

_NUMBER: Final = re.compile(r"-?\d+")
_QUOTED: Final = re.compile(r"'(\w+)'")
_MAX_DEPTH: Final = 32
"""As deep as a tool's parameters may be; a schema that refers to itself ends there."""


def calls_of(request: GenerationRequest) -> tuple[ToolCall, ...]:
    """The calls of this turn: none once the last ones were answered, or when the model is to speak."""
    use, said = request.tools, said_last(request)
    if not use.tools or use.choice == "none" or request.turns[-1].role == "tool":
        return ()
    if use.choice == "named":
        chosen: Sequence[Tool] = [tool for tool in use.tools if tool.name == use.name]
    else:
        chosen = [tool for tool in use.tools if tool.name in said] or use.tools[:1]
    return tuple(
        ToolCall(f"call_{number}", tool.name, _dump(filled(json.loads(tool.parameters or "{}"), said)))
        for number, tool in enumerate(chosen[: None if use.parallel else 1])
    )


def text_of(request: GenerationRequest, output: OutputFormat) -> str:
    """JSON as the format wants it; without a schema, an object with the keys that the user put in single quotes."""
    said = said_last(request)
    if output.kind == "json_schema":
        return _dump(filled(json.loads(output.text), said))
    return _dump(dict.fromkeys(_QUOTED.findall(said), said))


def said_last(request: GenerationRequest) -> str:
    """The user's last words."""
    return next((turn.content for turn in reversed(request.turns) if turn.role == "user"), "")


def filled(schema: Mapping[str, Any], said: str) -> Any:
    """A value that a plain schema allows: each text is what was said, each number the first one in it."""
    return _filled(schema, schema, said, _MAX_DEPTH)


def _filled(schema: Mapping[str, Any], root: Mapping[str, Any], said: str, depth: int) -> Any:
    if depth == 0:
        return None
    if "$ref" in schema:
        return _filled(_target(str(schema["$ref"]), root), root, said, depth - 1)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    for choice in ("anyOf", "oneOf", "allOf"):
        if choice in schema:
            return _filled(schema[choice][0], root, said, depth - 1)
    kind = schema.get("type", "object")
    match kind if isinstance(kind, str) else kind[0]:
        case "object":
            properties = schema.get("properties", {})
            return {name: _filled(part, root, said, depth - 1) for name, part in properties.items()}
        case "array":
            return [_filled(schema.get("items", {"type": "string"}), root, said, depth - 1)]
        case "integer" | "number":
            return _number(schema, said)
        case "boolean":
            return True
        case "null":
            return None
        case _:
            return said[: schema.get("maxLength")].ljust(schema.get("minLength", 0), ".")


def _number(schema: Mapping[str, Any], said: str) -> int:
    found = _NUMBER.search(said)
    wanted = int(found[0]) if found else 0
    return max(int(schema.get("minimum", wanted)), min(int(schema.get("maximum", wanted)), wanted))


def _target(reference: str, root: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a reference within the schema means."""
    found: Any = root
    for part in reference.removeprefix("#").strip("/").split("/"):
        found = found[part] if part else found
    assert isinstance(found, dict)
    return found


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
