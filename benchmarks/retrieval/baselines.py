"""What others rank, over the same chunks with the same headings: rank-bm25, tf-idf cosine, exact cosine of vectors."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from math import log
from typing import Final

import numpy as np
import numpy.typing as npt
from rank_bm25 import BM25Okapi  # type: ignore[import-untyped]

Scoring = Callable[[str], npt.NDArray[np.float64]]
"""A question to the score of each chunk, the higher the better."""
_WORD: Final = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """A plain tokenizer: runs of letters and digits, in small letters."""
    return _WORD.findall(text.lower())


def okapi(texts: Sequence[str]) -> Scoring:
    """BM25 of the package rank-bm25 with its defaults."""
    index = BM25Okapi([words(text) for text in texts])
    return lambda question: np.asarray(index.get_scores(words(question)))


def tf_idf(texts: Sequence[str]) -> Scoring:
    """Cosine between counts of words, rare ones counting more."""
    bags = [Counter(words(text)) for text in texts]
    seen = Counter(word for bag in bags for word in bag)
    columns = {word: column for column, word in enumerate(seen)}
    weights = np.array([log((1 + len(texts)) / (1 + count)) + 1 for count in seen.values()])

    def row(bag: Counter[str]) -> npt.NDArray[np.float32]:
        values = np.zeros(len(columns), np.float32)
        for word, count in bag.items():
            if word in columns:
                values[columns[word]] = count * weights[columns[word]]
        return values / max(float(np.linalg.norm(values)), 1e-9)

    matrix = np.array([row(bag) for bag in bags])
    return lambda question: (matrix @ row(Counter(words(question)))).astype(np.float64)


def cosine(texts: Sequence[str], vectors: dict[str, bytes]) -> Scoring:
    """Exact cosine of an embedding model's vectors."""
    matrix = np.array([np.frombuffer(vectors[text], "<f4") for text in texts])
    return lambda question: (matrix @ np.frombuffer(vectors[question.strip()], "<f4")).astype(np.float64)


def first(scores: npt.NDArray[np.float64], count: int) -> list[int]:
    """The best chunks in order; equal ones as they stand in the documents."""
    return [int(place) for place in np.argsort(-scores, kind="stable")[:count]]
