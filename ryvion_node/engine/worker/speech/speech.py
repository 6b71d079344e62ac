"""The text of one answer as it streams in, taken apart by the rules of the model's family."""

from __future__ import annotations

from ryvion_node.engine.worker.speech.parts import Parts


class Speech:
    """One per job."""

    def __init__(self) -> None:
        self.called = False
        """A tool was called."""
        self.done = False
        """The answer is complete, whatever the model would still say."""
        self.reasoning = ""
        self._content: list[str] = []

    def marker(self, token: int) -> bytes | None:
        """What to add for a control token that means something here; None for any other token."""
        return None

    def add(self, text: str) -> Parts:
        """Take in more text; returns what is certain now."""
        self._content.append(text)
        return Parts(text)

    def finish(self, text: str = "") -> Parts:
        """Take in the last text; returns all that was held back."""
        return self.add(text)

    def texts(self) -> tuple[str, ...]:
        """All that was returned, as the texts that are billed: content, reasoning, each call's name and arguments."""
        texts = ("".join(self._content), self.reasoning)
        return tuple(text for text in texts if text)
