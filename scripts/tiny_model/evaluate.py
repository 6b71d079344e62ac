"""Measures a GGUF file on tasks that were not in its training, skill by skill, through llama.cpp itself.

Most tasks come from the training's own generators with another seed: the patterns are known, the names, words and
numbers mostly not, so that a right answer had to be read out of the prompt. Facts and talk are asked in one of the
known ways. The unseen sources and capitals are out of no generator.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tiny_model.corpus.conversation import Corpus
from tiny_model.corpus.exchange import Exchange, styled
from tiny_model.corpus.refusing import REFUSAL, refuse_task
from tiny_model.corpus.repeating import repeat_task
from tiny_model.corpus.sourcing import NOT_IN_SOURCES, as_user_prompt, source_task
from tiny_model.play import Player

EVALUATION_SEED = 900_001
NAMED_SOURCES = (
    ("The ferry to Lund leaves at 7:45.", "When does the ferry to Lund leave?"),
    ("The museum opens at 9:30.", "When does the museum open?"),
    ("Mira Okafor lives in Bergen.", "Where does Mira Okafor live?"),
    ("The backup runs every Tuesday.", "When does the backup run?"),
    ("The red bicycle belongs to Tomas.", "Who does the red bicycle belong to?"),
    ("Our refund period is 14 days.", "How long is our refund period?"),
)
"""Written by hand, then taken as examples for the generator: their patterns and some of their words are in training."""
UNSEEN_SOURCES = (
    ("Cats are not allowed in the reading room.", "Where are cats not allowed?"),
    ("The invoice was paid by Helga Brandt.", "Who paid the invoice?"),
    ("Orders above 50 euros ship for free.", "Which orders ship for free?"),
    ("The lighthouse of Skagen was built in 1858.", "When was the lighthouse of Skagen built?"),
    ("Water boils at 93 degrees in La Paz.", "At how many degrees does water boil in La Paz?"),
    ("Tickets can be returned within 30 days.", "Within how many days can tickets be returned?"),
    ("Dr. Amara Diallo leads the research team.", "Who leads the research team?"),
    ("The spare key hangs behind the boiler.", "Where does the spare key hang?"),
    ("Parking is forbidden on Elm Street.", "Where is parking forbidden?"),
)
"""Written after the last training step; sentences and questions of no pattern of the generator."""
UNSEEN_COUNTRIES = (
    "Freedonia Narnia Atlantis Gondor Wakanda Genovia Ruritania Latveria Zamunda Elbonia Panem Sokovia Arendelle "
    "Westeros Oz Lilliput Zubrowka Utopia Syldavia"
).split()
"""Countries out of stories; the model has to say that it does not know them."""


@dataclass(frozen=True, slots=True)
class Task:
    """What is asked and what must come back, to the letter."""

    messages: tuple[tuple[str, str], ...]
    expected: str
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class Score:
    """Right answers of one skill, and up to three wrong ones as (prompt, expected, got)."""

    skill: str
    right: int
    asked: int
    wrong: tuple[tuple[str, str, str], ...]


def evaluate(path: Path, tasks_per_skill: int) -> list[Score]:
    """Ask every skill's tasks."""
    player = Player(path)
    return [_score(player, skill, tasks) for skill, tasks in _skills(tasks_per_skill)]


def _score(player: Player, skill: str, tasks: list[Task]) -> Score:
    wrong = []
    for task in tasks:
        text, _ = player.answer(task.messages, task.prefix)
        if text != task.expected:
            wrong.append((task.messages[-1][1] + (f" / {task.prefix}" if task.prefix else ""), task.expected, text))
    return Score(skill, len(tasks) - len(wrong), len(tasks), tuple(wrong[:3]))


