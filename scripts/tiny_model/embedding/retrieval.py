"""Held-out questions with the texts that answer them among others, and how well a ranking finds those."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from math import log, log2
from random import Random
from typing import Final

import numpy as np
import numpy.typing as npt

from tiny_model.corpus.relations import handbook, relations, subject

Matrix = npt.NDArray[np.float64]
SEED: Final = 20_250
"""Other names and numbers than any training draws with its small seeds."""
SUBJECTS: Final = 20
"""Of each kind."""
SAID_OF_EACH: Final = 5
CUT: Final = 10
"""Ranks that nDCG looks at."""


@dataclass(frozen=True, slots=True)
class Collection:
    """Questions and texts; `answers` names the texts that answer each question."""

    name: str
    questions: tuple[str, ...]
    texts: tuple[str, ...]
    answers: tuple[frozenset[int], ...]


@dataclass(frozen=True, slots=True)
class Found:
    """How good a ranking is: share of questions with an answer on top, and nDCG at CUT."""

    recall_1: float
    ndcg: float


def collections() -> tuple[Collection, ...]:
    """From what was trained with other names to what no training came near."""
    return (
        _related("new names, known questions", held=False),
        _related("new names, new questions", held=True),
        _handbook(),
        _unseen(),
    )


def measure(collection: Collection, scores: Matrix) -> Found:
    """Scores (questions, texts), the higher the nearer."""
    hits, gains = 0, 0.0
    for row, answers in zip(scores, collection.answers, strict=True):
        ranked = np.argsort(-row, kind="stable")
        hits += int(ranked[0]) in answers
        gain = sum(1 / log2(rank + 2) for rank, text in enumerate(ranked[:CUT]) if int(text) in answers)
        gains += gain / sum(1 / log2(rank + 2) for rank in range(min(CUT, len(answers))))
    return Found(hits / len(scores), gains / len(scores))


def bag_of_words(collection: Collection, *, weighted: bool) -> Matrix:
    """Cosine between counts of small-letter words; `weighted` by how rare a word is among the texts (tf-idf)."""
    texts = [Counter(_words(text)) for text in collection.texts]
    seen = Counter(word for text in texts for word in text)

    def weight(word: str) -> float:
        return log((1 + len(texts)) / (1 + seen[word])) + 1 if weighted else 1.0

    columns = {word: column for column, word in enumerate(seen)}

    def rows(bags: Sequence[Counter[str]]) -> Matrix:
        matrix = np.zeros((len(bags), len(columns)))
        for row, bag in zip(matrix, bags, strict=True):
            for word, count in bag.items():
                if word in columns:
                    row[columns[word]] = count * weight(word)
        return matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-9)

    asked = [Counter(_words(question)) for question in collection.questions]
    product: Matrix = rows(asked) @ rows(texts).T
    return product


def by_vectors(collection: Collection, embed: Callable[[Sequence[str]], Matrix]) -> Matrix:
    """Cosine between unit vectors."""
    product: Matrix = embed(collection.questions) @ embed(collection.texts).T
    return product


def _related(name: str, *, held: bool) -> Collection:
    """Five things about each of sixty invented subjects: the subject alone or the relation alone finds nothing."""
    random, every = Random(SEED), relations()
    questions, texts = [], []
    for kind in ("place", "person", "noun"):
        fitting = [relation for relation in every if relation.subject == kind]
        for _ in range(SUBJECTS):
            named = subject(kind, random)
            for relation in random.sample(fitting, SAID_OF_EACH):
                asked = relation.held if held else random.choice(relation.asks)
                questions.append(asked.format(x=named) + "?")
                texts.append(relation.say(named, random))
    return Collection(name, tuple(questions), tuple(texts), tuple(frozenset({i}) for i in range(len(texts))))


def _handbook() -> Collection:
    entries = handbook()
    texts = [text for entry in entries for text in entry.says]
    answers = tuple(frozenset({2 * i, 2 * i + 1}) for i in range(len(entries)))
    return Collection("handbook, new questions", tuple(e.held + "?" for e in entries), tuple(texts), answers)


def _unseen() -> Collection:
    rows = tomllib.loads((files(__package__) / "unseen.toml").read_text(encoding="utf-8"))["case"]
    answers = tuple(frozenset({i}) for i in range(len(rows)))
    return Collection("unknown topics", tuple(r["ask"] for r in rows), tuple(r["say"] for r in rows), answers)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
