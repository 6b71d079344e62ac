"""Processes that are killed while they ingest, and two that write to one file at once."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

from ryvion_node.knowledge.fake import WordEmbedder
from ryvion_node.knowledge.search import Search
from ryvion_node.knowledge.store import KnowledgeStore
from tests.node.knowledge.store_support import opened, table_sizes

ROOT = Path(__file__).parents[3]


def started(module: str, *arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", f"tests.node.knowledge.{module}", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, env={"PYTHONPATH": f"{ROOT}:{ROOT / 'protocol'}"})


def ended(process: subprocess.Popen[bytes]) -> int:
    with process:
        return process.wait(timeout=50)


async def prepare(path: Path) -> str:
    """One old version that is ready, and four files to come, one of them its new version."""
    async with opened(path) as store:
        base = (await store.create_knowledge_base("b")).id
        await store.add_document(base, b"tin was ancient", "tin.txt")
    assert ended(started("dying_ingest", path, 0, "-")) == 0
    async with opened(path) as store:
        for name in ("tin", "lead", "zinc"):
            text = "\n\n".join(f"# {name} {number}\n\n{name} is sold at {number} euros." for number in range(3))
            await store.add_document(base, text.encode(), f"{name}.txt")
        await store.add_document(base, b"\0\1", "broken.bin")
    return base


async def whole(store: KnowledgeStore, base: str) -> None:
    """Everything is there once, and nothing that belongs to nobody."""
    documents = await store.documents(base)
    states = {one.filename: one.state for one in documents if one.filename != "broken.bin"}
    assert Counter(one.filename for one in documents).most_common(1)[0][1] == 1
    assert set(states.values()) == {"ready"} and len(states) == 3
    chunks = sum(one.chunks for one in documents)
    assert chunks == sum(one.embedded for one in documents) >= 3
    sizes = await table_sizes(store)
    assert (sizes["uploads"], sizes["chunks"], sizes["embeddings"]) == (0, chunks, chunks)
    assert await store.find_damage() is None
    found = await Search(store, WordEmbedder()).search(base, "tin", limit=10)
    assert found.method == "hybrid" and not any("ancient" in passage.chunk.text for passage in found.passages)


async def test_an_ingest_that_is_killed_again_and_again_comes_to_the_same_end(tmp_path: Path) -> None:
    path = tmp_path / "home" / "knowledge.db"
    base = await prepare(path)
    killed = 0
    for write in range(1, 12):
        for when in ("before", "after"):
            status = ended(started("dying_ingest", path, write, when))
            assert status in (0, -signal.SIGKILL)
            killed += status != 0
            async with opened(path) as store:
                assert await store.find_damage() is None
                assert (await Search(store, WordEmbedder()).search(base, "tin")).passages
        if status == 0:
            break
    assert killed >= 8
    assert ended(started("dying_ingest", path, 0, "-")) == 0
    async with opened(path) as store:
        await whole(store, base)
        (broken,) = [one for one in await store.documents(base) if one.filename == "broken.bin"]
        assert broken.state == "failed"


async def test_two_processes_write_to_one_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "home" / "knowledge.db"
    async with opened(path) as store:
        base = (await store.create_knowledge_base("b")).id
    both = [started("adding_process", path, base, name, 12) for name in ("one", "two")]
    assert [ended(process) for process in both] == [0, 0]
    async with opened(path) as store:
        documents = await store.documents(base)
        assert len({one.filename for one in documents}) == len(documents) == 24
        assert {(one.state, one.chunks, one.embedded) for one in documents} == {("ready", 1, 1)}
        assert await store.find_damage() is None


def test_two_processes_create_the_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "home" / "knowledge.db"
    both = [started("dying_ingest", path, 0, "-") for _ in range(2)]
    assert [ended(process) for process in both] == [0, 0]