def _skills(count: int) -> Iterator[tuple[str, list[Task]]]:
    corpus = Corpus()
    sentences = corpus.fixed_texts()[:200]

    def draw(make: Callable[[Random], Task]) -> list[Task]:
        random = Random(EVALUATION_SEED)
        return [make(random) for _ in range(count)]

    def asked(exchange: Exchange) -> Task:
        return Task((("user", exchange.prompt),), exchange.answer)

    def known(random: Random, kinds: list[str]) -> Exchange:
        intent = random.choice(corpus.fixed[random.choice(kinds)])
        return Exchange(styled(random.choice(intent.prompts), random), intent.answer)

    def after_others(random: Random) -> Task:
        earlier = [known(random, ["talk", "capital", "concept"]) for _ in range(random.randint(1, 3))]
        turns = [turn for e in earlier for turn in (("user", e.prompt), ("assistant", e.answer))]
        last = random.choice((known(random, ["capital", "talk"]), repeat_task(random, sentences)))
        return Task((("system", "You are a helpful assistant."), *turns, ("user", last.prompt)), last.answer)

    def continued(random: Random, *, anywhere: bool) -> Task:
        exchange = random.choice((known(random, ["talk", "concept"]), repeat_task(random, sentences)))
        spaces = [i for i, letter in enumerate(exchange.answer) if letter == " "]
        cut = random.randrange(len(exchange.answer)) if anywhere or not spaces else random.choice(spaces)
        return Task((("user", exchange.prompt),), exchange.answer[cut:], exchange.answer[:cut])

    def sourced(random: Random, most: int, *, present: bool, in_system: bool = False) -> Task:
        while True:
            task = source_task(random, most)
            if (task.exchanges[0].answer != NOT_IN_SOURCES) == present:
                break
        if in_system:
            return Task((("system", task.sources), ("user", task.exchanges[0].prompt)), task.exchanges[0].answer)
        return asked(as_user_prompt(task, random))

    yield "facts", draw(lambda r: asked(known(r, ["capital", "colour", "order", "word", "count", "list"])))
    yield "sums", draw(lambda r: asked(known(r, ["sum"])))
    yield "concepts", draw(lambda r: asked(known(r, ["concept"])))
    yield "talk", draw(lambda r: asked(known(r, ["talk"])))
    yield "repeat", draw(lambda r: asked(repeat_task(r, sentences)))
    yield "refuse", draw(lambda r: asked(_refusal(r)))
    yield "continue at a word", draw(lambda r: continued(r, anywhere=False))
    yield "continue anywhere", draw(lambda r: continued(r, anywhere=True))
    yield "after other turns", draw(after_others)
    yield "sources, 1-3", draw(lambda r: sourced(r, 3, present=True))
    yield "sources, 1-8", draw(lambda r: sourced(r, 8, present=True))
    yield "sources, 1-18", draw(lambda r: sourced(r, 18, present=True))
    yield "sources in system", draw(lambda r: sourced(r, 4, present=True, in_system=True))
    yield "not in sources", draw(lambda r: sourced(r, 4, present=False))
    yield "sources by hand", list(_by_hand(NAMED_SOURCES))
    yield "sources, unseen", list(_by_hand(UNSEEN_SOURCES))
    questions = (f"What is the capital of {country}?" for country in UNSEEN_COUNTRIES)
    yield "capitals, unseen", [asked(Exchange(question, REFUSAL)) for question in questions]


def _refusal(random: Random) -> Exchange:
    task = refuse_task(random)
    return Exchange(styled(task.prompt, random), task.answer)


def _by_hand(sources: Sequence[tuple[str, str]]) -> Iterator[Task]:
    """Each window of three neighbouring sources, asked for each of the three."""
    for start in range(len(sources)):
        chosen = [sources[(start + i) % len(sources)] for i in range(3)]
        lines = "\n".join(f"[{n}] {text}" for n, (text, _) in enumerate(chosen, 1))
        for text, question in chosen:
            yield Task((("user", f"Sources:\n{lines}\n\nQuestion: {question}"),), text)


def main() -> None:
    """Print one row per skill, and some wrong answers with --wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--tasks", type=int, default=100)
    parser.add_argument("--wrong", action="store_true")
    options = parser.parse_args()
    for score in evaluate(options.model, options.tasks):
        print(f"{score.skill:20} {score.right:4} of {score.asked}")
        for prompt, expected, got in score.wrong if options.wrong else ():
            print(f"    asked    {prompt!r}\n    expected {expected!r}\n    got      {got!r}")


if __name__ == "__main__":
    main()
