"""One job of the decode loop, from the first row of its prompt to its last token."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from ryvion_node.engine.worker.choosing import Chooser
from ryvion_node.engine.worker.emit import TextHold
from ryvion_node.engine.worker.sampler import Logits
from ryvion_node.engine.worker.scoring import Scoring
from ryvion_node.engine.worker.speech.speech import Speech

EndReason = Literal["stop", "length", "tool_calls"]


@dataclass(slots=True, eq=False)
class Job:
    """One sequence: first its prompt is read, then it decodes token by token."""

    number: int
    prompt: list[int]
    chooser: Chooser
    max_tokens: int
    hold: TextHold
    speech: Speech
    credit: int
    owner: bytes = b""
    """Jobs of the same owner may find each other's prompts in the cache; empty: nobody's."""
    scoring: Scoring | None = None
    """Set where nothing is generated: the prompt then holds the claimed tokens too, but for the last."""
    sequence: int = -1
    position: int = 0
    """Tokens in the cache; also the index that the next sampled token gets."""
    next_token: int | None = None
    """Sampled, not yet decoded; None while the prompt is read."""
    made: list[int] = field(default_factory=list)
    passed_over: int = 0
    """Prompt rows given to others while this one waited."""
    last_step: int = 0
    waiting: deque[Logits] = field(default_factory=deque)
    """Logits that cannot be used before its grammar is followed so far; meanwhile it takes part in no step."""
