"""How well knowledge bases find the passage that answers a question, beside others in the same run.

Ours go the way of a user's documents: read, cut, made vectors of by the bundled model, searched. The others rank the same
chunks under the same headings. Keys are those of the test half of the repository's own collection, which no setting was
chosen by.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchmarks.retrieval import baselines
from benchmarks.retrieval.collection import Collection, Question, own
from benchmarks.retrieval.cranfield import cranfield
from benchmarks.retrieval.measures import Hit, Scores, judge, mean
from benchmarks.retrieval.product import METHODS, Loaded, bundled_embedder, loaded, ranked
from ryvion_node.knowledge.chunking import cut
from ryvion_node.knowledge.constants import MAX_RESULTS
from ryvion_node.knowledge.progress import embedded_text
from ryvion_node.knowledge.reading.document import read_document

OTHERS: Final = ("rank_bm25", "tf_idf", "exact_cosine")

Judged = dict[str, dict[Question, Scores]]
"""By what ranked."""


async def measure(folder: Path, *, quick: bool, cranfield_folder: Path | None) -> dict[str, float | int]:
    """Means by method, of the test half of the own collection; not `quick`: of the other half and of its parts as well."""
    collections = [own()] if cranfield_folder is None else [own(), cranfield(cranfield_folder)]
    results: dict[str, float | int] = {}
    async with bundled_embedder() as embedder:
        for collection in collections:
            async with loaded(collection, embedder, folder) as there:
                questions = [one for one in collection.questions if not quick or one.half == "test"]
                judged = await _ours(there, questions) | _others(collection, there, questions)
            prefix = "" if collection.name == "own" else f"{collection.name}_"
            for name, part in _parts(collection, questions):
                results[f"{prefix}questions{name}"] = len(part)
                for method, scores in judged.items():
                    score = mean([scores[question] for question in part])
                    results[f"{prefix}recall5_{method}{name}"] = round(score.recall5, 3)
                    results[f"{prefix}ndcg10_{method}{name}"] = round(score.ndcg10, 3)
    return results


async def _ours(there: Loaded, questions: list[Question]) -> Judged:
    judged: Judged = {}
    for method, search in there.searches().items():
        judged[method] = {}
        for question in questions:
            if question.wanted[0].passage is None:
                five = ten = await ranked(search, there.base, question.text, MAX_RESULTS)
            else:
                five = await ranked(search, there.base, question.text, 5)
                ten = await ranked(search, there.base, question.text, 10)
            judged[method][question] = judge(question, five, ten)
    return judged


def _others(collection: Collection, there: Loaded, questions: list[Question]) -> Judged:
    chunks = [
        (document.filename, chunk)
        for document in collection.documents
        for chunk in cut(read_document(document.data, document.filename))
    ]
    hits = [Hit(filename, chunk.text) for filename, chunk in chunks]
    texts = [embedded_text(chunk.headings, chunk.text) for _, chunk in chunks]
    vectors = there.embedder.vectors
    scorings = (baselines.okapi(texts), baselines.tf_idf(texts), baselines.cosine(texts, vectors))
    judged: Judged = {}
    for method, scoring in zip(OTHERS, scorings, strict=True):
        judged[method] = {}
        for question in questions:
            best = [hits[place] for place in baselines.first(scoring(question.text), MAX_RESULTS)]
            judged[method][question] = judge(question, best, best)
    return judged


def _parts(collection: Collection, questions: list[Question]) -> Iterator[tuple[str, list[Question]]]:
    """Those of the test half without a name, then what else there is."""
    yield "", [question for question in questions if question.half == "test"]
    if dev := [question for question in questions if question.half == "dev"]:
        yield "_dev", dev
        for kind in sorted({question.kind for question in questions}):
            if len(part := [question for question in questions if question.kind == kind]) < len(questions):
                yield f"_{kind.replace(' ', '_')}", part


def table(results: dict[str, float | int]) -> Iterator[str]:
    """The results as lines of a table, recall@5 / nDCG@10."""
    methods = (*METHODS, *OTHERS)
    yield f"{'recall@5 / nDCG@10':28}" + "".join(f"{method:>15}" for method in methods)
    for key, count in results.items():
        before, found, after = key.partition("questions")
        if found:
            cells = (
                f"{results[f'{before}{m}_{method}{after}']:.3f}" for method in methods for m in ("recall5", "ndcg10")
            )
            pairs = zip(cells, cells, strict=True)
            name = f"{before.rstrip('_') or 'own'}{after or '_test'} ({count})"
            yield f"{name:28}" + "".join(f"{' / '.join(pair):>15}" for pair in pairs)
