"""How fast knowledge bases take documents in and find passages, by size: text with the word statistics of a language,
vectors that cost nothing to make.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import trio

from ryvion_node.knowledge.ingest import Ingest
from ryvion_node.knowledge.interface import DocumentText, Origin, Vectors
from ryvion_node.knowledge.reading.document import read_document
from ryvion_node.knowledge.reading.process import open_readers
from ryvion_node.knowledge.search import Search
from ryvion_node.knowledge.store import KnowledgeStore, open_store
from ryvion_node.knowledge.vectors import packed

MODEL = b"\x07" * 32
VOCABULARY = 40_000
DOCUMENT_CHARS = 400_000
"""About 580 passages, a book of 200 pages."""
SENTENCES = 80_000
"""Made in advance: drawing words one by one takes longer than indexing them."""
SENTENCE_WORDS = 14
QUERY_WORDS = 8
"""In a row out of a passage: frequent and rare ones as in a question."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure."""

    dimensions: tuple[int, ...]
    sizes: tuple[int, ...]
    """In passages."""
    searches: int
    files: int
    """Read by the real reader, in processes of their own."""


QUICK = Plan(dimensions=(160,), sizes=(1_000, 10_000, 100_000), searches=60, files=4)
FULL = Plan(dimensions=(160, 384), sizes=(1_000, 10_000, 100_000), searches=400, files=24)


