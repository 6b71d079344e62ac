"""Server-sent events of a streamed completion, cheap to build: everything but the text is encoded once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final

from ryvion_node.market.interface import Outcome, Piece, Placement
from ryvion_node.proxy.answers import outcome_json, taken_json, usage_json
from ryvion_node.proxy.errors import ApiError
from ryvion_node.proxy.parts import call_deltas, logprobs_json

DONE: Final = b"data: [DONE]\n\n"
KEEP_ALIVE: Final = b": keep-alive\n\n"
_ROLE: Final = {"role": "assistant", "content": ""}


class ChatFrames:
    """The chunks of one completion: same id, created, model and object on all of them, and whose choice each is.

    Text is escaped to ASCII: some clients split lines at U+2028 and its like, and no escape can be cut in two.
    """

    def __init__(
        self,
        completion_id: str,
        created_s: int,
        model: str,
        fingerprint: str,
        *,
        about: Sequence[dict[str, object]],
        include_usage: bool,
    ) -> None:
        """`about`: what `ryvion` says of each choice besides who ran it."""
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
        self._content_heads = [
            self._head + b',"choices":[{"index":%d,"delta":{"content":' % index for index in range(len(about))
        ]
        self._content_tail = b'},"logprobs":null,"finish_reason":null}]' + self._usage + b"}\n\n"
        self._about = about
        self._roles = 0
        """Choices whose role was told."""
        self._ended: dict[int, Outcome] = {}

    def begin(self, index: int, placement: Placement) -> bytes:
        """The role chunk: who answers.

        Roles are told in the order of the choices, since the official Python client cannot take in a choice before
        those in front of it. Who answers one whose role had to be told before is told when it begins.
        """
        roles = b"".join(self._delta(other, _ROLE, None) for other in range(self._roles, index))
        delta = _ROLE if index >= self._roles else {"content": ""}
        self._roles = max(self._roles, index + 1)
        return roles + self._choice(index, delta, None, taken_json(placement) | self._about[index])

    def piece(self, index: int, piece: Piece) -> bytes:
        """A piece of the answer: a chunk each for thoughts, text and parts of tool calls.

        The log-probabilities of its tokens stand with the first chunk.
        """
        if piece.content and not (piece.reasoning or piece.calls or piece.logprobs):
            return self._content_heads[index] + json.dumps(piece.content).encode() + self._content_tail
        deltas: list[dict[str, object]] = []
        if piece.reasoning:
            deltas.append({"reasoning_content": piece.reasoning})
        if piece.content:
            deltas.append({"content": piece.content})
        deltas += ({"tool_calls": [part]} for call in piece.calls for part in call_deltas(call))
        logprobs = logprobs_json(piece.logprobs) if piece.logprobs else None
        chunks = [
            self._delta(index, delta, None if number else logprobs) for number, delta in enumerate(deltas or [{}])
        ]
        return b"".join(chunks)

    def end(self, index: int, placement: Placement, outcome: Outcome) -> bytes:
        """The last chunk of a choice: why it ended, and the evidence."""
        self._ended[index] = outcome
        ryvion = outcome_json(placement, outcome) | self._about[index]
        return self._choice(index, {}, outcome.finish_reason, ryvion)

    def finish(self) -> bytes:
        """Usage when asked for, and the end."""
        usage = usage_chunk(self._head, self._ended, choices=len(self._about)) if self._include_usage else b""
        return usage + DONE

    def fail(self, error: ApiError) -> bytes:
        """No finish chunk, no [DONE]: no client takes it for an end."""
        return error_event(error)

    def _delta(self, index: int, delta: Mapping[str, object], logprobs: object) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": None}
        return b'%b,"choices":[%b]%b}\n\n' % (self._head, json.dumps(choice).encode(), self._usage)

    def _choice(self, index: int, delta: dict[str, str], reason: str | None, ryvion: dict[str, object]) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        return b'%b,"choices":[%b]%b,"ryvion":%b}\n\n' % (
            self._head,
            json.dumps(choice).encode(),
            self._usage,
            json.dumps(ryvion).encode(),
        )


def usage_chunk(head: bytes, ended: Mapping[int, Outcome], choices: int) -> bytes:
    """The one chunk without a choice; `choices` of each prompt have ended, as `ended` tells by their indices."""
    usage = usage_json([ended[index] for index in sorted(ended)], choices)
    return b'%b,"choices":[],"usage":%b}\n\n' % (head, json.dumps(usage).encode())


def error_event(error: ApiError) -> bytes:
    """An error inside a stream, in the one form that every client raises on; nothing follows it."""
    return b"data: " + error.body() + b"\n\n"
