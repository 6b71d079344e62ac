"""Run by the process tests: ingests into a file, and ends by SIGKILL at a given point.

    python -m tests.node.knowledge.dying_ingest FILE WRITE before|after

`WRITE` counts the transactions of this process: it dies in that one `before` it is committed, or right `after`.
0: it ingests until nothing is left to do and exits.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

import trio

from ryvion_node.knowledge import progress
from ryvion_node.knowledge.connections import Operation
from ryvion_node.knowledge.fake import WordEmbedder
from tests.node.knowledge.store_support import ingest_all, opened


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


async def main(path: Path, last: int, when: str) -> None:
    async with opened(path) as store:
        write, writes = store.connections.write, 0

        async def counted(operation: Operation[Any]) -> Any:
            nonlocal writes
            writes += 1
            if writes != last:
                return await write(operation)
            if when == "before":
                return await write(lambda db: (operation(db), die()))
            await write(operation)
            die()

        store.connections.write = counted  # type: ignore[method-assign]
        await store.connections.write(progress.resume)
        await ingest_all(store, WordEmbedder())


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
