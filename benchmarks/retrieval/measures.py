"""How well a ranking finds what answers a question: recall@5 and nDCG@10."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import log2
from typing import Final

from benchmarks.retrieval.collection import Question, Wanted, covers

RECALL_RANKS: Final = 5
NDCG_RANKS: Final = 10


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that a ranking gives."""

    filename: str
    text: str


@dataclass(frozen=True, slots=True)
class Scores:
    """0 .. 1, of one question or the mean of many."""

    recall5: float
    ndcg10: float


def judge(question: Question, for_recall: Iterable[Hit], for_ndcg: Iterable[Hit]) -> Scores:
    """Recall of the wanted among the first RECALL_RANKS, and nDCG with gain 1 where a rank brings something wanted first.

    Where whole documents are wanted, documents are ranked, each at its best chunk.
    """
    first = _gains(question, for_recall)[:RECALL_RANKS]
    gains = _gains(question, for_ndcg)[:NDCG_RANKS]
    best = sum(1 / log2(rank + 2) for rank in range(min(NDCG_RANKS, len(question.wanted))))
    return Scores(
        sum(first) / len(question.wanted), sum(gain / log2(rank + 2) for rank, gain in enumerate(gains)) / best
    )


def mean(scores: Sequence[Scores]) -> Scores:
    """Of at least one question."""
    count = len(scores)
    return Scores(sum(score.recall5 for score in scores) / count, sum(score.ndcg10 for score in scores) / count)


def _gains(question: Question, hits: Iterable[Hit]) -> list[int]:
    """How many of the wanted each rank brings for the first time."""
    if question.wanted[0].passage is None:
        hits = _documents(hits)
    open_ = list(question.wanted)
    gains = []
    for hit in hits:
        found = [wanted for wanted in open_ if _answers(hit, wanted)]
        open_ = [wanted for wanted in open_ if wanted not in found]
        gains.append(len(found))
    return gains


def _documents(hits: Iterable[Hit]) -> Iterator[Hit]:
    seen = set[str]()
    for hit in hits:
        if hit.filename not in seen:
            seen.add(hit.filename)
            yield hit


def _answers(hit: Hit, wanted: Wanted) -> bool:
    return hit.filename == wanted.filename and (wanted.passage is None or covers(wanted.passage, hit.text))
