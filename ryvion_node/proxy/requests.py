"""What a chat completion request may say: validated strictly, and nothing that changes the result is dropped silently.

`parse_chat_request` reads the body. Unknown keys are accepted, null means the default, parameters in `IGNORED`
have no influence on the answer, and those in `NOT_HONOURED` are refused by name unless they hold a harmless value.
"""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError

from ryvion_node.proxy.constants import MAX_COMPLETION_TOKENS, MAX_NAME_BYTES, MAX_STOP_BYTES
from ryvion_node.proxy.errors import ApiError
from ryvion_protocol.constants import MAX_STOP_STRINGS

IGNORED: Final = frozenset(
    {
        "user",
        "safety_identifier",
        "metadata",
        "store",
        "service_tier",
        "verbosity",
        "prompt_cache_key",
        "parallel_tool_calls",
    }
)
"""Accepted whatever they hold: they do not change the answer (parallel_tool_calls does not without tools)."""

NOT_HONOURED: Final[dict[str, tuple[object, ...]]] = {
    "audio": (),
    "best_of": (1,),
    "frequency_penalty": (0,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "guided_json": (),
    "knowledge_base": (),
    "logit_bias": ({},),
    "logprobs": (False,),
    "min_p": (0,),
    "modalities": (["text"],),
    "n": (1,),
    "prediction": (),
    "presence_penalty": (0,),
    "reasoning_effort": ("none",),
    "repetition_penalty": (1,),
    "response_format": ({"type": "text"},),
    "ryvion": ({},),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_k": (0, -1),
    "top_logprobs": (0,),
    "web_search_options": (),
}
"""Parameter -> the values that ask for nothing. Anything else would change the result: refused by name."""

_NOT_HONOURED_IN_MESSAGES: Final[dict[str, tuple[object, ...]]] = {
    "audio": (),
    "function_call": (),
    "refusal": (),
    "tool_call_id": (),
    "tool_calls": ([],),
}

_UNION_TAG: Final = re.compile(r"<.*>")
"""Tags of unions, which pydantic puts into an error's path and no client knows."""


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False, hide_input_in_errors=True)


class TextPart(_Strict):
    """One part of a message's content."""

    type: str
    text: str | None = None


def _shape_of(value: object) -> str:
    return "<parts>" if isinstance(value, list) else "<text>"


Content = Annotated[Annotated[str, Tag("<text>")] | Annotated[list[TextPart], Tag("<parts>")], Discriminator(_shape_of)]
StringOrList = Annotated[Annotated[str, Tag("<text>")] | Annotated[list[str], Tag("<parts>")], Discriminator(_shape_of)]


class Message(_Strict):
    """One turn of the conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Content | None = None
    name: str | None = None


class StreamOptions(_Strict):
    """How the stream looks."""

    include_usage: bool | None = None


class ChatRequest(_Strict):
    """The body of POST /v1/chat/completions."""

    model: str
    messages: Annotated[list[Message], Field(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=MAX_COMPLETION_TOKENS)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=MAX_COMPLETION_TOKENS)] | None = None
    stop: StringOrList | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None
    jurisdiction: StringOrList | None = None

    @property
    def include_usage(self) -> bool:
        """Whether the stream ends with a usage chunk."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def stop_texts(self) -> tuple[str, ...]:
        """The stop texts, however they were written."""
        return _as_tuple(self.stop)


def parse_chat_request(body: bytes) -> ChatRequest:
    """Read and check a body; raises ApiError with the path of the first thing that is wrong."""
    try:
        request = ChatRequest.model_validate_json(body)
    except ValidationError as exc:
        raise _api_error(exc) from None
    _refuse_not_honoured(request.model_extra or {}, NOT_HONOURED, "")
    for index, message in enumerate(request.messages):
        _check_message(message, f"messages[{index}]")
    _check_limits(request)
    return request


def text_of(message: Message) -> str:
    """A message's text; parts stand on lines of their own."""
    if isinstance(message.content, list):
        return "\n".join(part.text or "" for part in message.content)
    return message.content or ""


