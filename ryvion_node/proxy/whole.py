"""An answer that is sent as one, and its choices as they are collected."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ryvion_node.market.interface import Outcome, Piece, Placement
from ryvion_node.proxy.answers import fingerprint_of, outcome_json, taken_json, usage_json


class WholeChoice:
    """Collects the pieces of a choice: a `ChoiceSink`."""

    def __init__(self, about: dict[str, object]) -> None:
        """`about`: what `ryvion` says besides who ran it."""
        self._about = about
        self.pieces: list[Piece] = []
        self._placement: Placement | None = None
        self._outcome: Outcome | None = None

    @property
    def is_placed(self) -> bool:
        """Has an executor accepted it?"""
        return self._placement is not None

    @property
    def placement(self) -> Placement:
        """Who answers, once it is placed."""
        assert self._placement is not None, "the job has not been placed"
        return self._placement

    @property
    def outcome(self) -> Outcome:
        """How it ended, once it has."""
        assert self._outcome is not None, "the job has not ended"
        return self._outcome

    @property
    def ryvion(self) -> dict[str, object]:
        """Everything about its job."""
        return taken_json(self.placement) | outcome_json(self.placement, self.outcome) | self._about

    async def placed(self, placement: Placement) -> None:
        """Note who answers."""
        self._placement = placement

    async def taken(self, placement: Placement) -> None:
        """Note who answers after all."""
        self._placement = placement

    async def piece(self, piece: Piece) -> None:
        """Take in a piece."""
        self.pieces.append(piece)

    async def ended(self, outcome: Outcome) -> None:
        """Note how it ended."""
        self._outcome = outcome


def whole_json(
    answer_id: str, kind: str, choices: Sequence[WholeChoice], shown: Sequence[dict[str, object]], *, each: int
) -> dict[str, object]:
    """A completion with `each` choices of every prompt, `shown` as its kind has them.

    One choice's job is the answer's own; of several each has its own, and the answer says what they cost together.
    """
    first = choices[0]
    outcomes = [choice.outcome for choice in choices]
    ryvion = first.ryvion
    if len(choices) > 1:
        shown = [one | {"ryvion": choice.ryvion} for one, choice in zip(shown, choices, strict=True)]
        ryvion = {
            "cost_microcredits": sum(outcome.cost for outcome in outcomes),
            "jobs": [outcome.receipt.job_id for outcome in outcomes],
        }
    return {
        "id": answer_id,
        "object": kind,
        "created": int(time.time()),
        "model": first.placement.model,
        "system_fingerprint": fingerprint_of(first.placement),
        "choices": list(shown),
        "usage": usage_json(outcomes, each),
        "ryvion": ryvion,
    }
