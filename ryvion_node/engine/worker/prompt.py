"""From turns to the tokens of a prompt, by the model's own template and vocabulary, and to what listens to the answer."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from ryvion_node.engine.wire import WireOutput, WireTools, WireTurn
from ryvion_node.engine.worker.llama import Model, Vocabulary
from ryvion_node.engine.worker.speech.families import TAUGHT, CallStyle, Thoughts, call_style, thoughts
from ryvion_node.engine.worker.speech.forced import answer_grammar
from ryvion_node.engine.worker.speech.speech import Manner, Speech
from ryvion_node.engine.worker.speech.taught import taught_turns, without_system
from ryvion_node.engine.worker.speech.tools import NO_OFFER, Offer, call_id
from ryvion_node.engine.worker.template import ChatTemplate, Segment, TemplateRefused

_FIRST_SIGN: Final = 0xFDD0
"""Where Unicode keeps code points that no text holds."""

_KNOWN_SPLITS: Final = 1024
"""Of the template's own texts; a date or a number of calls may be part of one."""
_KNOWN_CHARS: Final = 4096
"""Longer ones are not remembered: numbers in tools and calls count as the template's own, and fill a request."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A job that is ready to run."""

    tokens: list[int]
    """The whole prompt, BOS included."""
    speech: Speech
    output: WireOutput
    """What every token of the answer must obey; two empty texts: nothing."""


