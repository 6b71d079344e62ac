"""What a response request may say, translated into a chat request. Nothing is stored, so nothing can be referred to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import Discriminator, Field, JsonValue, Tag, ValidationError

from ryvion_node.proxy.constants import MAX_COMPLETION_TOKENS
from ryvion_node.proxy.errors import ApiError
from ryvion_node.proxy.requests import ChatRequest, chat_request
from ryvion_node.proxy.responses_input import Input, Turn, turns_of
from ryvion_node.proxy.shapes import Strict
from ryvion_node.proxy.tooling import Schema
from ryvion_node.proxy.validation import api_error, invalid_value, missing, refuse_not_honoured, unsupported
from ryvion_protocol.constants import MAX_TOP_LOGPROBS

LOGPROBS: Final = "message.output_text.logprobs"
"""What `include` names to get them. Its other values ask for more about tools that are refused, or about thoughts."""

IGNORED: Final = frozenset(
    {"max_tool_calls", "prompt_cache_options", "prompt_cache_retention", "stream_options", "verbosity"}
)
"""Accepted whatever they hold, beside those of chats: they concern tools, caches or padding that are not here."""

NOT_HONOURED: Final[dict[str, tuple[object, ...]]] = {
    "background": (False,),
    "context_management": ([],),
    "conversation": (),
    "messages": (),
    "moderation": (),
    "prompt": (),
    "truncation": ("disabled",),
}
"""As in `requests.NOT_HONOURED`, which holds here too."""


class FunctionTool(Strict):
    """One of `tools`."""

    type: str
    name: str | None = None
    description: str | None = None
    parameters: Schema | None = None
    strict: bool | None = None


class AllowedTool(Strict):
    """One of those that may be called."""

    type: str
    name: str | None = None


class Choice(Strict):
    """A `tool_choice` that names functions."""

    type: str
    name: str | None = None
    mode: Literal["auto", "required"] | None = None
    tools: list[AllowedTool] | None = None


def _text_or_object(value: object) -> str:
    return "<object>" if isinstance(value, dict) else "<text>"


ToolChoice = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[Choice, Tag("<object>")], Discriminator(_text_or_object)
]


class TextFormat(Strict):
    """What the answer must be."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    definition: Schema | None = Field(default=None, alias="schema")
    strict: bool | None = None


class TextConfig(Strict):
    """Of the answer's text."""

    format: TextFormat | None = None


class ReasoningConfig(Strict):
    """Of its thoughts. They come as they are, so the wish for a summary changes nothing."""

    effort: str | None = None


class ResponsesRequest(Strict):
    """What this endpoint names differently; the rest is as in a ChatRequest."""

    input: Input
    instructions: str | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=MAX_COMPLETION_TOKENS)] | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    text: TextConfig | None = None
    reasoning: ReasoningConfig | None = None
    include: list[str] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    previous_response_id: str | None = None
    metadata: JsonValue = None

    @property
    def wants_logprobs(self) -> bool:
        """Of the text's tokens."""
        return LOGPROBS in (self.include or ()) or bool(self.top_logprobs)


@dataclass(frozen=True, slots=True)
class Reading:
    """A request, as it came and as a chat."""

    request: ResponsesRequest
    chat: ChatRequest
    turns: tuple[Turn, ...]


def parse_responses_request(body: bytes) -> Reading:
    """Read and check a body; raises ApiError."""
    try:
        request = ResponsesRequest.model_validate_json(body)
    except ValidationError as exc:
        raise api_error(exc) from None
    extra = request.model_extra or {}
    refuse_not_honoured(extra, NOT_HONOURED, "")
    if request.previous_response_id is not None:
        problem = "names an earlier answer, and answers are not stored here; send the whole conversation as 'input'"
        raise unsupported("previous_response_id", problem)
    turns = turns_of(request.instructions, request.input)
    fields = {name: value for name, value in extra.items() if name not in NOT_HONOURED and name not in IGNORED}
    fields["messages"] = [turn.to_chat() for turn in turns]
    fields |= _tools(request)
    if request.max_output_tokens is not None:
        fields["max_completion_tokens"] = request.max_output_tokens
    if request.text is not None and request.text.format is not None:
        fields["response_format"] = _format(request.text.format)
    if request.reasoning is not None and request.reasoning.effort is not None:
        fields["reasoning_effort"] = request.reasoning.effort
    if request.wants_logprobs:
        fields |= {"logprobs": True, "top_logprobs": request.top_logprobs}
    try:
        return Reading(request, chat_request(fields), tuple(turns))
    except ApiError as error:
        raise told(error, turns) from None


def told(error: ApiError, turns: Sequence[Turn]) -> ApiError:
    """A problem with the chat, by the names that this endpoint has."""
    if error.param is None:
        return error
    param = _MESSAGE.sub(lambda found: _where(found, turns), error.param)
    for pattern, name in _NAMES:
        param = pattern.sub(name, param)
    return error.at(param)


_MESSAGE: Final = re.compile(r"^messages\[(\d+)\](?:\.tool_calls\[(\d+)\](?:\.function)?(\.id)?)?")
_NAMES: Final = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"^messages\b", "input"),
        (r"\.tool_call_id$", ".call_id"),
        (r"^(tools\[\d+\])\.function\b", r"\1"),
        (r"^tool_choice\.function\b", "tool_choice"),
        (r"^response_format(?:\.json_schema)?\b", "text.format"),
        (r"^max_completion_tokens$", "max_output_tokens"),
        (r"^reasoning_effort$", "reasoning.effort"),
        (r"^logprobs$", "include"),
    )
)


def _where(found: re.Match[str], turns: Sequence[Turn]) -> str:
    turn = turns[int(found[1])]
    if found[2] is None:
        return turn.where
    return turn.calls[int(found[2])][0] + (".call_id" if found[3] else "")


def _tools(request: ResponsesRequest) -> dict[str, object]:
    """The tools and the choice among them, as a chat has them."""
    tools = list(request.tools or [])
    choice: object = request.tool_choice
    if isinstance(request.tool_choice, Choice):
        if request.tool_choice.type == "allowed_tools":
            tools = _allowed(tools, request.tool_choice)
            choice = request.tool_choice.mode or "auto"
        else:
            choice = _named(request.tool_choice)
    return {
        "tools": [_tool(tool, index) for index, tool in enumerate(tools)],
        "tool_choice": choice,
        "parallel_tool_calls": request.parallel_tool_calls,
    }


def _named(choice: Choice) -> dict[str, object]:
    if choice.name is None:
        return {"type": choice.type}
    return {"type": choice.type, "function": {"name": choice.name}}


def _tool(tool: FunctionTool, index: int) -> dict[str, object]:
    if tool.type != "function":
        return {"type": tool.type}
    if tool.name is None:
        raise missing(f"tools[{index}].name")
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}


def _allowed(tools: list[FunctionTool], choice: Choice) -> list[FunctionTool]:
    names = {one.name for one in choice.tools or []}
    unknown = names - {tool.name for tool in tools}
    if unknown or not names:
        raise invalid_value("tool_choice.tools", "must name some of the tools")
    return [tool for tool in tools if tool.name in names]


def _format(wanted: TextFormat) -> dict[str, object]:
    if wanted.type != "json_schema":
        return {"type": wanted.type}
    if wanted.name is None:
        raise missing("text.format.name")
    schema = {"name": wanted.name, "description": wanted.description, "schema": wanted.definition}
    return {"type": "json_schema", "json_schema": schema}
