"""A completion that is sent as one."""

from __future__ import annotations

from ryvion_node.market.interface import Outcome, Piece, Placement
from ryvion_node.proxy.answers import fingerprint_of, outcome_json, taken_json, usage_json
from ryvion_node.proxy.parts import call_json, logprobs_json
from ryvion_protocol.messages import Delta, TokenLogprob
from ryvion_protocol.transcript import ResultBuilder


class WholeAnswer:
    """Collects the pieces of an answer."""

    def __init__(self, completion_id: str, placement: Placement) -> None:
        self._completion_id = completion_id
        self.placement = placement
        self.begun = False
        """Has any part of it come?"""
        self._result = ResultBuilder()
        self._logprobs: list[TokenLogprob] = []

    async def taken(self, placement: Placement) -> None:
        """Note who answers."""
        self.placement = placement

    async def piece(self, piece: Piece) -> None:
        """Take in a piece."""
        self.begun = True
        self._result.add(Delta(0, 0, piece.content, (), piece.reasoning, piece.calls))
        self._logprobs += piece.logprobs

    def to_json(self, created_s: int, outcome: Outcome, *, with_logprobs: bool) -> dict[str, object]:
        """The whole chat completion."""
        placement = self.placement
        choice = {
            "index": 0,
            "message": self._message(),
            "logprobs": logprobs_json(self._logprobs) if with_logprobs else None,
            "finish_reason": outcome.finish_reason,
        }
        return {
            "id": self._completion_id,
            "object": "chat.completion",
            "created": created_s,
            "model": placement.model,
            "system_fingerprint": fingerprint_of(placement),
            "choices": [choice],
            "usage": usage_json(outcome),
            "ryvion": taken_json(placement) | outcome_json(placement, outcome),
        }

    def _message(self) -> dict[str, object]:
        text, thoughts, calls = self._result.content, self._result.reasoning, self._result.calls
        message: dict[str, object] = {"role": "assistant", "content": text, "refusal": None}
        if thoughts:
            message["reasoning_content"] = thoughts
        if calls:
            message["content"] = text or None
            message["tool_calls"] = [call_json(call) for call in calls]
        return message
