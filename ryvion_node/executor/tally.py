"""Who counts what the executor's side does; by itself nobody does."""

from __future__ import annotations

from typing import Final, Protocol


class SalesTally(Protocol):
    """Told what happened, right after it did. Must neither block nor raise."""

    def sold(self, status: str, prompt_units: int, completion_units: int) -> None:
        """A job has ended, and its receipt is in the books."""
        ...

    def judged(self, accepted: bool, cost_microcredits: int) -> None:
        """The requester's verdict on it came."""
        ...

    def failed(self, code: str) -> None:
        """A job could not be run."""
        ...


class _Nobody:
    def sold(self, status: str, prompt_units: int, completion_units: int) -> None: ...

    def judged(self, accepted: bool, cost_microcredits: int) -> None: ...

    def failed(self, code: str) -> None: ...


NOBODY: Final = _Nobody()
