"""Tools and the form of the answer, from the client's form to the wire's."""

from __future__ import annotations

import json
from typing import Annotated, Final, Literal

from pydantic import Discriminator, Field, JsonValue, Tag

from ryvion_node.proxy.constants import MAX_PARAMETERS_DEPTH, MAX_SCHEMA_DEPTH, MAX_TOOLS_BYTES
from ryvion_node.proxy.messages import check_name
from ryvion_node.proxy.shapes import Strict
from ryvion_node.proxy.validation import invalid_value, missing, unsupported
from ryvion_protocol.constants import MAX_GRAMMAR_BYTES, MAX_TOOLS
from ryvion_protocol.messages import OutputFormat, Tool, ToolUse

Schema = dict[str, JsonValue]
_WORDS: Final = ("none", "auto", "required")


class Function(Strict):
    """A function that the model may call. `strict` changes nothing: a call that is forced always follows the schema."""

    name: str
    description: str | None = None
    parameters: Schema | None = None
    strict: bool | None = None


class ToolDefinition(Strict):
    """One of `tools`."""

    type: str
    function: Function | None = None


class FunctionName(Strict):
    """Names one of the functions."""

    name: str


class NamedChoice(Strict):
    """A `tool_choice` that names a function."""

    type: str
    function: FunctionName | None = None


def _text_or_object(value: object) -> str:
    return "<object>" if isinstance(value, dict) else "<text>"


ToolChoice = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[NamedChoice, Tag("<object>")], Discriminator(_text_or_object)
]


class JsonSchemaFormat(Strict):
    """The schema that an answer must follow. It is always enforced, `strict` or not."""

    name: str
    description: str | None = None
    definition: Schema | None = Field(default=None, alias="schema")
    strict: bool | None = None


class ResponseFormat(Strict):
    """What the answer must be."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None


def tool_use(tools: list[ToolDefinition] | None, choice: str | NamedChoice | None, parallel: bool | None) -> ToolUse:
    """The tools as they are sold; raises ApiError for the first thing that is wrong with them."""
    given = tools or []
    if len(given) > MAX_TOOLS:
        raise invalid_value("tools", f"holds {len(given)} tools; at most {MAX_TOOLS} are allowed")
    known: dict[str, Tool] = {}
    for index, definition in enumerate(given):
        tool = _tool(definition, f"tools[{index}]")
        if tool.name in known:
            raise invalid_value(f"tools[{index}].function.name", "stands twice")
        known[tool.name] = tool
    size = sum(len((tool.name + tool.description + tool.parameters).encode()) for tool in known.values())
    if size > MAX_TOOLS_BYTES:
        raise invalid_value("tools", f"holds {size} bytes of names, descriptions and schemas; {MAX_TOOLS_BYTES} fit")
    word, name = _choice(choice)
    if word == "named" and name not in known:
        raise invalid_value("tool_choice.function.name", "names none of the tools")
    if word == "required" and not known:
        raise invalid_value("tool_choice", "is 'required', but there are no tools")
    if not known or word == "none":
        return ToolUse()  # what may not be called is not shown to the model
    return ToolUse(tuple(known.values()), word, name, parallel=parallel is not False)


def _tool(definition: ToolDefinition, where: str) -> Tool:
    if definition.type != "function":
        raise unsupported(f"{where}.type", f"is '{definition.type:.40}'; only functions are supported")
    function = definition.function
    if function is None:
        raise missing(f"{where}.function")
    schema = ""
    if function.parameters is not None:
        schema = _schema_text(function.parameters, f"{where}.function.parameters", MAX_PARAMETERS_DEPTH)
    return Tool(check_name(function.name, f"{where}.function.name"), function.description or "", schema)


def _choice(choice: str | NamedChoice | None) -> tuple[str, str]:
    """Our word for the choice, and the name of the tool that is named."""
    if choice is None:
        return "auto", ""
    if isinstance(choice, str):
        if choice not in _WORDS:
            raise invalid_value("tool_choice", "must be 'none', 'auto', 'required', or name a function")
        return choice, ""
    if choice.type != "function":
        raise unsupported("tool_choice.type", f"is '{choice.type:.40}'; only a function can be named")
    if choice.function is None:
        raise missing("tool_choice.function")
    return "named", choice.function.name


def output_format(wanted: ResponseFormat | None) -> OutputFormat:
    """The form of the answer as it is sold; raises ApiError for a schema that is missing or too large."""
    if wanted is None:
        return OutputFormat()
    if wanted.json_schema is None and (wanted.model_extra or {}).get("schema") is not None:
        place = "'response_format.json_schema.schema', with the type 'json_schema'"
        raise unsupported("response_format.schema", f"is not where a schema is read; put it at {place}")
    if wanted.type == "text":
        return OutputFormat()
    if wanted.type == "json_object":
        return OutputFormat("json_object")
    if wanted.json_schema is None:
        raise missing("response_format.json_schema")
    check_name(wanted.json_schema.name, "response_format.json_schema.name")
    if wanted.json_schema.definition is None:
        raise missing("response_format.json_schema.schema")
    text = _schema_text(wanted.json_schema.definition, "response_format.json_schema.schema", MAX_SCHEMA_DEPTH)
    return OutputFormat("json_schema", text)


def _schema_text(schema: Schema, where: str, max_depth: int) -> str:
    if _is_deeper(schema, max_depth):
        raise invalid_value(where, f"is nested deeper than {max_depth} levels")
    try:
        text = json.dumps(schema, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:
        raise invalid_value(where, "holds a number that JSON does not have") from None
    size = len(text.encode())
    if size > MAX_GRAMMAR_BYTES:
        raise invalid_value(where, f"has {size} bytes; at most {MAX_GRAMMAR_BYTES} are allowed")
    return text


def _is_deeper(value: JsonValue, depth: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return depth == 0 or any(_is_deeper(item, depth - 1) for item in inner)
