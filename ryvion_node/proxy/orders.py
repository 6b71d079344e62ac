"""From a request to the order that the market gets: pure, and strict about where a key may buy."""

from __future__ import annotations

import re
from typing import Final

from ryvion_node.jurisdictions import JurisdictionUnknown, parse_jurisdiction
from ryvion_node.market.interface import ChatOrder
from ryvion_node.proxy.constants import MAX_PROMPT_BYTES
from ryvion_node.proxy.errors import ApiError
from ryvion_node.proxy.requests import ChatRequest, Message, jurisdiction_texts, text_of
from ryvion_protocol.constants import MAX_JURISDICTIONS, MAX_MESSAGES_PER_REQUEST
from ryvion_protocol.messages import ChatMessage

DEFAULT_TEMPERATURE: Final = 0.7
SMALLEST_TOP_P: Final = 1e-6
"""The wire counts in millionths and has no 0, which means the same: only the likeliest token."""

_MODEL_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,95}")
_ROLE_ON_THE_WIRE: Final = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


def order_of(
    request: ChatRequest, key_jurisdictions: tuple[str, ...], default_max_completion_tokens: int | None = None
) -> ChatOrder:
    """The order for `request`; `key_jurisdictions` are where the caller's key may buy (empty: anywhere)."""
    check_model_name(request.model)
    messages = tuple(_chat_message(message) for message in request.messages)
    _check_prompt_size(messages)
    return ChatOrder(
        model=request.model,
        messages=messages,
        max_completion_tokens=request.max_completion_tokens or request.max_tokens or default_max_completion_tokens,
        temperature=DEFAULT_TEMPERATURE if request.temperature is None else request.temperature,
        top_p=1.0 if request.top_p is None else max(request.top_p, SMALLEST_TOP_P),
        seed=None if request.seed is None else request.seed % 2**64,
        stop=request.stop_texts,
        jurisdictions=jurisdictions_of(jurisdiction_texts(request), key_jurisdictions),
    )


def check_model_name(name: str) -> None:
    """Raise ApiError 404 for a name that no offer can have."""
    if not _MODEL_NAME.fullmatch(name):
        raise ApiError("model_not_found", "The model does not exist: no node can offer such a name.", param="model")


def jurisdictions_of(asked: tuple[str, ...], allowed: tuple[str, ...]) -> tuple[str, ...]:
    """The countries to buy in: those asked for, which must lie within the key's own; else the key's."""
    wanted: set[str] = set()
    for text in asked:
        try:
            wanted.update(parse_jurisdiction(text))
        except JurisdictionUnknown as exc:
            raise ApiError("invalid_value", f"'jurisdiction': {exc}.", param="jurisdiction") from None
    if len(wanted) > MAX_JURISDICTIONS:
        problem = f"'jurisdiction' names {len(wanted)} countries; at most {MAX_JURISDICTIONS} are allowed."
        raise ApiError("invalid_value", problem, param="jurisdiction")
    outside = sorted(wanted.difference(allowed)) if allowed else []
    if outside:
        problem = f"This key buys in {', '.join(allowed)} only; the request asks for {', '.join(outside)} as well."
        raise ApiError("jurisdiction_not_allowed", problem, param="jurisdiction")
    return tuple(sorted(wanted)) or allowed


def _chat_message(message: Message) -> ChatMessage:
    return ChatMessage(role=_ROLE_ON_THE_WIRE[message.role], content=text_of(message), name=message.name or "")


def _check_prompt_size(messages: tuple[ChatMessage, ...]) -> None:
    if len(messages) > MAX_MESSAGES_PER_REQUEST:
        problem = f"The conversation has {len(messages)} messages; a job carries at most {MAX_MESSAGES_PER_REQUEST}."
        raise ApiError("context_length_exceeded", problem, param="messages")
    size = sum(len(message.content.encode()) for message in messages)
    if size > MAX_PROMPT_BYTES:
        problem = f"The messages hold {size} bytes of text; a job carries at most {MAX_PROMPT_BYTES}."
        raise ApiError("context_length_exceeded", problem, param="messages")
