"""Choices and server-sent events of a text completion."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from ryvion_node.market.interface import Outcome, Piece, Placement
from ryvion_node.proxy.answers import fingerprint_of, outcome_json, taken_json
from ryvion_node.proxy.chunks import DONE, error_event, usage_chunk
from ryvion_node.proxy.errors import ApiError
from ryvion_node.proxy.parts import logprob_of, token_of
from ryvion_protocol.messages import TokenLogprob


class TextFrames:
    """The chunks of one text completion: same id, created, model and object on all of them, and whose choice each is."""

    def __init__(
        self,
        answer_id: str,
        created_s: int,
        placement: Placement,
        *,
        choices: int,
        about: Sequence[dict[str, object]],
        include_usage: bool,
    ) -> None:
        """`choices` of each prompt; `about`: what `ryvion` says of each of all choices besides who ran it."""
        head = {
            "id": answer_id,
            "object": "text_completion",
            "created": created_s,
            "model": placement.model,
            "system_fingerprint": fingerprint_of(placement),
        }
        self._head = b"data: " + json.dumps(head)[:-1].encode()
        self._include_usage = include_usage
        self._usage = b',"usage":null' if include_usage else b""
        self._choices = choices
        self._about = about
        self._characters: Counter[int] = Counter()
        """Told so far, by choice."""
        self._ended: dict[int, Outcome] = {}

    def begin(self, index: int, placement: Placement) -> bytes:
        """An empty text: who answers."""
        return self._chunk(text_choice(index, "", None), taken_json(placement) | self._about[index])

    def piece(self, index: int, piece: Piece) -> bytes:
        """A piece of a choice."""
        logprobs = text_logprobs(piece.logprobs, self._characters[index]) if piece.logprobs else None
        self._characters[index] += len(piece.content)
        return self._chunk(text_choice(index, piece.content, None, logprobs, piece.reasoning))

    def end(self, index: int, placement: Placement, outcome: Outcome) -> bytes:
        """Why it ended, and the evidence."""
        self._ended[index] = outcome
        ryvion = outcome_json(placement, outcome) | self._about[index]
        return self._chunk(text_choice(index, "", outcome.finish_reason), ryvion)

    def finish(self) -> bytes:
        """Usage when asked for, and the end."""
        return (usage_chunk(self._head, self._ended, self._choices) if self._include_usage else b"") + DONE

    def fail(self, error: ApiError) -> bytes:
        """No finish chunk, no [DONE]: no client takes it for an end."""
        return error_event(error)

    def _chunk(self, choice: dict[str, object], ryvion: dict[str, object] | None = None) -> bytes:
        tail = b"" if ryvion is None else b',"ryvion":' + json.dumps(ryvion).encode()
        return b'%b,"choices":[%b]%b%b}\n\n' % (self._head, json.dumps(choice).encode(), self._usage, tail)


def text_choice(
    index: int, text: str, reason: str | None, logprobs: dict[str, object] | None = None, reasoning: str = ""
) -> dict[str, object]:
    """A choice of an answer, or of a chunk, which has one."""
    choice: dict[str, object] = {"text": text, "index": index, "logprobs": logprobs, "finish_reason": reason}
    return choice | {"reasoning_content": reasoning} if reasoning else choice


def text_logprobs(logprobs: Sequence[TokenLogprob], begin: int = 0) -> dict[str, object]:
    """Log-probabilities in this API's older form; `begin` is the first token's place, in characters of the answer."""
    tokens = [token_of(one.chosen) for one in logprobs]
    offsets: list[int] = []
    for token in tokens:
        offsets.append(begin)
        begin += len(token)
    return {
        "tokens": tokens,
        "token_logprobs": [logprob_of(one.chosen) for one in logprobs],
        "top_logprobs": [{token_of(other): logprob_of(other) for other in (one.chosen, *one.top)} for one in logprobs],
        "text_offset": offsets,
    }
