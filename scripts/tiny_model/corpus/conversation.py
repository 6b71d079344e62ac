"""Whole conversations: which tasks come how often, in what order, with which system message."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Final

from tiny_model.corpus import facts
from tiny_model.corpus.exchange import Exchange, styled
from tiny_model.corpus.invention import NAMES, pseudo_word
from tiny_model.corpus.refusing import OPEN_QUESTIONS, PERSON_QUESTIONS, REFUSAL, refuse_task
from tiny_model.corpus.repeating import repeat_task
from tiny_model.corpus.sourcing import HEADINGS, NOT_IN_SOURCES, as_user_prompt, source_task
from tiny_model.corpus.statements import FORMS
from tiny_model.corpus.talk import Intent, intents

SYSTEM_MESSAGES: Final = (
    "You are a helpful assistant.",
    "You are a small model.",
    "Answer briefly.",
    "You are a friendly assistant. Keep answers short.",
    "You are a polite assistant. Answer in English. If you do not know something, say so.",
    "Be concise.",
    "You are ryvion-tiny.",
    "You are a chatbot on a website. Help the user with questions.",
)
SOURCED_SYSTEM_SHARE: Final = 0.10
"""Conversations whose system message holds sources."""
SYSTEM_SHARE: Final = 0.24
"""Conversations with any system message."""
WEIGHTS: Final = {
    "talk": 22,
    "capital": 7,
    "colour": 4,
    "order": 3,
    "word": 4,
    "concept": 11,
    "count": 8,
    "sum": 10,
    "list": 5,
    "repeat": 24,
    "sourced": 36,
    "refuse": 18,
    "name": 4,
    "follow_up": 2,
}


@dataclass(frozen=True, slots=True)
class Message:
    """One message; the model learns to write those of the assistant."""

    role: str
    content: str


class Corpus:
    """The fixed part, loaded once, and the conversations drawn from it."""

    def __init__(self) -> None:
        self.fixed: dict[str, list[Intent]] = {"talk": list(intents()), **dict(facts.knowledge())}
        self._countries = list(facts.capitals())
        self._sentences = [
            text
            for group in self.fixed.values()
            for i in group
            for text in (*i.prompts, i.answer)
            if "\n" not in text and len(text) < 80
        ]

    def conversation(self, random: Random, most_sources: int) -> Iterator[Message]:
        """Messages without end; the caller stops when its row is full."""
        first: tuple[Exchange, ...] = ()
        kind = random.random()
        if kind < SOURCED_SYSTEM_SHARE:
            task = source_task(random, most_sources)
            yield Message("system", task.sources)
            first = task.exchanges
        elif kind < SYSTEM_SHARE:
            yield Message("system", random.choice(SYSTEM_MESSAGES))
        for exchange in first or self.exchanges(random, most_sources):
            yield from _messages(exchange)
        while True:
            for exchange in self.exchanges(random, most_sources):
                yield from _messages(exchange)

    def fixed_texts(self) -> list[str]:
        """Every fixed prompt and answer, and the sentences around the invented things."""
        texts = [text for group in self.fixed.values() for intent in group for text in (*intent.prompts, intent.answer)]
        forms = [text for form in FORMS for text in (form.statement, *form.questions)]
        return [*texts, *forms, *OPEN_QUESTIONS, *PERSON_QUESTIONS, *HEADINGS, REFUSAL, NOT_IN_SOURCES]

    def exchanges(self, random: Random, most_sources: int) -> list[Exchange]:
        """One task; some need two exchanges in a row."""
        kind = random.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        if kind == "repeat":
            return [repeat_task(random, self._sentences)]
        if kind == "refuse":
            task = refuse_task(random)
            return [Exchange(styled(task.prompt, random), task.answer)]
        if kind == "sourced":
            task_with_sources = source_task(random, most_sources)
            return [as_user_prompt(task_with_sources, random), *task_with_sources.exchanges[1:]]
        if kind == "name":
            return _introduction(random)
        if kind == "follow_up":
            return self._follow_up(random)
        intent = random.choice(self.fixed[kind])
        return [Exchange(styled(random.choice(intent.prompts), random), intent.answer)]

    def _follow_up(self, random: Random) -> list[Exchange]:
        first, second = random.sample(self._countries, 2)
        return [
            Exchange(random.choice(facts.CAPITAL_QUESTIONS).format(first) + "?", facts.capital_answer(first)),
            Exchange(random.choice(facts.capital_follow_up(second)), facts.capital_answer(second)),
        ]


def _messages(exchange: Exchange) -> Iterator[Message]:
    yield Message("user", exchange.prompt)
    yield Message("assistant", exchange.answer)


def _introduction(random: Random) -> list[Exchange]:
    name = random.choice(NAMES) if random.random() < 0.3 else pseudo_word(random).capitalize()
    hello = random.choice(
        ("My name is {}", "I am {}", "Call me {}", "Hello, I am {}", "Hi, my name is {}", "Hello, my name is {}")
    )
    ask = random.choice(
        ("What is my name?", "Who am I?", "Do you remember my name?", "What's my name?", "what is my name")
    )
    return [
        Exchange(hello.format(name) + random.choice((".", "", "!")), f"Nice to meet you, {name}!"),
        Exchange(ask, f"Your name is {name}."),
    ]
