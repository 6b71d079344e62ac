"""Short facts out of facts.toml, each with the sentences that ask for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tiny_model.corpus.exchange import upper_first, with_article
from tiny_model.corpus.talk import Intent, table

NUMBERS: Final = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty"
).split()
DAYS: Final = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS: Final = "January February March April May June July August September October November December".split()
CAPITAL_QUESTIONS: Final = (
    "What is the capital of {}",
    "What's the capital of {}",
    "Name the capital of {}",
    "Which city is the capital of {}",
    "Tell me the capital of {}",
    "Do you know the capital of {}",
    "What is the capital city of {}",
    "Give me the capital of {}",
)
COLOUR_QUESTIONS: Final = tuple(
    sentence.format(colour, "{}")
    for colour in ("colour", "color")
    for sentence in ("What {} is {}", "Which {} is {}", "What is the {} of {}", "Tell me the {} of {}")
)
OPPOSITE_QUESTIONS: Final = (
    "What is the opposite of {}",
    "Tell me the opposite of {}",
    "Which word is the opposite of {}",
)
SOUND_QUESTIONS: Final = ("What sound does {} make", "What does {} say", "Which sound does {} make")
HELLO_QUESTIONS: Final = (
    "How do you say hello in {}",
    "Say hello in {}",
    "What is hello in {}",
    "Translate hello to {}",
)
CONCEPT_QUESTIONS: Final = (
    "What is {}",
    "Explain {}",
    "What's {}",
    "Tell me about {}",
    "Can you explain {}",
    "Describe {}",
    "Explain what {} is",
)
CONCEPT_WORD_QUESTIONS: Final = ("What does {} mean", "Define {}", "What is {}", "Explain {}")


def knowledge() -> list[tuple[str, list[Intent]]]:
    """All facts by kind."""
    return [
        ("capital", list(_capitals())),
        ("colour", list(_colours())),
        ("order", list(_orders())),
        ("word", list(_words())),
        ("concept", list(_concepts())),
        ("count", list(_counts())),
        ("sum", list(_sums())),
        ("list", list(_lists())),
    ]


def capital_follow_up(country: str) -> tuple[str, ...]:
    """Short questions that only make sense after another question about a capital."""
    return (f"And of {country}?", f"And {country}?", f"What about {country}?", f"And the capital of {country}?")


def capitals() -> dict[str, str]:
    """Country to capital."""
    return dict(table("facts")["capitals"])


def capital_answer(country: str) -> str:
    """The sentence that answers a question about a capital."""
    return f"The capital of {country} is {capitals()[country]}."


def _ask(questions: tuple[str, ...], subject: str, answer: str) -> Intent:
    return Intent(tuple(question.format(subject) for question in questions), answer)


def _capitals() -> Iterator[Intent]:
    for country, city in capitals().items():
        yield _ask(CAPITAL_QUESTIONS, country, f"The capital of {country} is {city}.")
        yield Intent(
            (f"{city} is the capital of which country", f"Where is {city}", f"In which country is {city}"),
            f"{city} is in {country}.",
        )


def _colours() -> Iterator[Intent]:
    for thing, colour in table("facts")["colours"].items():
        yield _ask(COLOUR_QUESTIONS, thing, f"{upper_first(thing)} is {colour}.")


def _orders() -> Iterator[Intent]:
    for names, unit in ((DAYS, "day"), (MONTHS, "month")):
        for i, name in enumerate(names):
            after = (f"What {unit} comes after {name}", f"Which {unit} comes after {name}", f"What comes after {name}")
            before = (
                f"What {unit} comes before {name}",
                f"Which {unit} comes before {name}",
                f"What comes before {name}",
            )
            yield Intent(after, f"{names[(i + 1) % len(names)]} comes after {name}.")
            yield Intent(before, f"{names[i - 1]} comes before {name}.")


def _words() -> Iterator[Intent]:
    facts = table("facts")
    pairs = facts["opposites"]
    for word, other in [*pairs.items(), *((b, a) for a, b in pairs.items())]:
        yield _ask(OPPOSITE_QUESTIONS, word, f"The opposite of {word} is {other}.")
    for animal, sound in facts["sounds"].items():
        yield _ask(SOUND_QUESTIONS, with_article(animal), f"{upper_first(with_article(animal))} says {sound}.")
    for language, word in facts["greetings"].items():
        yield _ask(HELLO_QUESTIONS, language, f"Hello in {language} is {word}.")


def _concepts() -> Iterator[Intent]:
    for concept, text in table("facts")["concepts"].items():
        word = concept.split(" ", 1)[1] if concept.startswith(("a ", "an ", "the ")) else concept
        full = tuple(question.format(concept) for question in CONCEPT_QUESTIONS)
        yield Intent(full + tuple(question.format(word) for question in CONCEPT_WORD_QUESTIONS), text)


def _counts() -> Iterator[Intent]:
    for last in (*range(2, 21), 25, 30):
        said = (
            [str(last), NUMBERS[last]] if last < len(NUMBERS) else [str(last), {25: "twenty-five", 30: "thirty"}[last]]
        )
        up = ("Count to {}", "Count up to {}", "Can you count to {}", "Count from 1 to {}", "Count from one to {}")
        yield Intent(tuple(s.format(n) for n in said for s in up), ", ".join(map(str, range(1, last + 1))) + ".")
        down = ("Count down from {}", "Count backwards from {}")
        answer = ", ".join(map(str, range(last, 0, -1))) + "."
        if last <= 10:
            yield Intent(tuple(s.format(n) for n in said for s in down), answer)


def _sums() -> Iterator[Intent]:
    for a in range(11):
        for b in range(11):
            plus = (
                f"What is {a} plus {b}",
                f"{a}+{b}",
                f"{a} + {b}",
                f"What is {a}+{b}",
                f"What is {a} + {b}",
                f"How much is {a} plus {b}",
            )
            yield Intent(plus, f"{a} plus {b} is {a + b}.")


def _lists() -> Iterator[Intent]:
    for kind, words in table("facts")["lists"].items():
        items = words.split()
        for n in range(2, len(items) + 1):
            asks = ("List {} {}", "Name {} {}", "Give me {} {}", "Give me a list of {} {}", "Tell me {} {}")
            answer = "\n".join(f"{i}. {item}" for i, item in enumerate(items[:n], 1))
            prompts = [ask.format(number, kind) for ask in asks for number in (n, NUMBERS[n])]
            if n == 3:
                prompts += [
                    f"List some {kind}",
                    f"Name some {kind}",
                    f"Give me some {kind}",
                    f"Give me a list of {kind}",
                ]
            yield Intent(tuple(prompts), answer)
