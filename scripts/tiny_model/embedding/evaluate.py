"""Measures an embedding model's GGUF file in llama.cpp: what it finds, against counting words, and how fast it reads."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import trio

from ryvion_node.engine.interface import ModelSpec
from ryvion_node.engine.llama_engine import LlamaEngine
from tiny_model.embedding.retrieval import Matrix, bag_of_words, by_vectors, collections, measure


def main() -> None:
    """Print a table, the speed, and with --weights how far llama.cpp is from the network that was trained."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--weights", type=Path, help="the checkpoint that the file was made of")
    options = parser.parse_args()
    every = collections()
    texts = [text for collection in every for text in (*collection.questions, *collection.texts)]
    vectors, seconds, tokens = trio.run(_read, options.model, options.threads, texts)
    known = dict(zip(texts, vectors, strict=True))
    print("| questions | | model | words | words, rare ones count more |\n|---|---|---|---|---|")
    for collection in every:
        model = by_vectors(collection, lambda texts: np.array([known[text] for text in texts]))
        rankings = (model, bag_of_words(collection, weighted=False), bag_of_words(collection, weighted=True))
        found = [measure(collection, ranking) for ranking in rankings]
        print(f"| {collection.name} | recall@1 | " + " | ".join(f"{one.recall_1:.2f}" for one in found) + " |")
        print("| | nDCG@10 | " + " | ".join(f"{one.ndcg:.2f}" for one in found) + " |")
    print(f"{len(texts)} texts of {tokens / len(texts):.0f} tokens: {len(texts) / seconds:.0f} texts/s")
    if options.weights:
        _compare(options.model, options.weights, texts, vectors)


async def _read(model: Path, threads: int, texts: list[str]) -> tuple[Matrix, float, int]:
    """Vectors, seconds and tokens."""
    engine = LlamaEngine([ModelSpec("model", model, threads=threads)])
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        await engine.settled()
        started_s = time.perf_counter()
        result = await engine.embed("model", texts)
        seconds = time.perf_counter() - started_s
        nursery.cancel_scope.cancel()
    vectors = np.array([np.frombuffer(vector, "<f4") for vector in result.vectors], np.float64)
    return vectors, seconds, sum(result.tokens)


def _compare(model: Path, weights: Path, texts: list[str], vectors: Matrix) -> None:
    """Vectors of the trained network beside those of the file."""
    import torch

    from tiny_model.embedding.training import Tokens, embed, load
    from tiny_model.vocabulary import read_vocabulary

    with torch.no_grad():
        trained = embed(load(weights), Tokens(read_vocabulary(model)), texts).numpy()
    cosines = (trained * vectors).sum(1)
    print(f"cosine to the trained network's vectors: least {cosines.min():.5f}, mean {cosines.mean():.5f}")


if __name__ == "__main__":
    main()
