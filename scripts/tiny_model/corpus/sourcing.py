"""Tasks with numbered sources in the prompt: quote the one that answers, or say that none does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from tiny_model.corpus.exchange import Exchange
from tiny_model.corpus.invention import pseudo_word
from tiny_model.corpus.statements import Form, Statement, fill, statement

NOT_IN_SOURCES: Final = "The sources do not say that."

HEADINGS: Final = (
    "Sources:",
    "Sources:",
    "Sources:",
    "Use only these sources:",
    "Answer from these sources.\n\nSources:",
    "Answer the question with the sources below.\n\nSources:",
    "Context:",
    "Use the following sources to answer. If they do not hold the answer, say so.\n\nSources:",
    "You answer questions from the user's documents.\n\nSources:",
)
FILLERS: Final = (
    "This page was last changed on a Monday.",
    "More about this can be found in the next chapter.",
    "Please read the notes first.",
    "Nobody knows why.",
    "This has not changed for many years.",
    "The details are in the letter.",
    "It is open to everybody.",
    "Ask at the desk if you are not sure.",
)


@dataclass(frozen=True, slots=True)
class SourcedTask:
    """The sources as text and one to four exchanges about them."""

    sources: str
    exchanges: tuple[Exchange, ...]


def source_task(random: Random, most: int) -> SourcedTask:
    """Between one and `most` sources; similar statements about other things are among them."""
    count = random.randint(1, most) if random.random() < 0.7 else random.randint(1, min(3, most))
    form, first = statement(random)
    facts = [(form, first)]
    while len(facts) < count:
        facts.append((form, fill(form, random)) if random.random() < 0.4 else statement(random))
    random.shuffle(facts)
    rich = random.random() < 0.2
    lines = [_line(random, number, fact.text, rich) for number, (_, fact) in enumerate(facts, 1)]
    asked = [_ask(random, facts) for _ in range(random.choices((1, 2, 3, 4), (40, 25, 20, 15))[0])]
    return SourcedTask(f"{random.choice(HEADINGS)}\n" + "\n".join(lines), tuple(asked))


def as_user_prompt(task: SourcedTask, random: Random) -> Exchange:
    """The sources and the first question in one user message."""
    label = random.choice(("Question: ", "Question: ", "Question: ", ""))
    first = task.exchanges[0]
    return Exchange(f"{task.sources}\n\n{label}{first.prompt}", first.answer)


def _line(random: Random, number: int, text: str, rich: bool) -> str:
    if not rich:
        return f"[{number}] {text}"
    title = f"({pseudo_word(random)}.{random.choice(('md', 'txt', 'pdf'))}) " if random.random() < 0.5 else ""
    before = random.choice(FILLERS) + " " if random.random() < 0.4 else ""
    after = " " + random.choice(FILLERS) if random.random() < 0.4 else ""
    return f"[{number}] {title}{before}{text}{after}"


def _ask(random: Random, facts: Sequence[tuple[Form, Statement]]) -> Exchange:
    form, fact = random.choice(facts)
    if random.random() < 0.65:
        return Exchange(fact.question + "?", fact.text)
    texts = [other.text for _, other in facts]
    absent = fill(form, random) if random.random() < 0.6 else statement(random)[1]
    return Exchange(absent.question + "?", NOT_IN_SOURCES if absent.text not in texts else fact.text)
