"""Room for jobs: who holds it, and what a peer that is refused is told."""

from __future__ import annotations

import pytest

from ryvion_node.engine.fake import fake_model
from ryvion_node.executor.constants import HELD_RETRY_MS, MAX_HOLDS_PER_PEER
from ryvion_node.executor.quoting import busy
from ryvion_node.executor.slots import SlotBook
from ryvion_protocol.schema import NodeKey

ALICE, BOB = NodeKey(bytes(32)), NodeKey(bytes([1]) * 32)


def held(book: SlotBook, peer: NodeKey, wanted: int) -> int:
    return sum(book.hold("a", peer) is not None for _ in range(wanted))


@pytest.mark.parametrize(("slots", "queue", "most"), [(4, 16, MAX_HOLDS_PER_PEER), (2, 2, 3), (1, 0, 1)])
def test_no_peer_holds_a_whole_node_by_quotes(slots: int, queue: int, most: int) -> None:
    book = SlotBook(queue)
    book.set_models({"a": slots})
    assert held(book, ALICE, 100) == most
    left = slots + queue - most
    assert book.is_full("a") == (left == 0)
    assert held(book, BOB, 1) == min(left, 1)


def test_an_order_makes_way_for_the_next_quote() -> None:
    book = SlotBook(16)
    book.set_models({"a": 4})
    places = [book.hold("a", ALICE) for _ in range(MAX_HOLDS_PER_PEER)]
    assert book.hold("a", ALICE) is None and places[0] is not None
    book.order(places[0])
    assert held(book, ALICE, 2) == 1


def test_a_refusal_says_whose_room_is_used_up() -> None:
    full, crowded = busy(fake_model("a"), full=True), busy(fake_model("a"), full=False)
    assert "queue" in full.message and full.retry_after_ms > 0
    assert "you hold" in crowded.message and crowded.retry_after_ms == HELD_RETRY_MS
