"""The text of one answer as it streams in, taken apart by the rules of the model's family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from ryvion_node.engine.constants import MAX_CALLS
from ryvion_node.engine.worker.speech.calls import Argued, Called, CallEnded, CallReader, NotACall
from ryvion_node.engine.worker.speech.families import CallStyle, Thoughts
from ryvion_node.engine.worker.speech.parts import Parts
from ryvion_node.engine.worker.speech.tools import NO_OFFER, Offer

_HELD_SPACES: Final = 16
"""White space before a call is dropped, so this much of it waits for what comes."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How one model speaks. Markers that are control tokens have been replaced by what `signs` gives for them."""

    thoughts: Thoughts | None = None
    calls: CallStyle | None = None
    signs: Mapping[int, str] = field(default_factory=dict)
    """Control token -> the sign that stands for it."""


PLAIN: Final = Manner()


class Speech:
    """One per job. How the text is cut into pieces makes no difference to what comes out in all."""

    def __init__(
        self,
        manner: Manner = PLAIN,
        offer: Offer = NO_OFFER,
        call_id: Callable[[int], str] = str,
        *,
        thinking: bool = False,
        begun: bool = False,
    ) -> None:
        """`thinking`: the prompt ends within a thought. `begun`: it ends within the answer."""
        self.called = False
        """A tool was called."""
        self.done = False
        """The answer is complete, whatever the model would still say."""
        self._thoughts = manner.thoughts
        self._calls = manner.calls if offer.tools else None
        self._signs = {token: sign.encode() for token, sign in manner.signs.items()}
        self._unsigned = str.maketrans(dict.fromkeys("".join(manner.signs.values()), ""))
        self._offer = offer
        self._call_id = call_id
        self._reader = CallReader(frozenset())
        self._buffer = ""
        self._marker = ""
        """What began the call that is read, and the white space before it."""
        self._step = self._think_first if thinking else self._say if begun else self._begin
        self._content: list[str] = []
        self._thought: list[str] = []
        self._made: list[tuple[str, list[str]]] = []
        self._out = Parts()

    @property
    def reasoning(self) -> str:
        return "".join(self._thought)

    def marker(self, token: int) -> bytes | None:
        """What to add for a control token that means something here; None for any other token."""
        return self._signs.get(token)

    def add(self, text: str) -> Parts:
        """Take in more text; returns what is certain now."""
        self._buffer += text
        while self._buffer and not self.done and self._step():
            pass
        return self._take()

    def finish(self, text: str = "") -> Parts:
        """Take in the last text; returns all that was held back."""
        parts = self.add(text)
        if self.done:
            return parts
        if self._step == self._call:
            self._give_up()
        rest, self._buffer = self._buffer, ""
        if self._step in (self._think, self._think_first):
            self._reason(rest)
        elif self._calls is None or self._step != self._between or not self._calls.end.startswith(rest.strip()):
            self._utter(rest)
        return parts + self._take()

    def texts(self) -> tuple[str, ...]:
        """All that was returned, as the texts that are billed: content, reasoning, each call's name and arguments."""
        called = [text for name, arguments in self._made for text in (name, "".join(arguments))]
        return tuple(text for text in ("".join(self._content), self.reasoning, *called) if text)

    # Each step takes from the buffer what is certain and says whether to go on at once.

    def _begin(self) -> bool:
        """The answer's first characters: a thought, a bare call, or content."""
        text = self._buffer.lstrip()
        if not text:
            return False
        if self._thoughts is not None:
            if text.startswith(self._thoughts.begin):
                self._buffer = text[len(self._thoughts.begin) :]
                self._step = self._think_first
                return True
            if self._thoughts.begin.startswith(text):
                return False
        self._begin_answer()
        return True

    def _begin_answer(self) -> None:
        """What may stand where no thoughts are left to come: a bare call, or content."""
        if self._calls is not None and self._calls.bare and self._buffer.lstrip().startswith("{"):
            self._start_call("")
        else:
            self._step = self._say

    def _think_first(self) -> bool:
        """What comes before a thought: white space, or a marker that the prompt had already."""
        assert self._thoughts is not None
        self._buffer = self._buffer.lstrip()
        if self._thoughts.begin.startswith(self._buffer) and self._buffer != self._thoughts.begin:
            return False
        self._buffer = self._buffer.removeprefix(self._thoughts.begin).lstrip()
        self._step = self._think
        return True

    def _think(self) -> bool:
        assert self._thoughts is not None
        before, found, after = self._buffer.partition(self._thoughts.end)
        if found:
            self._reason(_trimmed(before))
            self._buffer = after
            self._step = self._after_thoughts
            return True
        kept = _held(self._buffer, self._thoughts.end)
        self._reason(self._buffer[: len(self._buffer) - kept])
        self._buffer = self._buffer[len(self._buffer) - kept :]
        return False

    def _after_thoughts(self) -> bool:
        self._buffer = self._buffer.lstrip()
        if self._buffer:
            self._begin_answer()
        return bool(self._buffer)

    def _say(self) -> bool:
        if self._calls is None:
            self._utter(self._buffer)
            self._buffer = ""
            return False
        before, found, after = self._buffer.partition(self._calls.begin)
        if found:
            shown = _trimmed(before)
            self._utter(shown)
            self._buffer = after
            self._start_call(before[len(shown) :] + found)
            return True
        kept = _held(self._buffer, self._calls.begin)
        self._utter(self._buffer[: len(self._buffer) - kept])
        self._buffer = self._buffer[len(self._buffer) - kept :]
        return False

    def _start_call(self, marker: str) -> None:
        assert self._calls is not None
        self._marker = marker
        self._reader = CallReader(self._offer.names, self._calls.separator, self._calls.id_marker)
        self._step = self._call

    def _call(self) -> bool:
        for at, char in enumerate(self._buffer, 1):
            try:
                events = self._reader.feed(char)
            except NotACall:
                self._buffer = self._buffer[at:]
                self._give_up()
                return bool(self._buffer)
            for event in events:
                match event:
                    case Called(name):
                        self._called(name)
                    case Argued(text):
                        self._argue(text)
                    case CallEnded():
                        self.done = not self._offer.parallel or len(self._made) == MAX_CALLS
            if self._reader.complete or self.done:
                self._buffer = self._buffer[at:]
                self._step = self._between
                return True
        self._buffer = ""
        return False

    def _give_up(self) -> None:
        """What was taken for a call goes back to where it came from: as content, or behind the calls that were made."""
        held = "".join(self._reader.held)
        if self._reader.begun:
            self._buffer = held + self._buffer
            self._step = self._between
        else:
            self._utter(self._marker + held)
            self._step = self._say

    def _between(self) -> bool:
        """After a call: its end, another one, or content."""
        assert self._calls is not None
        text = self._buffer.lstrip(" \t\r\n;" if self._calls.bare else None)
        dropped = self._buffer[: len(self._buffer) - len(text)]
        for sign in (self._calls.begin, self._calls.end):
            if sign and text.startswith(sign):
                self._buffer = text[len(sign) :]
                if sign == self._calls.begin:
                    self._start_call(dropped + sign)
                return True
            if sign.startswith(text):
                return False
        self._buffer = text
        self._begin_answer()
        return True

    def _utter(self, text: str) -> None:
        text = text.translate(self._unsigned)
        self._content.append(text)
        self._out += Parts(content=text)

    def _reason(self, text: str) -> None:
        text = text.translate(self._unsigned)
        self._thought.append(text)
        self._out += Parts(reasoning=text)

    def _called(self, name: str) -> None:
        index = len(self._made)
        self.called = True
        self._made.append((name, []))
        self._out += Parts(calls=((index, self._call_id(index), name, ""),))

    def _argue(self, text: str) -> None:
        text = text.translate(self._unsigned)
        index = len(self._made) - 1
        self._made[index][1].append(text)
        *others, last = self._out.calls or ((index, "", "", ""),)
        grown = (*last[:3], last[3] + text)
        self._out = Parts(self._out.content, self._out.reasoning, (*others, grown))

    def _take(self) -> Parts:
        out, self._out = self._out, Parts()
        return out


def _trimmed(text: str) -> str:
    """Without the white space at its end, as far as any would have been held back."""
    return text[: max(len(text.rstrip()), len(text) - _HELD_SPACES)]


def _held(text: str, marker: str) -> int:
    """Length of the end of `text` that may be a marker's beginning, and of the white space before it."""
    kept = next((size for size in range(min(len(text), len(marker) - 1), 0, -1) if text.endswith(marker[:size])), 0)
    before = text[: len(text) - kept]
    return kept + len(before) - len(_trimmed(before))
