"""The requester's checks of a finished job, each with its own result (spec 04, "What the requester checks")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["passed", "failed", "bounded"]
"""bounded: not counted, only held against an upper bound, because the tokenizer is not at hand."""


@dataclass(frozen=True, slots=True)
class Check:
    """One check: `name` is stable and names the rule, `detail` is one sentence with the figures."""

    name: str
    outcome: Outcome
    detail: str