class Prompts:
    """Makes and counts prompts; works on vocab-only models too."""

    def __init__(self, model: Model, override: str | None = None) -> None:
        """`override`: a template of the owner's in place of the model's."""
        self._vocabulary = model.vocabulary
        source = model.chat_template if override is None else override
        names = {"bos": self._vocabulary.name(self._vocabulary.bos), "eos": self._vocabulary.name(self._vocabulary.eos)}
        self._puts_spaces = self._vocabulary.tokenise_inside("x") != self._vocabulary.tokenise("x")
        self._splits: dict[str, tuple[str | list[int], ...]] = {}
        """The template's own texts, of which there are few."""
        self._template: ChatTemplate | None = None
        self.problem = ""
        """Why no prompt can be made; empty when all is well."""
        if source is None:
            self.problem = "it has no chat template (tokenizer.chat_template): use a chat model's GGUF"
            return
        try:
            self._template = ChatTemplate(source, **names)
        except TemplateRefused as exc:
            self.problem = str(exc)
            return
        style = call_style(source)
        self._taught = style is None or not self._template.shows_tools
        self._thoughts = thoughts(source)
        self._silent = manner_of(self._vocabulary, self._thoughts, None)
        self._calling = manner_of(self._vocabulary, self._thoughts, TAUGHT if self._taught else style)

    def prepare(self, turns: Sequence[WireTurn], tools: WireTools, output: WireOutput) -> Prepared:
        """Raises TemplateRefused, ToolsRefused or GrammarInvalid."""
        if self._template is None:
            raise TemplateRefused(self.problem)
        offer = Offer.of(tools)
        if self._taught:
            turns, shown = taught_turns(turns, offer), NO_OFFER
        else:
            shown = offer
        if not self._template.shows_system:
            turns = without_system(turns)
        segments = self._template.segments(turns, shown)
        tokens = self._tokens(segments)
        manner = self._calling if offer.tools else self._silent
        thinking, begun = self._begun(segments, turns)
        if output[0] == "lark":
            # Such a grammar describes the answer from its first token, wherever the template would have it think.
            thinking, begun = False, True
        return Prepared(
            tokens,
            Speech(manner, offer, partial(call_id, tuple(tokens)), thinking=thinking, begun=begun),
            answer_grammar(manner, offer, output, thinking=thinking, begun=begun),
        )

    def count_text(self, text: str) -> int:
        """The canonical count: the text alone, nothing added, nothing parsed."""
        return len(self._vocabulary.tokenise(text))

    def _tokens(self, segments: Sequence[Segment]) -> list[int]:
        """Control tokens are looked for in the template's own text only."""
        tokens = self._apart(segments) if self._puts_spaces else self._joined(segments)
        if self._vocabulary.adds_bos and tokens[:1] != [self._vocabulary.bos]:
            tokens.insert(0, self._vocabulary.bos)
        return tokens

    def _joined(self, segments: Sequence[Segment]) -> list[int]:
        """What lies between two control tokens is tokenised as one text, whoever wrote it."""
        tokens: list[int] = []
        run = ""
        for segment in segments:
            for part in (segment.text,) if segment.is_content else self._split(segment.text):
                if isinstance(part, str):
                    run += part
                else:
                    tokens += [*self._vocabulary.tokenise(run), *part]
                    run = ""
        return tokens + self._vocabulary.tokenise(run)

    def _apart(self, segments: Sequence[Segment]) -> list[int]:
        """For vocabularies that put a space before a text, where it depends on what comes before."""
        tokens: list[int] = []
        for number, segment in enumerate(segments):
            tokenise = self._vocabulary.tokenise_inside if number else self._vocabulary.tokenise
            tokens += tokenise(segment.text, special=not segment.is_content)
        return tokens

    def _split(self, text: str) -> tuple[str | list[int], ...]:
        """The template's own text as plain texts and control tokens; as tokens all of it where that is not the same."""
        if (known := self._splits.get(text)) is not None:
            return known
        vocabulary = self._vocabulary
        tokens = vocabulary.tokenise(text, special=True)
        parts: list[str | list[int]] = []
        at = 0
        for token in tokens:
            if not vocabulary.piece(token):
                name = vocabulary.name(token)
                start = text.index(name, at) if name in text[at:] else at
                parts += [text[at:start], [token]]
                at = start + len(name)
        parts.append(text[at:])
        alike = [vocabulary.tokenise(part) if isinstance(part, str) else part for part in parts]
        split = tuple(parts) if list(itertools.chain(*alike)) == tokens else (tokens,)
        if len(text) <= _KNOWN_CHARS:
            if len(self._splits) >= _KNOWN_SPLITS:
                self._splits.clear()
            self._splits[text] = split
        return split

    def _begun(self, segments: Sequence[Segment], turns: Sequence[WireTurn]) -> tuple[bool, bool]:
        """Does the prompt end within a thought, and does it end within the answer?"""
        role, prefix, _name, calls, _answers = turns[-1] if turns else ("", "", "", (), "")
        if role != "assistant" or calls:
            prefix = ""
        if self._thoughts is None:
            return False, bool(prefix)
        opened = any(
            segment.text.rstrip().endswith(self._thoughts.begin)
            for segment in segments[-2 if prefix else -1 :]
            if not segment.is_content
        )
        thinking = (opened or prefix.lstrip().startswith(self._thoughts.begin)) and self._thoughts.end not in prefix
        return thinking, bool(prefix)


def manner_of(vocabulary: Vocabulary, thoughts: Thoughts | None, calls: CallStyle | None) -> Manner:
    """With signs in place of the markers that are control tokens, whose text never shows in an answer."""
    markers = [
        *((thoughts.begin, thoughts.end) if thoughts else ()),
        *((calls.begin, calls.end, calls.separator, calls.id_marker) if calls else ()),
    ]
    signs: dict[str, str] = {}
    tokens: dict[int, str] = {}
    for number, marker in enumerate(markers):
        token = vocabulary.tokenise(marker, special=True)
        if marker and len(token) == 1 and not vocabulary.piece(token[0]):
            tokens[token[0]] = signs[marker] = chr(_FIRST_SIGN + number)

    def sign(marker: str) -> str:
        return signs.get(marker, marker)

    return Manner(
        thoughts and Thoughts(sign(thoughts.begin), sign(thoughts.end)),
        calls
        and replace(
            calls,
            begin=sign(calls.begin),
            end=sign(calls.end),
            separator=sign(calls.separator),
            id_marker=sign(calls.id_marker),
        ),
        tokens,
    )
