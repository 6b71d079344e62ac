"""An aiosqlite connection that runs a whole piece of work on its thread in one go.

aiosqlite hands every statement to the connection's thread and back, 0.2 ms each time and several on a busy
machine; a transaction has six or more. `run` pays that once. It uses the two members that aiosqlite's own
methods are made of; the version is pinned, and the ledger's tests would notice a change.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import aiosqlite

T = TypeVar("T")
_ROWS_AT_ONCE: Final = 64


class LedgerConnection(aiosqlite.Connection):
    """For asyncio code. Leaves transactions to its user."""

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Call `work` with the plain connection, on its thread; pieces of work never overlap."""
        result: T = await self._execute(work, self._conn)  # type: ignore[no-untyped-call]
        return result


async def connect(path: Path, pragmas: Iterable[str]) -> LedgerConnection:
    """Open `path` and set `pragmas`; raises sqlite3.Error with nothing left open."""
    db = LedgerConnection(partial(sqlite3.connect, path, isolation_level=None), _ROWS_AT_ONCE)
    _ = await db  # starts the thread and opens the file
    try:
        for pragma in pragmas:
            await db.execute(pragma)
    except BaseException:
        await db.close()
        raise
    return db
