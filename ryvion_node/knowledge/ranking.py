"""How two rankings become one, and which of its passages are worth showing (pure)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar


@dataclass(frozen=True, slots=True)
class Tuning:
    """Everything that decides what a search ranks first."""

    candidates: int = 50
    """Taken from each ranking."""
    rank_constant: int = 20
    """k of reciprocal rank fusion, 1 / (k + rank): Cormack, Clarke and Buettcher, SIGIR 2009."""
    text_weight: float = 1.0
    vector_weight: float = 1.0
    """Where both rankings agree in full; it falls in a line to none where they agree as little as by accident."""
    agreement_depth: int = 10
    """The best of each ranking that are looked at to see how far both agree."""
    accidental_agreement: float = 0.5
    """In common: no question in two hundred has more where vectors mean little, a quarter of them where they are good."""
    headings_weight: float = 2.0
    """Of a word in the headings above a passage, where one in the passage counts 1."""
    document_share: float = 0.8
    """Of the results may be of one document, as long as others have something to say."""
    near_duplicate: float = 0.8
    """Passages that share so much of their words, or of their span, say the same."""


DEFAULT_TUNING: Final = Tuning()


class Candidate(Protocol):
    """A passage as far as choosing needs to know it."""

    @property
    def document(self) -> int: ...

    @property
    def start(self) -> int: ...

    @property
    def end(self) -> int: ...

    @property
    def text(self) -> str: ...


C = TypeVar("C", bound=Candidate)
_WORD: Final = re.compile(r"\w+")
_FILLS_UP: Final = 1e-3
"""The weight of vectors that nothing confirms: they tell equal passages apart, and come where words find nothing."""


def affordable_words(frequencies: Mapping[str, int], max_postings: int) -> tuple[str, ...]:
    """The words to search by: those that are anywhere, rarest first, as long as what they occur in is not too much.

    The rarest is always among them. What is left out says least: BM25 weighs a word by its rarity.
    """
    chosen: list[str] = []
    room = max_postings
    for word, frequency in sorted(frequencies.items(), key=lambda item: (item[1], item[0])):
        if frequency and (not chosen or frequency <= room):
            chosen.append(word)
            room -= frequency
    return tuple(chosen)


def fuse(
    text: Sequence[tuple[int, float]], vector: Sequence[int], tuning: Tuning = DEFAULT_TUNING
) -> list[tuple[int, float]]:
    """One ranking of two, best first: (passage, score). `text` has the scores of BM25, of `vector` the order is enough.

    Reciprocal rank fusion with two changes. Words count by their score as a share of the best one's, since a passage that
    is far ahead by its words must not fall behind because of one place. And vectors count for as much as words confirm
    them: nobody knows how well a model does on the owner's documents, and one that does badly ranks others first than the
    words do, where one that does well finds much of the same.
    """
    agreed = agreement([number for number, _ in text], vector, tuning.agreement_depth)
    beyond_accident = (agreed - tuning.accidental_agreement) / (1 - tuning.accidental_agreement)
    vector_weight = tuning.vector_weight * max(_FILLS_UP, beyond_accident)
    best = text[0][1] if text else 1.0
    scores = {number: tuning.text_weight * score / best for number, score in text}
    for rank, number in enumerate(vector, start=1):
        share = (tuning.rank_constant + 1) / (tuning.rank_constant + rank)
        scores[number] = scores.get(number, 0.0) + vector_weight * share
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))


def agreement(text: Sequence[int], vector: Sequence[int], depth: int) -> float:
    """0 .. 1: the share that both rankings have in common, of their best or of all, whichever is smaller.

    Of a few passages only a tenth are taken for the best: all of them are in both rankings.
    """
    depth = min(depth, max(1, math.ceil(len({*text, *vector}) / 10)))
    of_best = len({*text[:depth]} & {*vector[:depth]}) / depth
    of_all = len({*text} & {*vector}) / max(1, min(len(text), len(vector)))
    return min(of_best, of_all)


def diverse(candidates: Sequence[C], limit: int, tuning: Tuning = DEFAULT_TUNING) -> list[C]:
    """The first `limit` worth showing, in their order.

    What says the same as a better one, and what would give one document too large a share, only fills up.
    """
    most = max(1, math.ceil(limit * tuning.document_share))
    chosen: list[int] = []
    words: dict[int, frozenset[str]] = {}
    of_document: dict[int, int] = {}
    for place, candidate in enumerate(candidates):
        if len(chosen) == limit:
            break
        words[place] = frozenset(_WORD.findall(candidate.text.casefold()))
        if of_document.get(candidate.document, 0) >= most:
            continue
        if any(_alike(candidate, words[place], candidates[other], words[other], tuning) for other in chosen):
            continue
        chosen.append(place)
        of_document[candidate.document] = of_document.get(candidate.document, 0) + 1
    spare = [place for place in range(len(candidates)) if place not in set(chosen)]
    return [candidates[place] for place in sorted(chosen + spare[: limit - len(chosen)])]


def _alike(one: C, words: frozenset[str], other: C, others: frozenset[str], tuning: Tuning) -> bool:
    """Do both say the same?"""
    if one.document == other.document:
        shared = min(one.end, other.end) - max(one.start, other.start)
        if shared >= tuning.near_duplicate * min(one.end - one.start, other.end - other.start):
            return True
    union = len(words | others)
    return union > 0 and len(words & others) >= tuning.near_duplicate * union
