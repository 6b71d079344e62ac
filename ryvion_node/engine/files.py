"""Identity of model files: the SHA-256 of a GGUF, computed once per version of the file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ryvion_node.engine.gguf import GgufError

_CHUNK_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class FileState:
    """When two of these are equal the file was not changed in between (short of forging its times)."""

    size_bytes: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, stat: os.stat_result) -> FileState:
        return cls(stat.st_size, stat.st_mtime_ns, stat.st_ino)


def file_state(path: Path) -> FileState:
    """Raises GgufError."""
    try:
        return FileState.of(path.stat())
    except OSError as exc:
        raise GgufError(f"{path}: {_reason(exc)}") from exc


def file_digest(path: Path, on_progress: Callable[[float], None] | None = None) -> tuple[bytes, FileState]:
    """SHA-256 of the whole file and the state it had; blocking, about 1 s per GB. Raises GgufError."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            before = FileState.of(os.fstat(file.fileno()))
            done = 0
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                done += len(chunk)
                if on_progress is not None:
                    on_progress(done / max(before.size_bytes, done))
            after = FileState.of(os.fstat(file.fileno()))
    except OSError as exc:
        raise GgufError(f"{path}: {_reason(exc)}") from exc
    if before != after:
        raise GgufError(f"{path}: changed while it was read")
    return digest.digest(), after


class DigestCache:
    """Digests by (path, size, mtime, inode), in memory and optionally in a JSON file."""

    def __init__(self, store: Path | None = None) -> None:
        self._store = store
        self._known: dict[tuple[str, FileState], bytes] = _load(store) if store is not None else {}

    def get(self, path: Path) -> bytes | None:
        """The digest of the file as it is now, if it was computed before."""
        try:
            return self._known.get((str(path.resolve()), file_state(path)))
        except GgufError:
            return None

    def put(self, path: Path, state: FileState, digest: bytes) -> None:
        """Remember; forgets what was known of earlier versions of the file."""
        name = str(path.resolve())
        if self._store is not None:
            # Another cache may have written to the same store meanwhile.
            self._known = _load(self._store) | self._known
        self._known = {key: value for key, value in self._known.items() if key[0] != name}
        self._known[name, state] = digest
        if self._store is not None:
            _save(self._store, self._known)

    def digest(self, path: Path) -> bytes:
        """From the cache, or computed now (blocking). Raises GgufError."""
        known = self.get(path)
        if known is not None:
            return known
        digest, state = file_digest(path)
        self.put(path, state, digest)
        return digest


def _load(store: Path) -> dict[tuple[str, FileState], bytes]:
    try:
        rows = json.loads(store.read_text("utf-8"))
        return {
            (str(path), FileState(int(size), int(mtime), int(inode))): bytes.fromhex(digest)
            for path, size, mtime, inode, digest in rows
        }
    except (OSError, ValueError, TypeError):
        # Only a cache: without it files are hashed again.
        return {}


def _save(store: Path, known: dict[tuple[str, FileState], bytes]) -> None:
    rows = [
        [path, state.size_bytes, state.mtime_ns, state.inode, digest.hex()] for (path, state), digest in known.items()
    ]
    scratch = store.with_name(f"{store.name}.{os.getpid()}.new")
    try:
        store.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_text(json.dumps(rows), "utf-8")
        scratch.replace(store)
    except OSError:
        with suppress(OSError):
            scratch.unlink()


def _reason(exc: OSError) -> str:
    return "no such file" if isinstance(exc, FileNotFoundError) else f"cannot be read ({exc.strerror})"
