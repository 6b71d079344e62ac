"""What a requester takes in of one job, frame by frame: a chat's answer or an embedding's vectors (spec 04)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from ryvion_node.engine.interface import EngineError, TokenCounter
from ryvion_node.market.answer import AnswerRules
from ryvion_node.market.constants import MAX_ANSWER_BYTES, MAX_BYTES_PER_TOKEN
from ryvion_node.market.interface import Piece, VectorsPiece
from ryvion_node.market.selection import Bid
from ryvion_protocol.errors import PayloadInvalid
from ryvion_protocol.messages import CHAT, EMBEDDING, Delta, EmbedRequest, Finished, JobRequest, TokenLogprob, Vectors
from ryvion_protocol.transcript import DeltaOrder, ResultBuilder, VectorsResult

P_co = TypeVar("P_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Witness:
    """What we saw and counted ourselves; the fields are those of JobEvidence."""

    kind: str
    result_hash: bytes
    text_bytes: int
    billable_texts: int
    own_prompt_units: int | None
    own_completion_units: int | None
    embedded_bytes: int = 0
    embedded_texts: int = 0


class Intake(Protocol[P_co]):
    """Of one job; only results of its kind reach it, by the table of states."""

    def take(self, part: Delta | Vectors) -> P_co | None:
        """What the caller may be shown now; None when it brings nothing on. Raises PayloadInvalid."""
        ...

    def rest(self) -> P_co | None:
        """What was held back until the end."""
        ...

    def check_end(self, finished: Finished) -> None:
        """Raise PayloadInvalid when what came is not what was ordered."""
        ...

    async def witness(self, counter: TokenCounter, bid: Bid) -> Witness:
        """Our own view of the job."""
        ...


class ChatIntake:
    """Implements Intake for text."""

    def __init__(self, request: JobRequest, max_completion_tokens: int) -> None:
        self._result = ResultBuilder()
        self._order = DeltaOrder()
        self._rules = AnswerRules(request, max_completion_tokens)
        self._max_text_bytes = min(MAX_BYTES_PER_TOKEN * (max_completion_tokens + 1), MAX_ANSWER_BYTES)
        self._held_logprobs: list[TokenLogprob] = []
        """Of tokens that show nothing yet."""
        self._shown = False

    def take(self, part: Delta | Vectors) -> Piece | None:
        assert isinstance(part, Delta)
        self._order.add(part)
        self._rules.check(part)
        self._result.add(part)
        if self._result.text_bytes > self._max_text_bytes:
            raise PayloadInvalid("limits", f"more than {self._max_text_bytes} bytes of text for the tokens ordered")
        self._held_logprobs += part.logprobs
        if not (part.text or part.reasoning or part.calls):
            return None
        self._shown = True
        return Piece(part.text, part.reasoning, part.calls, self._release_logprobs())

    def rest(self) -> Piece | None:
        return Piece(logprobs=self._release_logprobs()) if self._held_logprobs and self._shown else None

    def _release_logprobs(self) -> tuple[TokenLogprob, ...]:
        held, self._held_logprobs = tuple(self._held_logprobs), []
        return held

    def check_end(self, finished: Finished) -> None:
        self._rules.check_end(finished, self._result)

    async def witness(self, counter: TokenCounter, bid: Bid) -> Witness:
        prompt, texts = bid.eligible.prompt, self._result.billable_texts()
        own_completion: int | None = None
        if _counts_alike(counter, bid):
            try:
                own_completion = await counter.count_texts(bid.quote.digest, texts)
            except EngineError:
                own_completion = None
        return Witness(
            kind=CHAT,
            result_hash=self._result.digest,
            text_bytes=self._result.text_bytes,
            billable_texts=len(texts),
            own_prompt_units=prompt.tokens if prompt.counted else None,
            own_completion_units=own_completion,
        )


class VectorIntake:
    """Implements Intake for vectors."""

    def __init__(self, request: EmbedRequest) -> None:
        self._texts = request.texts
        self._result = VectorsResult(len(request.texts))

    def take(self, part: Delta | Vectors) -> VectorsPiece | None:
        assert isinstance(part, Vectors)
        self._result.add(part)
        return VectorsPiece(part.dimensions, part.values)

    def rest(self) -> None:
        return None

    def check_end(self, finished: Finished) -> None:
        self._result.check_end(finished)
        if self._result.count < len(self._texts):
            raise PayloadInvalid(
                "vectors_missing", f"time was up after {self._result.count} of {len(self._texts)} texts"
            )

    async def witness(self, counter: TokenCounter, bid: Bid) -> Witness:
        delivered = self._texts[: self._result.count]
        return Witness(
            kind=EMBEDDING,
            result_hash=self._result.digest,
            text_bytes=self._result.value_bytes,
            billable_texts=0,
            own_prompt_units=await self._own_count(counter, bid, delivered),
            own_completion_units=0,
            embedded_bytes=sum(len(text.encode()) for text in delivered),
            embedded_texts=len(delivered),
        )

    async def _own_count(self, counter: TokenCounter, bid: Bid, delivered: Sequence[str]) -> int | None:
        prompt = bid.eligible.prompt
        if len(delivered) == len(self._texts):
            return prompt.tokens if prompt.counted else None
        if not _counts_alike(counter, bid):
            return None
        try:
            return await counter.count_embedded(bid.quote.digest, delivered)
        except EngineError:
            return None


def _counts_alike(counter: TokenCounter, bid: Bid) -> bool:
    """Is the tokenizer at hand, and does the executor count by it?"""
    return counter.knows(bid.quote.digest) and "counted" in bid.eligible.model.features
