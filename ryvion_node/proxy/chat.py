"""POST /v1/chat/completions: the dialect that all others are translated into."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from ryvion_node.knowledge.grounding import question_of
from ryvion_node.market.interface import ChatOrder, Piece, Placement
from ryvion_node.proxy.answers import COMPLETION_PREFIX, fingerprint_of
from ryvion_node.proxy.chunks import ChatFrames
from ryvion_node.proxy.completions import Completions
from ryvion_node.proxy.errors import ApiError
from ryvion_node.proxy.parts import call_json, logprobs_json
from ryvion_node.proxy.requests import ChatRequest, parse_chat_request
from ryvion_node.proxy.whole import WholeChoice, whole_json
from ryvion_protocol.messages import Delta
from ryvion_protocol.transcript import ResultBuilder


@dataclass(frozen=True, slots=True)
class ChatAsked:
    """A chat completion."""

    chat: ChatRequest

    @property
    def chats(self) -> tuple[ChatRequest]:
        """The one."""
        return (self.chat,)

    def question(self, order: ChatOrder) -> str:
        """What the user said last."""
        return question_of(order.messages)

    def frames(self, answer_id: str, placement: Placement, about: Sequence[dict[str, object]]) -> ChatFrames:
        """A stream's events."""
        return ChatFrames(
            answer_id,
            int(time.time()),
            placement.model,
            fingerprint_of(placement),
            about=about,
            include_usage=self.chat.include_usage,
        )

    def whole(self, answer_id: str, choices: Sequence[WholeChoice]) -> dict[str, object]:
        """The answer at once."""
        shown = [self._choice(index, choice) for index, choice in enumerate(choices)]
        return whole_json(answer_id, "chat.completion", choices, shown, each=self.chat.choices)

    def _choice(self, index: int, choice: WholeChoice) -> dict[str, object]:
        logprobs = [one for piece in choice.pieces for one in piece.logprobs]
        return {
            "index": index,
            "message": _message(choice.pieces),
            "logprobs": logprobs_json(logprobs) if self.chat.logprobs else None,
            "finish_reason": choice.outcome.finish_reason,
        }

    def told(self, error: ApiError) -> ApiError:
        """As it is."""
        return error


class ChatCompletions(Completions):
    """The ASGI endpoint."""

    id_prefix = COMPLETION_PREFIX

    def read(self, body: bytes) -> ChatAsked:
        """The request."""
        return ChatAsked(parse_chat_request(body))


def _message(pieces: Sequence[Piece]) -> dict[str, object]:
    result = ResultBuilder()
    for piece in pieces:
        result.add(Delta(0, 0, piece.content, (), piece.reasoning, piece.calls))
    message: dict[str, object] = {"role": "assistant", "content": result.content, "refusal": None}
    if result.reasoning:
        message["reasoning_content"] = result.reasoning
    if result.calls:
        message["content"] = result.content or None
        message["tool_calls"] = [call_json(call) for call in result.calls]
    return message
