"""Rankings become one, and what it shows says different things."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from ryvion_node.knowledge.ranking import Tuning, affordable_words, agreement, diverse, fuse

RANKINGS = st.lists(st.integers(0, 30), unique=True, max_size=20)


@dataclass(frozen=True)
class Text:
    document: int
    start: int
    end: int
    text: str


TEXTS = st.lists(
    st.builds(Text, st.integers(0, 3), st.just(0), st.just(10), st.sampled_from(["a b c", "a b c d", "e f", "g", ""])),
    max_size=12,
)


def scored(numbers: Sequence[int]) -> list[tuple[int, float]]:
    """As BM25 gives them, each a little less than the one before."""
    return [(number, 10.0 - 0.1 * place) for place, number in enumerate(numbers)]


@given(RANKINGS, RANKINGS)
def test_fusion_ranks_all_and_only_what_was_ranked(text: list[int], vector: list[int]) -> None:
    fused = fuse(scored(text), vector)
    assert {number for number, _ in fused} == {*text, *vector}
    assert [score for _, score in fused] == sorted((score for _, score in fused), reverse=True)


@given(RANKINGS)
def test_one_ranking_alone_keeps_its_order(ranking: list[int]) -> None:
    assert [number for number, _ in fuse(scored(ranking), [])] == ranking == [number for number, _ in fuse([], ranking)]


def test_a_passage_scores_its_share_of_the_best_words_and_its_reciprocal_rank() -> None:
    assert fuse([(7, 4.0), (8, 1.0)], [7, 8], Tuning(rank_constant=1)) == [(7, 2.0), (8, 0.25 + 2 / 3)]
    weighted = Tuning(rank_constant=1, text_weight=2.0, vector_weight=0.5)
    assert fuse([(7, 4.0), (8, 1.0)], [7], weighted) == [(7, 2.5), (8, 0.5)]


def test_vectors_count_for_as_much_as_words_confirm_them() -> None:
    text, strange = [*range(100, 150)], [*range(300, 350)]
    assert agreement(text, strange, 10) == 0 and [number for number, _ in fuse(scored(text), strange)][:50] == text
    confirmed = [103, 101, 102, *range(104, 130), *range(200, 221)]
    assert agreement(text, confirmed, 10) == 29 / 50
    assert [number for number, _ in fuse(scored(text), confirmed)][:3] == [101, 103, 102]


def test_a_few_best_in_common_by_accident_are_no_agreement() -> None:
    text, vector = [*range(100, 150)], [*range(100, 106), *range(300, 344)]
    assert agreement(text, vector, 10) == 6 / 50
    assert agreement(text, [*range(300, 310), *range(110, 150)], 10) == 0


def test_a_passage_that_words_find_far_ahead_stays_ahead() -> None:
    text = [(1, 9.0), *[(number, 2.0) for number in range(2, 40)]]
    half = [*range(4, 30), *range(50, 74)]
    assert agreement([number for number, _ in text], half, 10) > 0.5 and fuse(text, half)[0][0] == 1


def test_a_few_passages_are_no_agreement_because_both_rankings_have_all() -> None:
    assert agreement([1, 2, 3], [3, 2, 1], 10) == 0 and agreement([1, 2, 3], [1, 3, 2], 10) == 1
    assert agreement([], [1], 10) == agreement([], [], 10) == 0


@given(TEXTS, st.integers(1, 8))
def test_results_are_as_many_as_there_can_be_and_in_order(texts: list[Text], limit: int) -> None:
    numbered = [Text(text.document, text.start, text.end, f"{text.text}") for text in texts]
    shown = diverse(numbered, limit)
    assert len(shown) == min(limit, len(texts))
    places = [next(place for place, text in enumerate(numbered) if text is one) for one in shown]
    assert places == sorted(set(places))


def test_a_passage_that_repeats_a_better_one_makes_room_for_another() -> None:
    first, again, other = Text(1, 0, 9, "tin costs nine"), Text(2, 0, 9, "Tin costs nine!"), Text(3, 0, 9, "lead")
    assert diverse([first, again, other], 2) == [first, other]
    assert diverse([first, again], 2) == [first, again]


def test_one_document_does_not_fill_the_results_while_others_have_something() -> None:
    long = [Text(1, 100 * number, 100 * number + 90, f"word{number}") for number in range(5)]
    other = [Text(2, 0, 9, "tin"), Text(3, 0, 9, "lead")]
    assert diverse([*long, *other], 5) == [*long[:4], other[0]]
    assert diverse(long, 5) == long


def test_overlapping_spans_of_a_document_say_the_same() -> None:
    one, inside, behind = Text(1, 0, 100, "a b c d"), Text(1, 5, 95, "b c"), Text(1, 90, 190, "x y")
    assert diverse([one, inside, behind], 2) == [one, behind]


@given(st.dictionaries(st.text(min_size=1, max_size=3), st.integers(0, 100), max_size=8), st.integers(0, 150))
def test_words_are_taken_rarest_first_within_the_budget(frequencies: dict[str, int], budget: int) -> None:
    chosen = affordable_words(frequencies, budget)
    known = [frequency for frequency in frequencies.values() if frequency]
    assert bool(chosen) == bool(known)
    counts = [frequencies[word] for word in chosen]
    assert counts == sorted(counts) and 0 not in counts
    assert not counts or (counts[0] == min(known) and sum(counts[1:]) <= max(0, budget))
