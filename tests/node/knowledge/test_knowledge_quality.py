"""Search finds what answers, with the bundled embedding model and real documents: the floor below which it must not fall.

The questions are the test half of those about a part of the collection of benchmarks.retrieval; benchmarks.knowledge asks all.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.retrieval.baselines import first, okapi
from benchmarks.retrieval.collection import Collection, Question, Wanted, covers, own, written
from benchmarks.retrieval.measures import Hit, Scores, judge, mean
from benchmarks.retrieval.product import bundled_embedder, loaded, ranked
from ryvion_node.knowledge.chunking import cut
from ryvion_node.knowledge.progress import embedded_text
from ryvion_node.knowledge.reading.document import read_document


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    """Real time: a worker process makes the vectors."""
    return "trio", {}


def a_part() -> Collection:
    """A third of the documents that were written by hand, and the questions about them of the test half."""
    whole = written()
    documents = whole.documents[::3]
    names = {document.filename for document in documents}
    questions = [one for one in whole.questions if one.half == "test" and one.wanted[0].filename in names]
    return replace(whole, documents=documents, questions=tuple(questions))


async def test_hybrid_search_loses_to_neither_part_and_words_not_to_a_plain_bm25(tmp_path: Path) -> None:
    collection = a_part()
    found: dict[str, Scores] = {}
    async with bundled_embedder() as embedder, loaded(collection, embedder, tmp_path) as there:
        for method, search in there.searches().items():
            judged = []
            for question in collection.questions:
                ten = await ranked(search, there.base, question.text, 10)
                judged.append(judge(question, await ranked(search, there.base, question.text, 5), ten))
            found[method] = mean(judged)
    plain = _plain(collection)
    assert found["hybrid"].recall5 >= max(found["bm25"].recall5, found["vector"].recall5)
    # A vector differs a little by what else is in its step (ADR 0012).
    assert found["hybrid"].ndcg10 >= max(found["bm25"].ndcg10, found["vector"].ndcg10) - 0.005
    assert found["bm25"].recall5 >= plain.recall5 and found["bm25"].ndcg10 >= plain.ndcg10
    assert found["bm25"].recall5 >= 0.5 and found["vector"].recall5 >= 0.15


def _plain(collection: Collection) -> Scores:
    chunks = [
        (one.filename, chunk) for one in collection.documents for chunk in cut(read_document(one.data, one.filename))
    ]
    scoring = okapi([embedded_text(chunk.headings, chunk.text) for _, chunk in chunks])
    hits = [Hit(filename, chunk.text) for filename, chunk in chunks]
    best = [[hits[place] for place in first(scoring(question.text), 10)] for question in collection.questions]
    return mean([judge(question, ten, ten) for question, ten in zip(collection.questions, best, strict=True)])


def test_every_passage_is_in_a_chunk_of_its_document() -> None:
    collection = own()
    assert len(collection.documents) >= 300 and len(collection.questions) >= 200
    assert len({document.filename for document in collection.documents}) == len(collection.documents)
    assert collection == own()
    read = {one.filename: cut(read_document(one.data, one.filename)) for one in collection.documents}
    lost = [
        wanted.passage
        for question in collection.questions
        for wanted in question.wanted
        if not any(covers(wanted.passage or "", chunk.text) for chunk in read[wanted.filename])
    ]
    assert lost == []


def test_recall_counts_five_ranks_and_gains_shrink_with_the_rank() -> None:
    one, two = Wanted("a.md", "tin"), Wanted("b.md", "lead")
    hits = [
        Hit("c.md", "tin"),
        Hit("a.md", "all tin"),
        Hit("a.md", "more tin"),
        *[Hit("c.md", "x")] * 2,
        Hit("b.md", "lead"),
    ]
    score = judge(Question("?", (one, two), ""), hits, hits)
    assert score.recall5 == 0.5
    assert score.ndcg10 == pytest.approx((1 / np.log2(3) + 1 / np.log2(7)) / (1 + 1 / np.log2(3)))
    whole = Question("?", (Wanted("b.md"),), "")
    assert judge(whole, hits, hits).ndcg10 == pytest.approx(1 / np.log2(4))
