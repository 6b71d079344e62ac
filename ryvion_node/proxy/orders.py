"""From a request to the order that the market gets: pure, and strict about where a key may buy."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from ryvion_node.jurisdictions import JurisdictionUnknown, parse_jurisdiction
from ryvion_node.market.interface import ChatOrder
from ryvion_node.preferences import ANY_OFFER, Preferences
from ryvion_node.preferences_object import PreferencesObject
from ryvion_node.proxy.constants import MAX_PROMPT_BYTES
from ryvion_node.proxy.errors import ApiError
from ryvion_node.proxy.messages import chat_message, check_tool_turns
from ryvion_node.proxy.requests import ChatRequest
from ryvion_node.proxy.shapes import as_tuple
from ryvion_node.proxy.tooling import output_format, tool_use
from ryvion_node.proxy.validation import invalid_value
from ryvion_protocol.constants import MAX_JURISDICTIONS, MAX_MESSAGES_PER_REQUEST
from ryvion_protocol.messages import ChatMessage, LogitBias, OutputFormat, ToolUse
from ryvion_protocol.zigzag import zigzag

DEFAULT_TEMPERATURE: Final = 0.7
SMALLEST_TOP_P: Final = 1e-6
"""The wire counts in millionths and has no 0, which means the same: only the likeliest token."""

_MODEL_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,95}")
_TOKEN_ID: Final = re.compile(r"0|[1-9][0-9]{0,9}")


def order_of(
    request: ChatRequest,
    key_jurisdictions: tuple[str, ...],
    default_max_completion_tokens: int | None = None,
    key_preferences: Preferences = ANY_OFFER,
) -> ChatOrder:
    """The order for `request`; `key_jurisdictions` are where the caller's key may buy (empty: anywhere)."""
    check_model_name(request.model)
    preferences = preferences_of(request.ryvion, key_preferences)
    messages = tuple(chat_message(turn, f"messages[{index}]") for index, turn in enumerate(request.messages))
    check_tool_turns(messages)
    tools = tool_use(request.tools, request.tool_choice, request.parallel_tool_calls)
    output = output_format(request.response_format)
    _check_prompt_size(messages, tools, output)
    return ChatOrder(
        model=request.model,
        messages=messages,
        max_completion_tokens=request.max_completion_tokens or request.max_tokens or default_max_completion_tokens,
        temperature=DEFAULT_TEMPERATURE if request.temperature is None else request.temperature,
        top_p=1.0 if request.top_p is None else max(request.top_p, SMALLEST_TOP_P),
        top_k=max(request.top_k or 0, 0),
        min_p=request.min_p or 0.0,
        presence_penalty=request.presence_penalty or 0.0,
        frequency_penalty=request.frequency_penalty or 0.0,
        repetition_penalty=1.0 if request.repetition_penalty is None else request.repetition_penalty,
        logit_bias=_logit_bias(request.logit_bias or {}),
        seed=None if request.seed is None else request.seed % 2**64,
        stop=request.stop_texts,
        tools=tools,
        output=output,
        logprobs=(request.top_logprobs or 0) if request.logprobs else None,
        jurisdictions=jurisdictions_of(request.jurisdiction, key_jurisdictions),
        max_price=preferences.max_price,
        preferences=preferences,
    )


def orders_of_choices(orders: Sequence[ChatOrder], choices: int) -> tuple[ChatOrder, ...]:
    """`choices` orders for each of `orders`: each with a seed of its own, all together within the price of one."""
    jobs = len(orders) * choices
    return tuple(
        replace(
            order,
            seed=None if order.seed is None else (order.seed + choice) % 2**64,
            max_price=None if order.max_price is None else order.max_price // jobs,
        )
        for order in orders
        for choice in range(choices)
    )


def check_model_name(name: str) -> None:
    """Raise ApiError 404 for a name that no offer can have."""
    if not _MODEL_NAME.fullmatch(name):
        raise ApiError("model_not_found", "The model does not exist: no node can offer such a name.", param="model")


def jurisdictions_of(asked: str | list[str] | None, allowed: tuple[str, ...]) -> tuple[str, ...]:
    """The countries to buy in: those asked for, which must lie within the key's own; else the key's."""
    if asked == []:
        problem = "is an empty list, which could mean anywhere or nowhere; name a place, or leave it out"
        raise invalid_value("jurisdiction", problem)
    wanted: set[str] = set()
    for text in as_tuple(asked):
        try:
            wanted.update(parse_jurisdiction(text))
        except JurisdictionUnknown as exc:
            raise invalid_value("jurisdiction", f"cannot be read: {exc}") from None
    if len(wanted) > MAX_JURISDICTIONS:
        problem = f"'jurisdiction' names {len(wanted)} countries; at most {MAX_JURISDICTIONS} are allowed."
        raise ApiError("invalid_value", problem, param="jurisdiction")
    outside = sorted(wanted.difference(allowed)) if allowed else []
    if outside:
        problem = f"This key buys in {', '.join(allowed)} only; the request asks for {', '.join(outside)} as well."
        raise ApiError("jurisdiction_not_allowed", problem, param="jurisdiction")
    return tuple(sorted(wanted)) or allowed


def preferences_of(given: PreferencesObject | None, of_key: Preferences) -> Preferences:
    """What the order asks for: the request's preferences, within the key's own."""
    return (ANY_OFFER if given is None else given.values()).within(of_key)


def _logit_bias(given: dict[str, float]) -> tuple[LogitBias, ...]:
    """In rising order of tokens; those that change nothing are left out."""
    bias: dict[int, int] = {}
    for token, value in given.items():
        if not _TOKEN_ID.fullmatch(token) or int(token) >= 2**32:
            raise invalid_value("logit_bias", "has a key that is no token id")
        bias[int(token)] = round(value * 1_000_000)
    return tuple(LogitBias(token, zigzag(bias[token])) for token in sorted(bias) if bias[token])


def _check_prompt_size(messages: tuple[ChatMessage, ...], tools: ToolUse, output: OutputFormat) -> None:
    if len(messages) > MAX_MESSAGES_PER_REQUEST:
        problem = f"The conversation has {len(messages)} messages; a job carries at most {MAX_MESSAGES_PER_REQUEST}."
        raise ApiError("context_length_exceeded", problem, param="messages")
    texts = [message.content for message in messages]
    for call in (call for message in messages for call in message.tool_calls):
        texts += (call.id, call.name, call.arguments)
    for tool in tools.tools:
        texts += (tool.name, tool.description, tool.parameters)
    size = sum(len(text.encode()) for text in (*texts, output.grammar))
    if size > MAX_PROMPT_BYTES:
        problem = f"Messages, tools and schema hold {size} bytes of text; a job carries at most {MAX_PROMPT_BYTES}."
        raise ApiError("context_length_exceeded", problem, param="messages")
