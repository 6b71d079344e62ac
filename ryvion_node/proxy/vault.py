"""Where answers are kept for their Idempotency-Key: small sealed files in the node's private folder.

Per key a `claim`, written before anything is bought, and an `answer`. Whoever opens a vault seals what it puts in
(`proxy.sealed`), so the folder alone tells how many answers there were, when, and about how long, and nothing else.
Deleting it is safe while the node is stopped: it only makes repeated requests new ones.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Protocol

import trio

from ryvion_node.log import log_event
from ryvion_node.paths import FileMissing, make_private_folder, read_private_file, replace_private_file
from ryvion_node.proxy.constants import (
    ANSWER_LIFETIME_MS,
    MAX_ANSWERS_BYTES,
    MAX_CLAIMS,
    MAX_SEALED_BYTES,
    VAULT_SWEEP_S,
)

if TYPE_CHECKING:
    from trio_typing import TaskStatus

log = logging.getLogger("ryvion.proxy.vault")

Part = Literal["claim", "answer"]
_OURS: Final = re.compile(r"(?P<unfinished>\.)?(?P<name>[0-9a-f]+)\.(?P<part>claim|answer)(?(unfinished)\..+)")


class VaultFull(Exception):
    """No more keys can be remembered until some expire."""


class Vault(Protocol):
    """Remembers sealed bytes by name for ANSWER_LIFETIME_MS."""

    async def read(self, name: str, part: Part) -> bytes | None:
        """What was written, or None when it never was, expired, or was an answer that had to make room."""
        ...

    async def write(self, name: str, part: Part, data: bytes) -> None:
        """Keep `data`, durably when this returns; raises VaultFull for a new claim, OperatorError."""
        ...

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Open the vault, then forget what expires, until cancelled."""
        ...


class Shelf:
    """What is in a vault: sizes and ages, oldest first; decides what has to go (pure)."""

    def __init__(self) -> None:
        self._parts: dict[Part, dict[str, tuple[int, int]]] = {"claim": {}, "answer": {}}
        self._answers_bytes = 0

    def has(self, name: str, part: Part, now_ms: int) -> bool:
        """Is it there, and not expired?"""
        found = self._parts[part].get(name)
        return found is not None and now_ms - found[0] < ANSWER_LIFETIME_MS

    def put(self, name: str, part: Part, size: int, now_ms: int) -> None:
        """Note that it is there; raises VaultFull."""
        self.drop(name, part)
        if part == "claim" and len(self._parts["claim"]) >= MAX_CLAIMS:
            raise VaultFull
        self._parts[part][name] = (now_ms, size)
        self._answers_bytes += size if part == "answer" else 0

    def drop(self, name: str, part: Part) -> None:
        """Note that it is gone."""
        found = self._parts[part].pop(name, None)
        if found is not None and part == "answer":
            self._answers_bytes -= found[1]

    def surplus(self, now_ms: int) -> Iterator[tuple[str, Part]]:
        """What must go, taken off the shelf one by one: what expired, and the oldest answers beyond the bytes."""
        for part in self._parts:
            kept = self._parts[part]
            while kept:
                name, (at_ms, _) = next(iter(kept.items()))
                crowded = part == "answer" and self._answers_bytes > MAX_ANSWERS_BYTES
                if not crowded and now_ms - at_ms < ANSWER_LIFETIME_MS:
                    break
                self.drop(name, part)
                yield name, part


class FolderVault:
    """A vault in a folder of its own, which no other process may use at the same time."""

    def __init__(self, folder: Path, *, clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self._folder = folder
        self._clock_ms = clock_ms
        self._shelf = Shelf()

    async def read(self, name: str, part: Part) -> bytes | None:
        if not self._shelf.has(name, part, self._clock_ms()):
            return None
        try:
            return await trio.to_thread.run_sync(read_private_file, self._path(name, part), MAX_SEALED_BYTES)
        except FileMissing:
            return None

    async def write(self, name: str, part: Part, data: bytes) -> None:
        await self._sweep()
        self._shelf.put(name, part, len(data), self._clock_ms())
        with trio.CancelScope(shield=True), self._undone(name, part):
            await trio.to_thread.run_sync(replace_private_file, self._path(name, part), data)
        await self._sweep()

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        await trio.to_thread.run_sync(self._open)
        task_status.started()
        while True:
            await self._sweep()
            await trio.sleep(VAULT_SWEEP_S)

    def _open(self) -> None:
        """Look through the folder: what an earlier run left, oldest first. What it did not finish is removed."""
        make_private_folder(self._folder)
        found: list[tuple[int, str, Part, int]] = []
        for path in self._folder.iterdir():
            match = _OURS.fullmatch(path.name)
            if match is None:
                continue
            if match["unfinished"]:
                path.unlink(missing_ok=True)
                continue
            status = path.stat()
            part: Part = "claim" if match["part"] == "claim" else "answer"
            found.append((status.st_mtime_ns // 1_000_000, match["name"], part, status.st_size))
        for at_ms, name, part, size in sorted(found):
            try:
                self._shelf.put(name, part, size, min(at_ms, self._clock_ms()))
            except VaultFull:
                self._path(name, part).unlink(missing_ok=True)

    async def _sweep(self) -> None:
        gone = [self._path(name, part) for name, part in self._shelf.surplus(self._clock_ms())]
        if gone:
            await trio.to_thread.run_sync(_unlink_all, gone)

    @contextmanager
    def _undone(self, name: str, part: Part) -> Iterator[None]:
        """Take it off the shelf again when it could not be written."""
        try:
            yield
        except BaseException:
            self._shelf.drop(name, part)
            raise

    def _path(self, name: str, part: Part) -> Path:
        return self._folder / f"{name}.{part}"


class MemoryVault:
    """A vault in memory, for tests of what stands on it; it forgets what the folder would."""

    def __init__(self, *, clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self._clock_ms = clock_ms
        self._shelf = Shelf()
        self._kept: dict[tuple[str, Part], bytes] = {}

    async def read(self, name: str, part: Part) -> bytes | None:
        return self._kept.get((name, part)) if self._shelf.has(name, part, self._clock_ms()) else None

    async def write(self, name: str, part: Part, data: bytes) -> None:
        self._sweep()
        self._shelf.put(name, part, len(data), self._clock_ms())
        self._kept[name, part] = data
        self._sweep()

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()

    def _sweep(self) -> None:
        for name, part in self._shelf.surplus(self._clock_ms()):
            self._kept.pop((name, part), None)


def _unlink_all(paths: list[Path]) -> None:
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as exc:
            log_event(log, "answer_not_removed", level=logging.WARNING, reason=exc.strerror or str(exc))
