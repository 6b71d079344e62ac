"""POST /v1/responses: the OpenAI API's newer form of a chat, without a memory of earlier answers (ADR 0016)."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ryvion_node.knowledge.grounding import question_of
from ryvion_node.market.interface import ChatOrder, Outcome, Piece, Placement
from ryvion_node.proxy.answers import outcome_json, taken_json
from ryvion_node.proxy.completions import Completions
from ryvion_node.proxy.errors import ApiError
from ryvion_node.proxy.orders import DEFAULT_TEMPERATURE
from ryvion_node.proxy.requests import ChatRequest
from ryvion_node.proxy.responses_events import Event, ResponseBuilder
from ryvion_node.proxy.responses_requests import FunctionTool, Reading, parse_responses_request
from ryvion_node.proxy.shapes import Strict
from ryvion_node.proxy.whole import WholeChoice


@dataclass(frozen=True, slots=True)
class ResponseAsked:
    """A response."""

    reading: Reading

    @property
    def chats(self) -> tuple[ChatRequest]:
        """The one; a response is one answer."""
        return (self.reading.chat,)

    def question(self, order: ChatOrder) -> str:
        """What the user said last."""
        return question_of(order.messages)

    def frames(self, answer_id: str, placement: Placement, about: Sequence[dict[str, object]]) -> ResponseFrames:
        """A stream's events."""
        return ResponseFrames(self._builder(answer_id, placement), placement, about[0])

    def whole(self, answer_id: str, choices: Sequence[WholeChoice]) -> dict[str, object]:
        """The response that a stream would have ended with, and the decision."""
        (choice,) = choices
        builder = self._builder(answer_id, choice.placement)
        for piece in choice.pieces:
            for _ in builder.piece(piece):
                pass
        *_, last = builder.end(choice.outcome, _usage(choice.outcome), choice.ryvion)
        response = last["response"]
        assert isinstance(response, dict)
        return response

    def told(self, error: ApiError) -> ApiError:
        """By the names of this endpoint."""
        return self.reading.told(error)

    def _builder(self, answer_id: str, placement: Placement) -> ResponseBuilder:
        namespaced = {
            one.name: (one.namespace.name or "", one.tool.name or "")
            for one in self.reading.tools
            if one.namespace is not None
        }
        wants_summary = self.reading.request.wants_summary
        return ResponseBuilder(self._head(answer_id, placement), namespaced, summary=wants_summary)

    def _head(self, answer_id: str, placement: Placement) -> dict[str, object]:
        request, chat = self.reading.request, self.reading.chat
        metadata = request.metadata
        wanted = request.text.format if request.text is not None else None
        choice = request.tool_choice or "auto"
        return {
            "id": answer_id,
            "object": "response",
            "created_at": int(time.time()),
            "background": False,
            "error": None,
            "incomplete_details": None,
            "instructions": request.instructions,
            "max_output_tokens": chat.max_completion_tokens,
            "max_tool_calls": None,
            "metadata": metadata if isinstance(metadata, dict) else {},
            "model": placement.model,
            "parallel_tool_calls": request.parallel_tool_calls is not False,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": request.reasoning.summary if request.reasoning else None},
            "store": False,
            "temperature": DEFAULT_TEMPERATURE if chat.temperature is None else chat.temperature,
            "text": {"format": {"type": "text"} if wanted is None else _plain(wanted)},
            "tool_choice": choice if isinstance(choice, str) else _plain(choice),
            "tools": [_tool(tool) for tool in request.tools or []],
            "top_logprobs": request.top_logprobs or 0,
            "top_p": 1.0 if chat.top_p is None else chat.top_p,
            "truncation": "disabled",
            "usage": None,
        }


class ResponseFrames:
    """The events of one response, numbered, named as the OpenAI API names them. They end without a [DONE]."""

    def __init__(self, builder: ResponseBuilder, placement: Placement, about: dict[str, object]) -> None:
        self._builder = builder
        self._about = about
        self._placement = placement
        self._number = 0
        self._last: Sequence[Event] = ()

    def begin(self, index: int, placement: Placement) -> bytes:
        """The response, empty: who answers."""
        return self._encoded(self._builder.begin(taken_json(placement) | self._about))

    def piece(self, index: int, piece: Piece) -> bytes:
        """A piece of the answer."""
        return self._encoded(self._builder.piece(piece))

    def end(self, index: int, placement: Placement, outcome: Outcome) -> bytes:
        """What closes the items."""
        ryvion = outcome_json(placement, outcome) | self._about
        *closing, last = self._builder.end(outcome, _usage(outcome), ryvion)
        self._last = [last]
        return self._encoded(closing)

    def finish(self) -> bytes:
        """The whole response with the evidence."""
        return self._encoded(self._last)

    def fail(self, error: ApiError) -> bytes:
        """An error as the last thing; a response must have begun to fail."""
        begun = b"" if self._number else self.begin(0, self._placement)
        return begun + self._encoded(self._builder.fail(error))

    def _encoded(self, events: Iterable[Event]) -> bytes:
        return b"".join(map(self._event, events))

    def _event(self, event: Event) -> bytes:
        data = json.dumps(event | {"sequence_number": self._number})
        self._number += 1
        return f"event: {event['type']}\ndata: {data}\n\n".encode()


class Responses(Completions):
    """The ASGI endpoint."""

    id_prefix = "resp_"

    def read(self, body: bytes) -> ResponseAsked:
        """The request."""
        return ResponseAsked(parse_responses_request(body))


def _usage(outcome: Outcome) -> dict[str, object]:
    """Token counts as billed. Nothing is charged for tokens that an executor keeps."""
    return {
        "input_tokens": outcome.prompt_tokens,
        "input_tokens_details": {"cached_tokens": outcome.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": outcome.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": outcome.reasoning_tokens},
        "total_tokens": outcome.prompt_tokens + outcome.completion_tokens,
    }


def _tool(tool: FunctionTool) -> dict[str, object]:
    """As it came; clients want to find some keys in any function."""
    always: dict[str, object] = {"parameters": None, "strict": None} if tool.type == "function" else {}
    return always | _plain(tool)


def _plain(value: Strict) -> dict[str, object]:
    """As it came, without the keys that the client left out."""
    return value.model_dump(by_alias=True, exclude_none=True)
