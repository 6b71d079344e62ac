"""Invented statements for the sources, each with questions that it answers.

`{x}` stands for what the question names, `{v}` for what it asks for; the rest of a sentence is fixed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from tiny_model.corpus.invention import WORDS, code, number, person, place, pseudo_word, time_of_day, year

Maker = Callable[[Random], str]


@dataclass(frozen=True, slots=True)
class Form:
    """One kind of statement: how it reads, how it is asked for, what fills it."""

    statement: str
    questions: tuple[str, ...]
    subject: Maker
    value: Maker


@dataclass(frozen=True, slots=True)
class Statement:
    """A filled form."""

    text: str
    question: str


def _weekday(random: Random) -> str:
    return random.choice(("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"))


def _colour(random: Random) -> str:
    return random.choice(("red", "green", "blue", "yellow", "black", "white", "brown", "purple", "grey", "pink"))


def _noun(random: Random) -> str:
    word = pseudo_word(random) if random.random() < 0.5 else random.choice(WORDS)
    return word if random.random() < 0.75 else f"{random.choice(WORDS)} {word}"


def _price(random: Random) -> str:
    return f"{number(random)} {random.choice(('credits', 'euros', 'dollars', 'coins'))}"


def _length(random: Random) -> str:
    return f"{number(random)} {random.choice(('metres', 'kilometres', 'miles', 'feet'))}"


def _duration(random: Random) -> str:
    return f"{random.randrange(2, 100)} {random.choice(('minutes', 'hours', 'days', 'weeks', 'years'))}"


def _amount(random: Random) -> str:
    return random.choice((_price, _length, _duration))(random)


FORMS: Final = (
    Form(
        "The ferry to {x} leaves at {v}.",
        ("When does the ferry to {x} leave", "What time does the ferry to {x} leave"),
        place,
        time_of_day,
    ),
    Form(
        "The train to {x} leaves from platform {v}.",
        ("From which platform does the train to {x} leave", "Which platform does the train to {x} leave from"),
        place,
        number,
    ),
    Form("The bus to {x} takes {v}.", ("How long does the bus to {x} take",), place, _duration),
    Form(
        "The capital of {x} is {v}.", ("What is the capital of {x}", "Which city is the capital of {x}"), place, place
    ),
    Form("The mayor of {x} is {v}.", ("Who is the mayor of {x}",), place, person),
    Form("{x} was founded in {v}.", ("When was {x} founded", "In which year was {x} founded"), place, year),
    Form(
        "{x} has {v} inhabitants.", ("How many inhabitants does {x} have", "How many people live in {x}"), place, number
    ),
    Form("The population of {x} is {v}.", ("What is the population of {x}",), place, number),
    Form("{x} lives in {v}.", ("Where does {x} live",), person, place),
    Form("{x} was born in {v}.", ("When was {x} born", "In which year was {x} born"), person, year),
    Form("{x} works as a {v}.", ("What does {x} work as", "What is the job of {x}"), person, _noun),
    Form("{x} invented the {v}.", ("What did {x} invent",), person, _noun),
    Form("The {x} was invented by {v}.", ("Who invented the {x}",), _noun, person),
    Form("The favourite colour of {x} is {v}.", ("What is the favourite colour of {x}",), person, _colour),
    Form("The phone number of {x} is {v}.", ("What is the phone number of {x}",), person, number),
    Form("The {x} costs {v}.", ("How much does the {x} cost", "What does the {x} cost"), _noun, _price),
    Form("The price of the {x} is {v}.", ("What is the price of the {x}",), _noun, _price),
    Form("The {x} is {v} long.", ("How long is the {x}",), _noun, _length),
    Form("The tower of {x} is {v} high.", ("How high is the tower of {x}",), place, _length),
    Form("The {x} weighs {v} grams.", ("How much does the {x} weigh", "How heavy is the {x}"), _noun, number),
    Form("The {x} is {v}.", ("What colour is the {x}",), _noun, _colour),
    Form("The code for the {x} is {v}.", ("What is the code for the {x}",), _noun, code),
    Form("The password of {x} is {v}.", ("What is the password of {x}",), person, code),
    Form("The {x} opens at {v}.", ("When does the {x} open", "At what time does the {x} open"), _noun, time_of_day),
    Form("The {x} closes on {v}.", ("When does the {x} close", "On which day does the {x} close"), _noun, _weekday),
    Form("The meeting with {x} is on {v}.", ("When is the meeting with {x}",), person, _weekday),
    Form("The room of {x} is {v}.", ("What is the room of {x}", "Which room does {x} have"), person, code),
    Form("The {x} is kept in {v}.", ("Where is the {x} kept", "Where is the {x}"), _noun, place),
    Form("The owner of the {x} is {v}.", ("Who is the owner of the {x}", "Who owns the {x}"), _noun, person),
    Form("The author of {x} is {v}.", ("Who is the author of {x}", "Who wrote {x}"), place, person),
    Form(
        "The warranty of the {x} lasts {v}.",
        ("How long does the warranty of the {x} last", "How long is the warranty of the {x}"),
        _noun,
        _duration,
    ),
    Form("The {x} runs every {v}.", ("When does the {x} run", "How often does the {x} run"), _noun, _weekday),
    Form("The {x} belongs to {v}.", ("Who does the {x} belong to", "Whose is the {x}"), _noun, person),
    Form("Our {x} is {v}.", ("What is our {x}", "How long is our {x}", "How much is our {x}"), _noun, _amount),
    Form("{x} is {v} years old.", ("How old is {x}",), person, number),
    Form("The {x} starts at {v}.", ("When does the {x} start", "What time does the {x} start"), _noun, time_of_day),
    Form("You can find the {x} in {v}.", ("Where can I find the {x}",), _noun, place),
    Form("The {x} needs {v}.", ("What does the {x} need", "How much does the {x} need"), _noun, _amount),
    Form("{x} bought a {v}.", ("What did {x} buy",), person, _noun),
    Form("{x} is the owner of the {v}.", ("What does {x} own",), person, _noun),
    Form("{x} lies on the river {v}.", ("On which river does {x} lie",), place, place),
    Form("The {x} is made of {v}.", ("What is the {x} made of",), _noun, _noun),
    Form(
        "The {x} server listens on port {v}.",
        ("On which port does the {x} server listen", "Which port does the {x} server use"),
        _noun,
        number,
    ),
)


def statement(random: Random) -> tuple[Form, Statement]:
    """A statement of a random form; one in five is about an invented property."""
    form = _invented_form(random) if random.random() < 0.25 else random.choice(FORMS)
    return form, fill(form, random)


def fill(form: Form, random: Random) -> Statement:
    """Another statement of the same form, with its question."""
    subject = form.subject(random)
    text = form.statement.format(x=subject, v=form.value(random))
    return Statement(text[:1].upper() + text[1:], random.choice(form.questions).format(x=subject))


def _invented_form(random: Random) -> Form:
    """A property or an action that has no name in any language."""
    word, maker = _noun(random), random.choice((number, code, place, person, _colour, _noun, year))
    if random.random() < 0.6:
        subject, article = random.choice(((place, ""), (person, ""), (_noun, "the ")))
        return Form(
            f"The {word} of {article}{{x}} is {{v}}.", (f"What is the {word} of {article}{{x}}",), subject, maker
        )
    return Form(f"The {{x}} {word}s the {{v}}.", (f"What does the {{x}} {word}",), _noun, _noun)
