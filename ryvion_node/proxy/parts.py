"""Tool calls and log-probabilities in the shape that OpenAI's clients read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from ryvion_protocol.messages import Alternative, CallPiece, TokenLogprob, ToolCall

IMPOSSIBLE: Final = -9999.0
"""What OpenAI says of a token that could not come."""
_MOST_MINUS_MICRONATS: Final = 2**32 - 1


def call_deltas(piece: CallPiece) -> Iterator[dict[str, object]]:
    """A piece of a call as stream deltas: the first of a call holds all but its arguments, which follow."""
    if piece.id:
        function = {"name": piece.name, "arguments": ""}
        yield {"index": piece.index, "id": piece.id, "type": "function", "function": function}
    if piece.arguments:
        yield {"index": piece.index, "function": {"arguments": piece.arguments}}


def call_json(call: ToolCall) -> dict[str, object]:
    """A whole call, as it stands in a message."""
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def logprobs_json(logprobs: Sequence[TokenLogprob]) -> dict[str, object]:
    """A choice's `logprobs`."""
    content = [_token(one.chosen) | {"top_logprobs": [_token(other) for other in one.top]} for one in logprobs]
    return {"content": content, "refusal": None}


def _token(said: Alternative) -> dict[str, object]:
    """`bytes` is exact; `token` shows a part of a character as U+FFFD."""
    impossible = said.minus_micronats == _MOST_MINUS_MICRONATS
    return {
        "token": said.piece.decode(errors="replace"),
        "logprob": IMPOSSIBLE if impossible else -said.minus_micronats / 1_000_000,
        "bytes": list(said.piece),
    }
