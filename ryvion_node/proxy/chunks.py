"""Server-sent events of a streamed completion, cheap to build: everything but the text is encoded once."""

from __future__ import annotations

import json
from typing import Final

from ryvion_node.market.interface import Outcome, Piece, Placement
from ryvion_node.proxy.answers import outcome_json, taken_json, usage_json
from ryvion_node.proxy.errors import ApiError
from ryvion_node.proxy.parts import call_deltas, logprobs_json

DONE: Final = b"data: [DONE]\n\n"
KEEP_ALIVE: Final = b": keep-alive\n\n"


class ChatFrames:
    """The chunks of one completion: same id, created, model and object on all of them.

    Text is escaped to ASCII: some clients split lines at U+2028 and its like, and no escape can be cut in two.
    """

    def __init__(
        self, completion_id: str, created_s: int, model: str, fingerprint: str, *, include_usage: bool
    ) -> None:
        head = {
            "id": completion_id,
            "object": "chat.completion.chunk",
            "created": created_s,
            "model": model,
            "system_fingerprint": fingerprint,
        }
        self._head = b"data: " + json.dumps(head)[:-1].encode()
        self._include_usage = include_usage
        self._usage = b',"usage":null' if include_usage else b""
        self._content_head = self._head + b',"choices":[{"index":0,"delta":{"content":'
        self._content_tail = b'},"logprobs":null,"finish_reason":null}]' + self._usage + b"}\n\n"

    def begin(self, placement: Placement) -> bytes:
        """The role chunk: who answers."""
        return self._choice({"role": "assistant", "content": ""}, None, taken_json(placement))

    def piece(self, piece: Piece) -> bytes:
        """A piece of the answer: a chunk each for thoughts, text and parts of tool calls.

        The log-probabilities of its tokens stand with the first chunk.
        """
        if piece.content and not (piece.reasoning or piece.calls or piece.logprobs):
            return self._content_head + json.dumps(piece.content).encode() + self._content_tail
        deltas: list[dict[str, object]] = []
        if piece.reasoning:
            deltas.append({"reasoning_content": piece.reasoning})
        if piece.content:
            deltas.append({"content": piece.content})
        deltas += ({"tool_calls": [part]} for call in piece.calls for part in call_deltas(call))
        logprobs = logprobs_json(piece.logprobs) if piece.logprobs else None
        chunks = [self._delta(delta, None if number else logprobs) for number, delta in enumerate(deltas or [{}])]
        return b"".join(chunks)

    def end(self, placement: Placement, outcome: Outcome) -> tuple[bytes, bytes]:
        """The last chunk with a choice: why it ended, and the evidence; then usage when asked for, and the end."""
        finish = self._choice({}, outcome.finish_reason, outcome_json(placement, outcome))
        return finish, (usage_chunk(self._head, outcome) if self._include_usage else b"") + DONE

    def fail(self, error: ApiError) -> bytes:
        """No finish chunk, no [DONE]: no client takes it for an end."""
        return error_event(error)

    def _delta(self, delta: dict[str, object], logprobs: object) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": None}
        return b'%b,"choices":[%b]%b}\n\n' % (self._head, json.dumps(choice).encode(), self._usage)

    def _choice(self, delta: dict[str, str], reason: str | None, ryvion: dict[str, object]) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return b'%b,"choices":[%b]%b,"ryvion":%b}\n\n' % (
            self._head,
            json.dumps(choice).encode(),
            self._usage,
            json.dumps(ryvion).encode(),
        )


def usage_chunk(head: bytes, outcome: Outcome) -> bytes:
    """The one chunk without a choice."""
    return b'%b,"choices":[],"usage":%b}\n\n' % (head, json.dumps(usage_json(outcome)).encode())


def error_event(error: ApiError) -> bytes:
    """An error inside a stream, in the one form that every client raises on; nothing follows it."""
    return b"data: " + error.body() + b"\n\n"
