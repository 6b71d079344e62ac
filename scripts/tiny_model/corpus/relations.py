"""What documents say about invented things and people, and how it is asked for, each in several wordings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Final

from tiny_model.corpus import invention
from tiny_model.corpus.exchange import upper_first
from tiny_model.corpus.facts import DAYS, MONTHS
from tiny_model.corpus.talk import table


@dataclass(frozen=True, slots=True)
class Relation:
    """Something that can be said about a subject of one kind."""

    subject: str
    value: str
    says: tuple[str, ...]
    asks: tuple[str, ...]
    held: str
    """A wording of the question that no training sees."""

    def say(self, subject: str, random: Random) -> str:
        """A sentence about the subject with a new value."""
        return self.saying(subject, MAKERS[self.value](random), random)

    def saying(self, subject: str, value: str, random: Random) -> str:
        """A sentence about the subject with this value."""
        return upper_first(random.choice(self.says).format(x=subject, v=value))


@dataclass(frozen=True, slots=True)
class Entry:
    """A passage of the handbook in two wordings, and questions that it answers."""

    says: tuple[str, ...]
    asks: tuple[str, ...]
    held: str


def relations() -> tuple[Relation, ...]:
    """Everything in relations.toml."""
    return tuple(
        Relation(row["x"], row["v"], _split(row["says"]), _split(row["asks"]), row["held"])
        for row in table("relations")["relation"]
    )


def handbook() -> tuple[Entry, ...]:
    """Everything in handbook.toml."""
    return tuple(Entry(_split(row["says"]), _split(row["asks"]), row["held"]) for row in table("handbook")["entry"])


def subject(kind: str, random: Random) -> str:
    """A new place, person or noun."""
    return MAKERS[kind](random)


def noun(random: Random) -> str:
    """A thing of one or two words, known or invented."""
    word = invention.pseudo_word(random) if random.random() < 0.4 else random.choice(invention.WORDS)
    return word if random.random() < 0.6 else f"{random.choice(invention.WORDS)} {word}"


def _one_of(words: str) -> Callable[[Random], str]:
    choices = words.split("|") if "|" in words else words.split()
    return lambda random: random.choice(choices)


def _counted(units: str, most: int = 100) -> Callable[[Random], str]:
    return lambda random: f"{random.randrange(2, most)} {random.choice(units.split())}"


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split("|"))


MAKERS: Final[Mapping[str, Callable[[Random], str]]] = {
    "place": invention.place,
    "person": invention.person,
    "noun": noun,
    "clock": invention.time_of_day,
    "number": invention.number,
    "year": invention.year,
    "code": invention.code,
    "duration": _counted("minutes hours days weeks months"),
    "price": _counted("credits euros dollars coins", 2000),
    "length": _counted("metres kilometres miles feet"),
    "weight": _counted("grams kilograms tons pounds", 500),
    "power": _counted("watts kilowatts", 900),
    "weekday": lambda random: random.choice(DAYS),
    "month": lambda random: random.choice(MONTHS),
    "colour": _one_of("red green blue yellow black white brown purple grey pink orange silver"),
    "weather": _one_of("sunny|rainy|windy|cloudy|stormy|snow|fog|heavy rain|hot and dry|cold and clear"),
    "language": _one_of("French Spanish German Italian Japanese Portuguese Swedish Finnish Latin Greek Arabic music"),
    "job": _one_of(
        "baker nurse pilot teacher farmer lawyer painter sailor doctor driver carpenter cook gardener librarian tailor "
        "plumber journalist engineer"
    ),
    "animal": _one_of("cat dog rabbit parrot tortoise hamster goldfish pony snake canary goat hen"),
    "food": _one_of(
        "rice soup pancakes cheese tomatoes noodles fish potatoes mushrooms lentils onions butter honey spinach apples "
        "beans salad"
    ),
    "sport": _one_of("football tennis chess hockey rowing cricket judo golf handball badminton running volleyball"),
}
"""By the names that relations.toml uses."""
