"""Pairs of texts that mean the same or answer each other, in batches whose other pairs are easily confused with them."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Final

from tiny_model.corpus import facts
from tiny_model.corpus.exchange import styled
from tiny_model.corpus.relations import Relation, handbook, relations, subject
from tiny_model.corpus.talk import Intent, intents, table

CLUSTER_PAIRS: Final = 4
"""Pairs in a row that share a subject or a pattern: what a reader confuses, the model must learn to tell apart."""
WEIGHTS: Final = {"relation": 48, "handbook": 36, "fact": 11, "talk": 5}
FACT_KINDS: Final = ("capital", "colour", "order", "word", "concept")
FRAMES: Final = (
    "How do {}|How does {}|What is {}|What are {}|Why {}|Why is {}|When {}|When was {}|Who {}|Where is {}|Can I {}|{}|"
    "Which {}|What should I know about {}|What does {}|How long {}|How many {}|Tell me about {}"
).split("|")
"""What a question begins with whose other words are taken out of a text."""
GLUE: Final = (
    "the the the a a an of of in in on at and and or to to with for from by is are was were as that which its it not "
    "only very more you we they he she can may must has have be been so but when while until after before".split()
)
"""Words that say nothing about a text's matter."""
SYNONYM_SHARE: Final = 0.25
"""Of the words that have synonyms, those that are replaced."""
DROPPED_SHARE: Final = 0.03
"""Words of a question that are left out, as people do and so that no single word carries the meaning."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two texts of one meaning; texts of pairs with equal meanings are never used against each other."""

    left: str
    right: str
    meaning: Hashable


class Pairs:
    """The corpus, loaded once, and what is drawn from it."""

    def __init__(self) -> None:
        self._relations = relations()
        self._handbook = handbook()
        known = dict(facts.knowledge())
        self._facts = {kind: known[kind] for kind in FACT_KINDS}
        self._talk = list(intents())
        groups = [group.split() for group in table("synonyms")["groups"]]
        self._synonyms = {word: [other for other in group if other != word] for group in groups for word in group}

    def cluster(self, random: Random) -> Iterator[Pair]:
        """CLUSTER_PAIRS pairs."""
        match random.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]:
            case "relation":
                yield from self._related(random)
            case "handbook":
                yield from self._from_handbook(random)
            case "fact":
                kind = random.choice(FACT_KINDS)
                yield from self._intended(random, self._facts[kind], kind)
            case _:
                yield from self._intended(random, self._talk, "talk")

    def _related(self, random: Random) -> Iterator[Pair]:
        """One subject in several relations, or one relation of several subjects."""
        if random.random() < 0.6:
            first = random.choice(self._relations)
            others = [relation for relation in self._relations if relation.subject == first.subject]
            chosen, name = random.sample(others, CLUSTER_PAIRS), subject(first.subject, random)
            rest = [relation for relation in others if relation not in chosen]
            for relation in chosen:
                yield self._pair(relation, name, rest, random)
            return
        relation = random.choice(self._relations)
        rest = [other for other in self._relations if other.subject == relation.subject and other is not relation]
        for _ in range(CLUSTER_PAIRS):
            yield self._pair(relation, subject(relation.subject, random), rest, random)

    def _pair(self, relation: Relation, name: str, rest: list[Relation], random: Random) -> Pair:
        value = f"{relation.says[0]}|{name}"
        kind = random.random()
        asked = self._asked(random.choice(relation.asks).format(x=name), random, {*name.split()})
        if kind < 0.15:
            again = self._asked(random.choice(relation.asks).format(x=name), random, {*name.split()})
            return Pair(asked, again, value)
        said = relation.say(name, random)
        if kind < 0.3:
            sentences = [said, *(other.say(name, random) for other in random.sample(rest, random.randint(1, 3)))]
            random.shuffle(sentences)
            return Pair(asked, " ".join(sentences), value)
        return Pair(asked, said, value)

    def _from_handbook(self, random: Random) -> Iterator[Pair]:
        for entry in random.sample(self._handbook, CLUSTER_PAIRS):
            kind, said = random.random(), random.choice(entry.says)
            asked = self._asked(random.choice(entry.asks), random)
            if kind < 0.25:
                yield Pair(_gist(said, random), self._varied(said, random), entry.held)
            elif kind < 0.4:
                yield Pair(asked, self._asked(random.choice(entry.asks), random), entry.held)
            elif kind < 0.5:
                yield Pair(self._varied(entry.says[0], random), self._varied(entry.says[1], random), entry.held)
            else:
                part = random.choice(re.split(r"(?<=\.) ", said)) if random.random() < 0.15 else said
                yield Pair(asked, self._varied(part, random), entry.held)

    def _intended(self, random: Random, source: list[Intent], kind: str) -> Iterator[Pair]:
        for index in random.sample(range(len(source)), CLUSTER_PAIRS):
            intent = source[index]
            asked = styled(random.choice(intent.prompts), random)
            same = random.random() < 0.4
            other = styled(random.choice(intent.prompts), random) if same else intent.answer
            yield Pair(asked, other, (kind, intent.answer))

    def _asked(self, text: str, random: Random, kept: set[str] | None = None) -> str:
        words = [
            word
            for word in self._varied(text, random, kept).split()
            if (kept and word in kept) or random.random() > DROPPED_SHARE
        ]
        return styled(" ".join(words) or text, random)

    def _varied(self, text: str, random: Random, kept: set[str] | None = None) -> str:
        """Some words replaced by synonyms."""

        def swap(match: re.Match[str]) -> str:
            word = match.group()
            others = self._synonyms.get(word)
            if not others or (kept and word in kept) or random.random() > SYNONYM_SHARE:
                return word
            return random.choice(others)

        return re.sub(r"[A-Za-z]+", swap, text)


def _gist(text: str, random: Random) -> str:
    """A question of up to three words of a text, with small words between them."""
    words = [word for word in re.findall(r"[A-Za-z]{3,}", text) if word.lower() not in GLUE]
    chosen = random.sample(words, min(len(words), random.randint(1, 3)))
    joined = " ".join(f"{random.choice(GLUE)} {word}" if random.random() < 0.6 else word for word in chosen)
    return styled(random.choice(FRAMES).format(joined), random)
