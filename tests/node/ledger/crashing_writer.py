"""Run by the crash test: begins and settles jobs for ever and prints each job's number once it was acknowledged."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import trio
import trio_asyncio

from ryvion_node.ledger.store import open_ledger
from tests.node.ledger.ledger_samples import begun, settlement, ticking


async def main(path: Path) -> None:
    async with trio_asyncio.open_loop(), open_ledger(path, clock=ticking()) as ledger, trio.open_nursery() as nursery:

        async def write(first: int) -> None:
            for number in itertools.count(first, 4):
                await ledger.begin_job(begun(number))
                sys.stdout.write(f"begun {number}\n")
                sys.stdout.flush()
                await ledger.settle_bought(settlement(number))
                sys.stdout.write(f"settled {number}\n")
                sys.stdout.flush()

        for first in range(4):
            nursery.start_soon(write, first)


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]))
