"""From turns to the tokens of a prompt, by the model's own template and vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ryvion_node.engine.wire import WireOutput, WireTools, WireTurn
from ryvion_node.engine.worker.llama import Model
from ryvion_node.engine.worker.speech.speech import Speech
from ryvion_node.engine.worker.template import ChatTemplate, TemplateRefused


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

    def __init__(self, model: Model, template: str | None = None) -> None:
        """With a template in place of the model's own."""
        self._vocabulary = model.vocabulary
        source = model.chat_template if template is None else template
        names = {"bos": self._vocabulary.name(self._vocabulary.bos), "eos": self._vocabulary.name(self._vocabulary.eos)}
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

    def prepare(self, turns: Sequence[WireTurn], tools: WireTools, output: WireOutput) -> Prepared:
        """Raises TemplateRefused."""
        return Prepared(self._tokens(turns), Speech(), output)

    def _tokens(self, turns: Sequence[WireTurn]) -> list[int]:
        if self._template is None:
            raise TemplateRefused(self.problem)
        tokens: list[int] = []
        for number, segment in enumerate(self._template.segments(turns)):
            tokenise = self._vocabulary.tokenise_inside if number else self._vocabulary.tokenise
            tokens += tokenise(segment.text, special=not segment.is_content)
        if self._vocabulary.adds_bos and tokens[:1] != [self._vocabulary.bos]:
            tokens.insert(0, self._vocabulary.bos)
        return tokens

    def count_text(self, text: str) -> int:
        """The canonical count: the text alone, nothing added, nothing parsed."""
        return len(self._vocabulary.tokenise(text))
