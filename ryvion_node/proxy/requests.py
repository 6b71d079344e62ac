"""What a chat completion request may say: validated strictly, and nothing that changes the result is dropped silently.

`parse_chat_request` reads the body. Unknown keys are accepted, null means the default, parameters in `IGNORED`
have no influence on the answer, and those in `NOT_HONOURED` are refused by name unless they hold a harmless value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import Field, ValidationError

from ryvion_node.preferences_object import PreferencesObject
from ryvion_node.proxy.constants import MAX_CHOICES, MAX_COMPLETION_TOKENS, MAX_STOP_BYTES
from ryvion_node.proxy.messages import Message
from ryvion_node.proxy.mistaken import CHAT_LIMITS, refuse_mistaken
from ryvion_node.proxy.shapes import Strict, StringOrList, as_tuple
from ryvion_node.proxy.tooling import ResponseFormat, ToolChoice, ToolDefinition
from ryvion_node.proxy.validation import api_error, invalid_value, refuse_not_honoured, unsupported
from ryvion_protocol.constants import MAX_LOGIT_BIAS, MAX_STOP_STRINGS, MAX_TOP_LOGPROBS

IGNORED: Final = frozenset(
    {"user", "safety_identifier", "metadata", "store", "service_tier", "verbosity", "prompt_cache_key"}
)
"""Accepted whatever they hold: they do not change the answer."""

NOT_HONOURED: Final[dict[str, tuple[object, ...]]] = {
    "audio": (),
    "chat_template_kwargs": ({},),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "grammar": ("",),
    "guided_choice": (),
    "guided_grammar": (),
    "guided_json": (),
    "guided_regex": (),
    "ignore_eos": (False,),
    "min_tokens": (0,),
    "modalities": (["text"],),
    "prediction": (),
    "reasoning": ({}, {"effort": "none"}, {"enabled": False}),
    "reasoning_effort": ("none",),
    "stop_token_ids": ([],),
    "structured_outputs": (),
    "thinking": ({"type": "disabled"},),
    "web_search_options": (),
}
"""Parameter -> the values that ask for nothing. Anything else would change the result: refused by name."""

Penalty = Annotated[float, Field(ge=-2, le=2)]


class StreamOptions(Strict):
    """How the stream looks."""

    include_usage: bool | None = None


class ChatRequest(Strict):
    """The body of POST /v1/chat/completions."""

    model: str
    messages: Annotated[list[Message], Field(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    """Choices, each a job with a receipt. With a seed, they have it and those that follow."""
    best_of: Annotated[int, Field(ge=1)] | None = None
    """As many as `n`: more would be paid for and thrown away, so they are refused."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, lt=2**32)] | None = None
    """0 and -1: all tokens."""
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Field(ge=0.01, le=10)] | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    """By token id."""
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=MAX_COMPLETION_TOKENS)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=MAX_COMPLETION_TOKENS)] | None = None
    stop: StringOrList | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None
    tools: list[ToolDefinition] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    jurisdiction: StringOrList | None = None
    ryvion: PreferencesObject | None = None
    knowledge_base: str | None = None
    """Id of the knowledge base whose passages the answer is grounded in."""

    @property
    def choices(self) -> int:
        """How many answers to give."""
        return self.n or 1

    @property
    def include_usage(self) -> bool:
        """Whether the stream ends with a usage chunk."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def stop_texts(self) -> tuple[str, ...]:
        """The stop texts, however they were written."""
        return as_tuple(self.stop)


def parse_chat_request(body: bytes) -> ChatRequest:
    """Read and check a body; raises ApiError with the path of the first thing that is wrong."""
    try:
        request = ChatRequest.model_validate_json(body)
    except ValidationError as exc:
        raise api_error(exc) from None
    return _checked(request)


def chat_request(fields: Mapping[str, object]) -> ChatRequest:
    """The same from values, for endpoints that translate into it."""
    try:
        request = ChatRequest.model_validate(fields)
    except ValidationError as exc:
        raise api_error(exc) from None
    return _checked(request)


def _checked(request: ChatRequest) -> ChatRequest:
    extra = request.model_extra or {}
    refuse_not_honoured(extra, NOT_HONOURED, "")
    refuse_mistaken(extra, CHAT_LIMITS)
    _check_limits(request)
    return request


def _check_limits(request: ChatRequest) -> None:
    if request.best_of not in (None, request.choices):
        raise unsupported("best_of", "must be as 'n', or left out: nobody here chooses among answers")
    texts = request.stop_texts
    if len(texts) > MAX_STOP_STRINGS:
        raise invalid_value("stop", f"holds {len(texts)} texts; at most {MAX_STOP_STRINGS} are allowed")
    if any(not 1 <= len(text.encode()) <= MAX_STOP_BYTES for text in texts):
        raise invalid_value("stop", f"holds a text that is empty or longer than {MAX_STOP_BYTES} bytes")
    if None not in (request.max_tokens, request.max_completion_tokens) and (
        request.max_tokens != request.max_completion_tokens
    ):
        raise invalid_value("max_tokens", "and 'max_completion_tokens' differ; they mean the same, give one")
    if request.top_logprobs and not request.logprobs:
        raise invalid_value("top_logprobs", "needs 'logprobs' to be true")
    if len(request.logit_bias or {}) > MAX_LOGIT_BIAS:
        raise invalid_value("logit_bias", f"names more than {MAX_LOGIT_BIAS} tokens")
