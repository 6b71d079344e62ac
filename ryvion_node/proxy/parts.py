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
    return {"content": [token_logprob_json(one) for one in logprobs], "refusal": None}


def token_of(said: Alternative) -> str:
    """Its text; a part of a character is shown as U+FFFD."""
    return said.piece.decode(errors="replace")


def logprob_of(said: Alternative) -> float:
    """In nats."""
    return IMPOSSIBLE if said.minus_micronats == _MOST_MINUS_MICRONATS else -said.minus_micronats / 1_000_000


def token_json(said: Alternative) -> dict[str, object]:
    """With its exact `bytes`."""
    return {"token": token_of(said), "logprob": logprob_of(said), "bytes": list(said.piece)}


def token_logprob_json(one: TokenLogprob) -> dict[str, object]:
    """A chosen token and those in its place."""
    return token_json(one.chosen) | {"top_logprobs": [token_json(other) for other in one.top]}