def jurisdiction_texts(request: ChatRequest) -> tuple[str, ...]:
    """What was asked for, unparsed."""
    return _as_tuple(request.jurisdiction)


def _as_tuple(value: str | list[str] | None) -> tuple[str, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


def _refuse_not_honoured(given: dict[str, object], table: dict[str, tuple[object, ...]], where: str) -> None:
    for name in given.keys() & table.keys():
        value = given[name]
        if value is not None and not any(_same(value, harmless) for harmless in table[name]):
            param = f"{where}{name}"
            raise ApiError(
                "unsupported_parameter",
                f"'{param}' would change the answer and is not supported here; leave it out.",
                param=param,
            )


def _same(value: object, harmless: object) -> bool:
    """Equal, and not merely because Python says True == 1."""
    return value == harmless and isinstance(value, bool) == isinstance(harmless, bool)


def _check_message(message: Message, where: str) -> None:
    if message.role in ("tool", "function"):
        raise ApiError(
            "unsupported_parameter", f"Messages with role '{message.role}' are not supported.", param=f"{where}.role"
        )
    _refuse_not_honoured(message.model_extra or {}, _NOT_HONOURED_IN_MESSAGES, f"{where}.")
    if message.content is None:
        raise ApiError(
            "missing_required_parameter", f"Missing required parameter: '{where}.content'.", param=f"{where}.content"
        )
    if isinstance(message.content, list):
        for index, part in enumerate(message.content):
            _check_part(part, f"{where}.content[{index}]")
    if message.name is not None and len(message.name.encode()) > MAX_NAME_BYTES:
        raise _invalid_value(f"{where}.name", f"is longer than {MAX_NAME_BYTES} bytes")


def _check_part(part: TextPart, where: str) -> None:
    if part.type != "text":
        raise ApiError(
            "unsupported_parameter",
            f"'{where}' is of type '{part.type:.40}'; only text parts are supported.",
            param=f"{where}.type",
        )
    if part.text is None:
        raise ApiError(
            "missing_required_parameter", f"Missing required parameter: '{where}.text'.", param=f"{where}.text"
        )


def _check_limits(request: ChatRequest) -> None:
    texts = request.stop_texts
    if len(texts) > MAX_STOP_STRINGS:
        raise _invalid_value("stop", f"holds {len(texts)} texts; at most {MAX_STOP_STRINGS} are allowed")
    if any(not 1 <= len(text.encode()) <= MAX_STOP_BYTES for text in texts):
        raise _invalid_value("stop", f"holds a text that is empty or longer than {MAX_STOP_BYTES} bytes")
    if None not in (request.max_tokens, request.max_completion_tokens) and (
        request.max_tokens != request.max_completion_tokens
    ):
        raise _invalid_value("max_tokens", "and 'max_completion_tokens' differ; they mean the same, give one")


def _invalid_value(param: str, problem: str) -> ApiError:
    return ApiError("invalid_value", f"'{param}' {problem}.", param=param)


def _api_error(invalid: ValidationError) -> ApiError:
    """The first problem as an error object: its kind, and where it is as `messages[0].role`."""
    first = invalid.errors(include_url=False, include_context=False)[0]
    kind, problem = first["type"], first["msg"]
    if kind == "json_invalid":
        return ApiError(
            "invalid_json", f"The request body is not valid JSON: {problem.removeprefix('Invalid JSON: ')}."
        )
    param = _path(first["loc"])
    if kind == "missing":
        return ApiError("missing_required_parameter", f"Missing required parameter: '{param}'.", param=param)
    wrong_type = kind.endswith("_type") or (kind == "literal_error" and not isinstance(first["input"], str))
    code = "invalid_type" if wrong_type else "invalid_value"
    return ApiError(code, f"'{param or 'the request body'}': {problem}.", param=param or None)


def _path(location: tuple[int | str, ...]) -> str:
    path = ""
    for step in location:
        if isinstance(step, int):
            path += f"[{step}]"
        elif not _UNION_TAG.fullmatch(step):
            path += f".{step}" if path else step
    return path
