"""Run by the process tests: adds documents and ingests at the same time as another process does.

python -m tests.node.knowledge.adding_process FILE BASE NAME COUNT
"""

from __future__ import annotations

import sys
from pathlib import Path

import trio

from ryvion_node.knowledge.fake import WordEmbedder
from ryvion_node.knowledge.ingest import Ingest
from ryvion_node.knowledge.search import Search
from tests.node.knowledge.store_support import opened, read_here


async def main(path: Path, base: str, name: str, count: int) -> None:
    embedder = WordEmbedder()
    async with opened(path) as store, trio.open_nursery() as nursery:
        await nursery.start(Ingest(store, embedder, read=read_here).run)
        search = Search(store, embedder)
        for number in range(count):
            await store.add_document(base, f"{name} speaks of metal {number}".encode(), f"{name}-{number}.txt")
            await search.search(base, f"metal {number}")
        with trio.fail_after(40):
            while any(one.state != "ready" for one in await store.documents(base)):  # noqa: ASYNC110 - as clients do
                await trio.sleep(0.05)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
