"""Whom a caller wants to buy from, beyond the model's name: pure values, and how two sets of them combine.

A key may have preferences of its own; a request may narrow them, never widen (`within`). Everything but `sort` is a
hard limit that fails closed: an offer that does not say what is asked for falls out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeVar, get_args

from ryvion_protocol.schema import NodeKey

T = TypeVar("T")

Sort = Literal["balanced", "price", "latency"]
"""What bids are ranked by."""
Assurance = Literal["signed", "count-checked"]
"""How well the bill of a job can be checked, weakest first.

`signed`: the receipt's signature and hash; tokens only against a bound from bytes. `count-checked`: this node has the
model's own vocabulary, the executor promises to count with it, and the units are recounted.
"""
KnowledgeAssurance = Literal["signed", "count-checked", "never"]
"""Which nodes may get passages of knowledge bases: those whose bills have that assurance, or none."""

OWNER_KEY_ID: Final = "control"
"""Stands where an API key's id stands, for what the node's owner does on the command line."""

SORTS: Final[tuple[Sort, ...]] = get_args(Sort)
ASSURANCES: Final[tuple[Assurance, ...]] = get_args(Assurance)
KNOWLEDGE_ASSURANCES: Final[tuple[KnowledgeAssurance, ...]] = get_args(KnowledgeAssurance)


@dataclass(frozen=True, slots=True)
class Preferences:
    """Each limit None: anything goes. An empty set lets nobody through."""

    sort: Sort | None = None
    """None: `balanced`, unless a wider set of preferences says otherwise."""
    max_price: int | None = None
    """Micro-credits for the whole answer."""
    allow: frozenset[NodeKey] | None = None
    """Only these nodes."""
    deny: frozenset[NodeKey] = frozenset()
    """None of these."""
    digests: frozenset[bytes] | None = None
    """Only these files: their SHA-256."""
    quantisations: frozenset[str] | None = None
    """Only these, in upper case, as offers name them: `Q4_K_M`."""
    min_assurance: Assurance = "signed"

    @property
    def ranking(self) -> Sort:
        """What bids are ranked by."""
        return self.sort or "balanced"

    def within(self, outer: Preferences) -> Preferences:
        """These under the limits of `outer`: whatever passes both, sorted as these say, else as `outer` says."""
        prices = [price for price in (self.max_price, outer.max_price) if price is not None]
        return Preferences(
            sort=self.sort or outer.sort,
            max_price=min(prices, default=None),
            allow=_both(self.allow, outer.allow),
            deny=self.deny | outer.deny,
            digests=_both(self.digests, outer.digests),
            quantisations=_both(self.quantisations, outer.quantisations),
            min_assurance=max(self.min_assurance, outer.min_assurance, key=ASSURANCES.index),
        )


ANY_OFFER: Final = Preferences()


def _both(one: frozenset[T] | None, other: frozenset[T] | None) -> frozenset[T] | None:
    if one is None or other is None:
        return one if other is None else other
    return one & other
