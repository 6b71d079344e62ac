"""POST /v1/completions: a text is continued. Sold as a chat job whose assistant has begun with that text (ADR 0016)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import Field, JsonValue, ValidationError, WithJsonSchema

from ryvion_node.market.interface import Outcome, Piece, Placement
from ryvion_node.proxy.answers import fingerprint_of, outcome_json, taken_json, usage_json
from ryvion_node.proxy.completions import Completions
from ryvion_node.proxy.errors import ApiError
from ryvion_node.proxy.requests import ChatRequest, chat_request
from ryvion_node.proxy.shapes import Strict
from ryvion_node.proxy.text_chunks import TextFrames, text_choice, text_logprobs
from ryvion_node.proxy.validation import api_error, invalid_value, refuse_not_honoured, unsupported
from ryvion_protocol.constants import MAX_TOP_LOGPROBS

INSTRUCTION: Final = "Continue the text. Write only what comes next."
"""The user turn before the text. Without one some templates refuse, and some models answer the text instead."""
DEFAULT_MAX_TOKENS: Final = 16
"""What the OpenAI API takes here."""

NOT_HONOURED: Final[dict[str, tuple[object, ...]]] = {
    "echo": (False,),
    "messages": (),
    "parallel_tool_calls": (),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (),
}
"""As in `requests.NOT_HONOURED`, which holds here too."""


_ONE_TEXT: Final[dict[str, JsonValue]] = {
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 1}]
}


class TextRequest(Strict):
    """What this endpoint names differently; the rest is as in a ChatRequest."""

    prompt: Annotated[JsonValue, WithJsonSchema(_ONE_TEXT)]
    logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    """How many alternatives with each token."""


@dataclass(frozen=True, slots=True)
class TextAsked:
    """A text completion."""

    chat: ChatRequest

    def frames(self, answer_id: str, placement: Placement) -> TextFrames:
        """A stream's events."""
        return TextFrames(answer_id, int(time.time()), placement, include_usage=self.chat.include_usage)

    def whole(
        self, answer_id: str, placement: Placement, pieces: Sequence[Piece], outcome: Outcome
    ) -> dict[str, object]:
        """The answer at once."""
        text = "".join(piece.content for piece in pieces)
        reasoning = "".join(piece.reasoning for piece in pieces)
        logprobs = text_logprobs([one for piece in pieces for one in piece.logprobs]) if self.chat.logprobs else None
        return {
            "id": answer_id,
            "object": "text_completion",
            "created": int(time.time()),
            "model": placement.model,
            "system_fingerprint": fingerprint_of(placement),
            "choices": [text_choice(text, outcome.finish_reason, logprobs, reasoning)],
            "usage": usage_json(outcome),
            "ryvion": taken_json(placement) | outcome_json(placement, outcome),
        }

    def told(self, error: ApiError) -> ApiError:
        """A turn is the prompt here."""
        if error.param is None or not error.param.startswith("messages"):
            return error
        if error.code == "unsupported_parameter":
            problem = "cannot be continued by any executor of this model; send it to /v1/chat/completions as a message"
            return unsupported("prompt", problem)
        return error.at("prompt")


class TextCompletions(Completions):
    """The ASGI endpoint."""

    id_prefix = "cmpl-"

    def read(self, body: bytes) -> TextAsked:
        """The request."""
        try:
            request = TextRequest.model_validate_json(body)
        except ValidationError as exc:
            raise api_error(exc) from None
        extra = request.model_extra or {}
        refuse_not_honoured(extra, NOT_HONOURED, "")
        fields = {name: value for name, value in extra.items() if name not in NOT_HONOURED}
        if fields.get("max_tokens") is None and fields.get("max_completion_tokens") is None:
            fields["max_tokens"] = DEFAULT_MAX_TOKENS
        fields["messages"] = [
            {"role": "user", "content": INSTRUCTION},
            {"role": "assistant", "content": _prompt(request.prompt)},
        ]
        if request.logprobs is not None:
            fields |= {"logprobs": True, "top_logprobs": request.logprobs}
        return TextAsked(chat_request(fields))


def _prompt(given: JsonValue) -> str:
    """The one text to continue."""
    if isinstance(given, list):
        if len(given) > 1 and all(isinstance(one, str) for one in given):
            raise unsupported("prompt", f"holds {len(given)} texts; send a request for each")
        if given and all(isinstance(one, int | list) for one in given):
            raise unsupported("prompt", "holds token ids; send text, executors have tokenizers of their own")
        if len(given) == 1:
            given = given[0]
    if not isinstance(given, str):
        raise ApiError("invalid_type", "'prompt': must be a text.", param="prompt")
    if not given:
        raise invalid_value("prompt", "is empty; there is nothing to continue")
    return given
