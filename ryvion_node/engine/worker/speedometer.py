"""Notices when a model has become faster or slower than its offer says. Pure: the caller brings the clock.

What is offered at first was measured at start: decoding alone, on a machine that did nothing else. What a buyer gets
also holds sampling, texts and pipes, and the owner's other programs.
"""

from __future__ import annotations

from dataclasses import dataclass

from ryvion_node.engine import constants as limits


@dataclass(frozen=True, slots=True)
class Speeds:
    """Seconds per token of one job alone, and of a prompt."""

    token_s: float
    prompt_token_s: float


class Speedometer:
    """Keeps the running speed, and what was said of it last."""

    def __init__(self, said: Speeds) -> None:
        self._said = said
        self._said_at = 0.0
        self._token_s = said.token_s
        self._last_lone_at: float | None = None
        self._lone_steps = 0

    def step(self, *, lone: bool, now_s: float) -> None:
        """A step ended; `lone`: it made one token, of the only job there is."""
        if lone and self._last_lone_at is not None:
            # A pause of the whole machine is no new speed.
            taken_s = min(now_s - self._last_lone_at, 4 * self._token_s)
            self._token_s += limits.DRIFT_WEIGHT * (taken_s - self._token_s)
            self._lone_steps += 1
        self._last_lone_at = now_s if lone else None

    def rest(self) -> None:
        """Nothing to do, or nobody who takes it: the time until the next step says nothing of speed."""
        self._last_lone_at = None

    def news(self, prompt_token_s: float, now_s: float) -> Speeds | None:
        """The speeds, when they have drifted from what was said; at most once per DRIFT_SAY_EVERY_S."""
        if now_s - self._said_at < limits.DRIFT_SAY_EVERY_S:
            return None
        token_s = self._token_s if self._lone_steps >= limits.DRIFT_STEPS else self._said.token_s
        if not (_drifted(token_s, self._said.token_s) or _drifted(prompt_token_s, self._said.prompt_token_s)):
            return None
        self._said, self._said_at, self._lone_steps = Speeds(token_s, prompt_token_s), now_s, 0
        return self._said


def _drifted(now: float, said: float) -> bool:
    return not 1 / limits.DRIFT_FACTOR <= now / said <= limits.DRIFT_FACTOR
