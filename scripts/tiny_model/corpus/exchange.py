"""One question and its answer, and how people vary the way they type a question."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

QUESTION_WORDS = frozenset(
    "what what's which who how is are can do does where am in why when will should could would did was".split()
)


@dataclass(frozen=True, slots=True)
class Exchange:
    """What the user writes and what the model answers."""

    prompt: str
    answer: str


def styled(prompt: str, random: Random) -> str:
    """Vary final mark, case and politeness; the meaning stays."""
    is_question = prompt.split()[0].lower() in QUESTION_WORDS
    marks, weights = (("?", "", " ?"), (75, 17, 8)) if is_question else (("", ".", "!", "?"), (40, 40, 17, 3))
    prompt += random.choices(marks, weights)[0]
    kind = random.random()
    if kind < 0.12 and not prompt.startswith("I "):
        return prompt.lower()
    if kind < 0.17 and is_question:
        return "Hello, " + lower_first(prompt)
    if kind < 0.23 and " " in prompt and not prompt.startswith(("I ", "Please")):
        return "Please " + lower_first(prompt)
    return prompt


def lower_first(text: str) -> str:
    """The text with a small first letter."""
    return text[:1].lower() + text[1:]


def upper_first(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]


def with_article(noun: str) -> str:
    """A or an before the noun."""
    return ("an " if noun[0] in "aeiou" else "a ") + noun
