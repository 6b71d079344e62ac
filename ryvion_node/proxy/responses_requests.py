"""What a response request may say, translated into a chat request. Nothing is stored, so nothing can be referred to."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import Discriminator, Field, JsonValue, Tag, ValidationError

from ryvion_node.proxy.constants import MAX_COMPLETION_TOKENS
from ryvion_node.proxy.errors import ApiError
from ryvion_node.proxy.requests import ChatRequest, chat_request
from ryvion_node.proxy.responses_input import Input, Turn, joined_name, turns_of
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
    "best_of": (1,),
    "context_management": ([],),
    "conversation": (),
    "messages": (),
    "moderation": (),
    "n": (1,),
    "prompt": (),
    "truncation": ("disabled",),
}
"""As in `requests.NOT_HONOURED`, which holds here too."""


class FunctionTool(Strict):
    """One of `tools`, or a namespace of some."""

    type: str
    name: str | None = None
    description: str | None = None
    parameters: Schema | None = None
    strict: bool | None = None
    tools: list[FunctionTool] | None = None
    """Of a namespace."""


class AllowedTool(Strict):
    """One of those that may be called."""

    type: str
    name: str | None = None
    namespace: str | None = None


class Choice(Strict):
    """A `tool_choice` that names functions."""

    type: str
    name: str | None = None
    namespace: str | None = None
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
    """Of its thoughts. They come as they are; who wants a summary gets them in the summary's place."""

    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None
    """The former name of `summary`."""


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

    @property
    def wants_summary(self) -> bool:
        """Of the thoughts."""
        return self.reasoning is not None and bool(self.reasoning.summary or self.reasoning.generate_summary)


@dataclass(frozen=True, slots=True)
class Offered:
    """A tool that the model is shown."""

    where: str
    """Where the client wrote it, for errors."""
    tool: FunctionTool
    namespace: FunctionTool | None = None

    @property
    def name(self) -> str:
        """As the model knows it: chats have no namespaces."""
        return joined_name(self.namespace.name if self.namespace else None, self.tool.name or "")

    def to_chat(self) -> dict[str, object]:
        """As a chat's tool."""
        if self.tool.type != "function":
            return {"type": self.tool.type}
        if self.tool.name is None:
            raise missing(f"{self.where}.name")
        about = [one.description for one in (self.namespace, self.tool) if one is not None and one.description]
        function = {"name": self.name, "description": "\n".join(about), "parameters": self.tool.parameters}
        return {"type": "function", "function": function}


@dataclass(frozen=True, slots=True)
class Reading:
    """A request, as it came and as a chat."""

    request: ResponsesRequest
    chat: ChatRequest
    turns: tuple[Turn, ...]
    tools: tuple[Offered, ...]

    def told(self, error: ApiError) -> ApiError:
        """A problem with the chat, by the names that this endpoint has."""
        return _told(error, self.turns, self.tools)


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
    tools, choice = _tools(request)
    fields |= {
        "tools": [tool.to_chat() for tool in tools],
        "tool_choice": choice,
        "parallel_tool_calls": request.parallel_tool_calls,
    }
    if request.max_output_tokens is not None:
        fields["max_completion_tokens"] = request.max_output_tokens
    if request.text is not None and request.text.format is not None:
        fields["response_format"] = _format(request.text.format)
    if request.reasoning is not None and request.reasoning.effort is not None:
        fields["reasoning_effort"] = request.reasoning.effort
    if request.wants_logprobs:
        fields |= {"logprobs": True, "top_logprobs": request.top_logprobs}
    try:
        return Reading(request, chat_request(fields), tuple(turns), tuple(tools))
    except ApiError as error:
        raise _told(error, turns, tools) from None


def _told(error: ApiError, turns: Sequence[Turn], tools: Sequence[Offered]) -> ApiError:
    if error.param is None:
        return error
    param = _MESSAGE.sub(lambda found: _where(found, turns), error.param)
    param = _TOOL.sub(lambda found: tools[int(found[1])].where, param)
    for pattern, name in _NAMES:
        param = pattern.sub(name, param)
    return error.at(param)


_MESSAGE: Final = re.compile(r"^messages\[(\d+)\](?:\.tool_calls\[(\d+)\](?:\.function)?(\.id)?)?")
_TOOL: Final = re.compile(r"^tools\[(\d+)\](?:\.function\b)?")
_NAMES: Final = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"^messages\b", "input"),
        (r"\.tool_call_id$", ".call_id"),
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


def _tools(request: ResponsesRequest) -> tuple[list[Offered], object]:
    """The tools and the choice among them, as a chat has it."""
    tools = list(_offered(request.tools or []))
    choice = request.tool_choice
    if not isinstance(choice, Choice):
        return tools, choice
    if choice.type != "allowed_tools":
        named = {} if choice.name is None else {"function": {"name": joined_name(choice.namespace, choice.name)}}
        return tools, {"type": choice.type} | named
    names = {joined_name(one.namespace, one.name or "") for one in choice.tools or []}
    if not names or names - {tool.name for tool in tools}:
        raise invalid_value("tool_choice.tools", "must name some of the tools")
    return [tool for tool in tools if tool.name in names], choice.mode or "auto"


def _offered(tools: list[FunctionTool]) -> Iterator[Offered]:
    for index, tool in enumerate(tools):
        where = f"tools[{index}]"
        if tool.type != "namespace":
            yield Offered(where, tool)
            continue
        if not tool.name:
            raise missing(f"{where}.name")
        for inner, part in enumerate(tool.tools or []):
            yield Offered(f"{where}.tools[{inner}]", part, tool)


def _format(wanted: TextFormat) -> dict[str, object]:
    if wanted.type != "json_schema":
        return {"type": wanted.type}
    if wanted.name is None:
        raise missing("text.format.name")
    schema = {"name": wanted.name, "description": wanted.description, "schema": wanted.definition}
    return {"type": "json_schema", "json_schema": schema}
