"""POST /v1/completions: a text is continued. Sold as a chat job whose assistant has begun with that text (ADR 0016)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import Field, JsonValue, ValidationError, WithJsonSchema

from ryvion_node.knowledge.constants import MAX_EMBEDDED_QUERY_CHARS
from ryvion_node.market.interface import ChatOrder, Placement
from ryvion_node.proxy.completions import Completions
from ryvion_node.proxy.constants import MAX_CHOICES
from ryvion_node.proxy.errors import ApiError
from ryvion_node.proxy.requests import ChatRequest, chat_request
from ryvion_node.proxy.shapes import Strict
from ryvion_node.proxy.text_chunks import TextFrames, text_choice, text_logprobs
from ryvion_node.proxy.validation import api_error, invalid_value, refuse_not_honoured, unsupported
from ryvion_node.proxy.whole import WholeChoice, whole_json
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


_TEXTS: Final[dict[str, JsonValue]] = {
    "anyOf": [
        {"type": "string"},
        {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": MAX_CHOICES},
    ]
}


class TextRequest(Strict):
    """What this endpoint names differently; the rest is as in a ChatRequest."""

    prompt: Annotated[JsonValue, WithJsonSchema(_TEXTS)]
    """A text to continue, or several; each has `n` choices."""
    logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    """How many alternatives with each token."""


@dataclass(frozen=True, slots=True)
class TextAsked:
    """A text completion."""

    chats: tuple[ChatRequest, ...]
    """One for each text."""

    @property
    def _rules(self) -> ChatRequest:
        """What holds for all."""
        return self.chats[0]

    def question(self, order: ChatOrder) -> str:
        """The end of the text, which is what comes next is about."""
        return order.messages[-1].content[-MAX_EMBEDDED_QUERY_CHARS:]

    def frames(self, answer_id: str, placement: Placement, about: Sequence[dict[str, object]]) -> TextFrames:
        """A stream's events."""
        rules = self._rules
        return TextFrames(
            answer_id,
            int(time.time()),
            placement,
            choices=rules.choices,
            about=about,
            include_usage=rules.include_usage,
        )

    def whole(self, answer_id: str, choices: Sequence[WholeChoice]) -> dict[str, object]:
        """The answer at once."""
        shown = [self._choice(index, choice) for index, choice in enumerate(choices)]
        return whole_json(answer_id, "text_completion", choices, shown, each=self._rules.choices)

    def _choice(self, index: int, choice: WholeChoice) -> dict[str, object]:
        pieces = choice.pieces
        text = "".join(piece.content for piece in pieces)
        reasoning = "".join(piece.reasoning for piece in pieces)
        logprobs = text_logprobs([one for piece in pieces for one in piece.logprobs]) if self._rules.logprobs else None
        return text_choice(index, text, choice.outcome.finish_reason, logprobs, reasoning)

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
        if request.logprobs is not None:
            fields |= {"logprobs": True, "top_logprobs": request.logprobs}
        chats = tuple(chat_request(fields | {"messages": _turns(text)}) for text in _texts(request.prompt))
        answers = len(chats) * chats[0].choices
        if answers > MAX_CHOICES:
            problem = f"holds {len(chats)} texts for {answers} answers; at most {MAX_CHOICES} come with one request"
            raise invalid_value("prompt", problem)
        return TextAsked(chats)


def _turns(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": INSTRUCTION}, {"role": "assistant", "content": text}]


def _texts(given: JsonValue) -> list[str]:
    """The texts to continue; at most MAX_CHOICES."""
    texts = given if isinstance(given, list) else [given]
    if texts and all(isinstance(one, int | list) for one in texts) and isinstance(given, list):
        raise unsupported("prompt", "holds token ids; send text, executors have tokenizers of their own")
    if not texts or not all(isinstance(one, str) for one in texts):
        raise ApiError("invalid_type", "'prompt' must be a text, or a list of texts.", param="prompt")
    if not all(texts):
        raise invalid_value("prompt", "holds an empty text; there is nothing to continue")
    if len(texts) > MAX_CHOICES:
        raise invalid_value("prompt", f"holds {len(texts)} texts; at most {MAX_CHOICES} are allowed")
    return [text for text in texts if isinstance(text, str)]