class Writer:
    """Writes texts whose words are as frequent as in a language (Zipf), with headings and sentences."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        starts, ends = "b br d dr f g gr k l m n p pl r s st t tr v w".split(), "a e i o u ar en is on ut".split()
        syllables = [start + end for start in starts for end in ends]
        words = {"".join(self._random.choices(syllables, k=1 + number % 4)) for number in range(2 * VOCABULARY)}
        self._words = sorted(words, key=lambda word: (len(word), word))[:VOCABULARY]
        weights = list(itertools.accumulate(1 / (rank + 2.7) for rank in range(len(self._words))))
        picked = self._random.choices(self._words, cum_weights=weights, k=SENTENCES * SENTENCE_WORDS)
        rows = zip(*[iter(picked)] * SENTENCE_WORDS, strict=True)
        self._sentences = [f"{' '.join(row).capitalize()}. " for row in rows]

    def document(self, chars: int) -> str:
        """Markdown of about so many characters."""
        parts: list[str] = []
        length = 0
        while length < chars:
            title, *sentences = self._random.choices(self._sentences, k=41)
            parts.append(f"## {' '.join(title.split()[:4])}\n\n{''.join(sentences)}\n\n")
            length += len(parts[-1])
        return "".join(parts)

    def query(self, text: str) -> str:
        """Some words in a row."""
        words = text.split()
        first = self._random.randrange(max(1, len(words) - QUERY_WORDS))
        return " ".join(words[first : first + QUERY_WORDS])


class FreeEmbedder:
    """Unit vectors without any meaning, each of its own: turned versions of a few random ones."""

    def __init__(self, dimensions: int) -> None:
        source = random.Random(dimensions)
        rows = [[source.gauss(0.0, 1.0) for _ in range(dimensions)] for _ in range(512)]
        lengths = [sum(number * number for number in row) ** 0.5 for row in rows]
        self._rows = [packed([[number / length for number in row]]) for row, length in zip(rows, lengths, strict=True)]
        self._dimensions = dimensions
        self._made = 0

    async def embed(self, texts: Sequence[str], origin: Origin, model: bytes | None) -> Vectors:
        return Vectors(MODEL, self._dimensions, b"".join(self._next() for _ in texts))

    def _next(self) -> bytes:
        self._made += 1
        row, turned = self._rows[self._made % len(self._rows)], 4 * (self._made // len(self._rows) % self._dimensions)
        return row[turned:] + row[:turned]


async def read_here(data: bytes, filename: str) -> DocumentText:
    """As the reader does it, without a process for each file."""
    return await trio.to_thread.run_sync(read_document, data, filename)


async def measure(plan: Plan, folder: Path) -> dict[str, Any]:
    """Everything."""
    results = await reading(plan, folder / "reading")
    for dimensions in plan.dimensions:
        results |= await growing(plan, dimensions, folder / f"growing-{dimensions}")
    slowest = max(plan.dimensions)
    results["search_p95_ms_100k"] = results.get(f"search_p95_ms_100k_{slowest}d")
    return results


async def reading(plan: Plan, folder: Path) -> dict[str, Any]:
    """From file to searchable through the real reader: MB of Markdown a second."""
    writer = Writer(1)
    files = [writer.document(DOCUMENT_CHARS).encode() for _ in range(plan.files)]
    path = folder / "knowledge.db"
    async with open_store(path) as store, open_readers() as read, trio.open_nursery() as nursery:
        base = await store.create_knowledge_base("reading")
        began = time.perf_counter()
        await nursery.start(Ingest(store, FreeEmbedder(160), read=read).run)
        await hand_in(store, base.id, files)
        took_s = time.perf_counter() - began
        nursery.cancel_scope.cancel()
    return {"ingest_mb_s": round(sum(map(len, files)) / took_s / 1e6, 2)}


async def growing(plan: Plan, dimensions: int, folder: Path) -> dict[str, Any]:
    """One knowledge base at several sizes: times of searches, memory, size of the file."""
    writer, results = Writer(2), dict[str, Any]()
    embedder = FreeEmbedder(dimensions)
    path = folder / "knowledge.db"
    async with open_store(path) as store, trio.open_nursery() as nursery:
        base = await store.create_knowledge_base("growing")
        await nursery.start(Ingest(store, embedder, read=read_here).run)
        search = Search(store, embedder)
        chunks, text = 0, ""
        for size in plan.sizes:
            before, bytes_in, began = chunks, 0, time.perf_counter()
            while chunks < size:
                text = writer.document(min(DOCUMENT_CHARS, max(2_000, (size - chunks) * 600)))
                bytes_in += len(text)
                await hand_in(store, base.id, [text.encode()])
                chunks = (await store.knowledge_base(base.id)).chunks
            added_s = time.perf_counter() - began
            cpu_began = time.process_time()
            times_ms = await searched(search, base.id, [writer.query(text) for _ in range(plan.searches)])
            name = f"{size // 1000}k_{dimensions}d"
            results[f"search_p50_ms_{name}"] = round(times_ms[len(times_ms) // 2], 1)
            results[f"search_p95_ms_{name}"] = round(times_ms[int(0.95 * (len(times_ms) - 1))], 1)
            results[f"search_cpu_ms_{name}"] = round((time.process_time() - cpu_began) * 1000 / plan.searches, 1)
            results[f"chunks_per_s_{name}"] = round((chunks - before) / added_s)
            results[f"file_mb_{name}"] = round(size_mb(path), 1)
            results[f"memory_mb_{name}"] = round(psutil.Process().memory_info().rss / 1e6)
        nursery.cancel_scope.cancel()
    return results


def size_mb(path: Path) -> float:
    """With what is not yet moved into the file."""
    log = path.with_name(f"{path.name}-wal")
    return (path.stat().st_size + (log.stat().st_size if log.exists() else 0)) / 1e6


async def hand_in(store: KnowledgeStore, base: str, files: list[bytes]) -> None:
    """Add files and wait until all of them are ready."""
    added = [await store.add_document(base, data, f"{trio.current_time()}.md") for data in files]
    for one in added:
        while (await store.document(base, one.document.id)).state != "ready":  # noqa: ASYNC110 - as clients do
            await trio.sleep(0.01)


async def searched(search: Search, base: str, queries: list[str]) -> list[float]:
    """Milliseconds of each search, one after the other, in order of size."""
    times_ms = []
    for query in queries:
        began = time.perf_counter()
        found = await search.search(base, query)
        times_ms.append((time.perf_counter() - began) * 1000)
        assert found.method == "hybrid" and found.passages
    return sorted(times_ms)
