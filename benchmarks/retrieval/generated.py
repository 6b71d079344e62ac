"""Documents and questions made of families.toml: always the same ones, many that are easily confused with each other."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from importlib.resources import files
from random import Random
from typing import Any, Final

from benchmarks.retrieval.collection import Document, Question, Wanted

SEED: Final = 1
TOPIC_SHARE: Final = 0.75
"""Of a family's topics that a document speaks of."""
QUESTION_SHARE: Final = 0.8
"""Of the documents that a question is asked about."""


def generated() -> Iterator[tuple[Document, tuple[Question, ...]]]:
    """Each document with the question about it, if there is one."""
    random = Random(SEED)
    for family in tomllib.loads(files("benchmarks.retrieval").joinpath("families.toml").read_text("utf-8"))["family"]:
        names = [_joined(first, second) for first in family["first"] for second in family["second"]]
        for number, name in enumerate(random.sample(names, family["documents"])):
            yield _document(family, number, name, random)


def _joined(first: str, second: str) -> str:
    return first + second if second.startswith(".") else f"{first} {second}"


def _document(family: dict[str, Any], number: int, name: str, random: Random) -> tuple[Document, tuple[Question, ...]]:
    topics = family["topic"]
    chosen = random.sample(topics, max(2, round(TOPIC_SHARE * len(topics))))
    sections, asked = [f"# {random.choice(family['title']).format(name=name)}"], []
    filename = f"{family['folder']}/{number:03}.md"
    for topic in chosen:
        drawn = {slot: random.choice(topic[slot]) for slot in "abc" if slot in topic}
        drawn = {
            slot: str(random.randint(100, 999) * 1000 + number) if value == "#" else value
            for slot, value in drawn.items()
        }
        said = random.choice(topic["says"]).format(name=name, **drawn)
        said = said[0].upper() + said[1:]
        sentences = random.sample(topic["around"], random.randint(1, len(topic["around"])))
        sentences.insert(random.randint(0, len(sentences)), said)
        sections.append(f"## {topic['heading']}\n\n{' '.join(sentences)}")
        question = random.choice(topic["asks"]).format(name=name, **drawn)
        asked.append(Question(question, (Wanted(filename, said),), topic.get("kind", "other words")))
    questions = (random.choice(asked),) if random.random() < QUESTION_SHARE else ()
    return Document(filename, "\n\n".join(sections).encode()), questions
