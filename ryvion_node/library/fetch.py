"""Fetches models of the catalogue from their source: whole, or only what counts their tokens.

A whole file grows beside its place under a name that says which version it is, so that a later call goes on where the
last one stopped; it gets its own name only when its SHA-256 is right.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from ryvion_node.engine.files import DigestCache, file_digest
from ryvion_node.engine.gguf import GgufError, read_header
from ryvion_node.engine.gguf_cut import cut_header
from ryvion_node.errors import EXIT_DATA, EXIT_TEMPORARY, EXIT_UNAVAILABLE, EXIT_USAGE, OperatorError
from ryvion_node.library.constants import HEADER_PIECE_BYTES, SPARE_DISK_BYTES
from ryvion_node.library.manifest import DigestSource, Manifest, ManifestModel, ModelNameTaken
from ryvion_node.models.catalogue import CatalogueModel
from ryvion_node.paths import CannotUse, Paths, make_private_folder, replace_private_file

if TYPE_CHECKING:
    from ryvion_node.library.hub import Hub, RemoteFile

Stage = Literal["fetching", "checking"]
Progress = Callable[[Stage, int, int], None]
"""Stage, bytes done, bytes in all."""

_NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class ComesWithTheNode(OperatorError):
    """{name} comes with the node, there is nothing to fetch. Serve it with: ryvion-node up --serve {name}"""

    exit_code = EXIT_USAGE


class WrongDigest(OperatorError):
    """{file} of {source} has the SHA-256 {found}, but {who} says {expected}. {kept} Either the source offers another
    file now, or the transfer was damaged or tampered with: try once more, and then do not trust it.
    """

    exit_code = EXIT_DATA


class NoModelInside(OperatorError):
    """{file} of {source} is no model that this node can use: {reason}. It was not kept."""

    exit_code = EXIT_DATA


class DiskTooSmall(OperatorError):
    """{file} needs {needed_mb} MB more on the disk of {folder}, where {free_mb} MB are free (some are left for the
    ledger). Make room, or choose another place with --home. What came before is kept.
    """

    exit_code = EXIT_UNAVAILABLE


class FileInTheWay(OperatorError):
    """{path} is another file than {source} offers, and was not pulled. Move it away, or name it with:
    ryvion-node models add {path}
    """

    exit_code = EXIT_USAGE


class FetchBusy(OperatorError):
    """Another program is fetching {file} just now. Wait for it."""

    exit_code = EXIT_TEMPORARY


class DigestUnknown(OperatorError):
    """Neither the catalogue nor {source} says which SHA-256 {file} has, so its vocabulary alone could not be tied to
    the model that sellers name. Fetch the whole file: ryvion-node models pull {name}
    """

    exit_code = EXIT_UNAVAILABLE


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a fetch left behind."""

    model: ManifestModel
    path: Path
    fetched_bytes: int
    """How much came over the network this time."""
    vouchers: tuple[Literal["catalogue", "hub"], ...]
    """Who else says that the model has this SHA-256."""


class Fetcher:
    """Fetches into one node's models folder. Blocking."""

    def __init__(self, paths: Paths, hub: Hub) -> None:
        self._paths = paths
        self._hub = hub
        self._manifest = Manifest(paths)
        self._digests = DigestCache(paths.digests_file)

    def model(self, entry: CatalogueModel, on_progress: Progress) -> Fetched:
        """Fetch a whole model, or what is missing of it. Raises OperatorError."""
        known = self._listed(entry)
        remote = self._described(entry)
        target = self._folder() / entry.file
        with self._alone(target):
            digest, fetched = self._here_already(entry, remote, target, known), 0
            if digest is None:
                digest, fetched = self._fetch(entry, remote, target, on_progress)
            model = ManifestModel(
                name=entry.name,
                kind="model",
                file=entry.file,
                sha256=digest.hex(),
                sha256_from="file",
                file_sha256=digest.hex(),
                origin=f"{remote.source}@{remote.revision}",
            )
            self._manifest.put(model, replace=True)
        self._drop_unlisted(known)
        return Fetched(model, target, fetched, _vouchers(entry, remote, digest))

    def tokenizer(self, entry: CatalogueModel) -> Fetched:
        """Fetch a model's header only; the whole model, when it is here, is as good. Raises OperatorError."""
        known = self._listed(entry)
        if known is not None and known.kind == "model" and self._manifest.file_of(known).exists():
            return Fetched(known, self._manifest.file_of(known), 0, ())
        remote = self._described(entry)
        digest = entry.digest or remote.sha256
        if digest is None:
            raise DigestUnknown(source=remote.source, file=remote.file, name=entry.name)
        head = _Head(self._hub, remote)
        try:
            header = cut_header(head, f"{remote.source}/{remote.file}")
        except GgufError as exc:
            raise NoModelInside(source=remote.source, file=remote.file, reason=exc) from exc
        said_by: DigestSource = "hub" if entry.digest is None else "catalogue"
        origin = f"{remote.source}@{remote.revision}"
        model, path = keep_header(self._paths, entry.name, header, digest, said_by, origin, replace=True)
        self._drop_unlisted(known)
        return Fetched(model, path, head.fetched_bytes, _vouchers(entry, remote, digest))

    def _listed(self, entry: CatalogueModel) -> ManifestModel | None:
        """What the owner has under this name; a file that was added is not replaced."""
        if entry.path is not None:
            raise ComesWithTheNode(name=entry.name)
        known = self._manifest.find(entry.name)
        if known is not None and not known.is_ours:
            raise ModelNameTaken(name=known.name, what=known.file)
        return known

    def _drop_unlisted(self, old: ManifestModel | None) -> None:
        """Delete the file of an entry that was replaced, unless the list still needs it."""
        if old is not None:
            path = self._manifest.file_of(old)
            if path not in {self._manifest.file_of(model) for model in self._manifest.models()}:
                path.unlink(missing_ok=True)

    def _described(self, entry: CatalogueModel) -> RemoteFile:
        remote = self._hub.describe(entry.source, entry.file)
        if remote.sha256 is not None and entry.digest is not None and remote.sha256 != entry.digest:
            raise _wrong(remote, remote.sha256, "the catalogue", entry.digest, "Nothing was fetched.")
        return remote

    def _folder(self) -> Path:
        make_private_folder(self._paths.home)
        folder = self._paths.models_folder
        try:
            folder.mkdir(exist_ok=True)
        except OSError as exc:
            raise CannotUse(path=folder, reason=(exc.strerror or str(exc)).lower()) from exc
        return folder

    def _here_already(
        self, entry: CatalogueModel, remote: RemoteFile, target: Path, known: ManifestModel | None
    ) -> bytes | None:
        """The digest of a file that need not be fetched; raises FileInTheWay for one that is not ours to replace."""
        if not target.exists():
            return None
        with contextlib.suppress(GgufError):
            digest = self._digests.digest(target)
            if digest == (entry.digest or remote.sha256):
                return digest
        if known is None or known.file != entry.file:
            raise FileInTheWay(path=target, source=remote.source)
        return None

    def _fetch(
        self, entry: CatalogueModel, remote: RemoteFile, target: Path, on_progress: Progress
    ) -> tuple[bytes, int]:
        """Fetch what is missing and check the whole. Returns the digest and the bytes that came."""
        part = _part_of(target, remote)
        for other in target.parent.glob(f".{target.name}.*.part"):
            if other != part:
                other.unlink(missing_ok=True)
        fetched = self._grow(part, remote, on_progress)
        try:
            digest, state = file_digest(
                part, lambda share: on_progress("checking", round(share * remote.size_bytes), remote.size_bytes)
            )
            for who, expected in (("the catalogue", entry.digest), ("the hub", remote.sha256)):
                if expected is not None and digest != expected:
                    part.unlink()
                    raise _wrong(remote, digest, who, expected, "It was not kept.")
            read_header(part)
        except GgufError as exc:
            part.unlink(missing_ok=True)
            raise NoModelInside(source=remote.source, file=remote.file, reason=exc) from exc
        part.replace(target)
        self._digests.put(target, state, digest)
        return digest, fetched

    def _grow(self, part: Path, remote: RemoteFile, on_progress: Progress) -> int:
        with _disk_errors(part.parent, remote), part.open("ab") as file:
            start = file.tell()
            if start > remote.size_bytes:
                file.truncate(0)
                start = 0
            _refuse_full_disk(part.parent, remote, remote.size_bytes - start)
            done = start
            on_progress("fetching", done, remote.size_bytes)
            for chunk in self._hub.stream(remote, start):
                file.write(chunk)
                done += len(chunk)
                on_progress("fetching", done, remote.size_bytes)
            file.flush()
            os.fsync(file.fileno())
        return done - start

    @contextlib.contextmanager
    def _alone(self, target: Path) -> Iterator[None]:
        """One fetch of a file at a time."""
        with target.with_name(f".{target.name}.lock").open("wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise FetchBusy(file=target.name) from None
            yield


def keep_header(
    paths: Paths, name: str, header: bytes, digest: bytes, said_by: DigestSource, origin: str, *, replace: bool
) -> tuple[ManifestModel, Path]:
    """Write a header that was cut from the model with `digest`, and list it. Raises OperatorError."""
    make_private_folder(paths.home)
    paths.models_folder.mkdir(exist_ok=True)
    model = ManifestModel(
        name=name,
        kind="tokenizer",
        file=f"{digest.hex()}.header.gguf",
        sha256=digest.hex(),
        sha256_from=said_by,
        file_sha256=hashlib.sha256(header).hexdigest(),
        origin=origin,
    )
    path = paths.models_folder / model.file
    replace_private_file(path, header)
    Manifest(paths).put(model, replace=replace)
    return model, path


class _Head:
    """The beginning of a remote file, fetched in pieces as it is read."""

    def __init__(self, hub: Hub, remote: RemoteFile) -> None:
        self._hub = hub
        self._remote = remote
        self._piece = memoryview(b"")
        self.fetched_bytes = 0

    def read(self, length: int, /) -> bytes:
        taken = bytearray()
        while len(taken) < length:
            if not self._piece and not self._next_piece():
                break
            wanted = length - len(taken)
            taken += self._piece[:wanted]
            self._piece = self._piece[wanted:]
        return bytes(taken)

    def _next_piece(self) -> bool:
        start = self.fetched_bytes
        self._piece = memoryview(b"".join(self._hub.stream(self._remote, start, start + HEADER_PIECE_BYTES)))
        self.fetched_bytes += len(self._piece)
        return bool(self._piece)


def _part_of(target: Path, remote: RemoteFile) -> Path:
    """Another version at the source begins another file."""
    version = hashlib.sha256(f"{remote.source}\n{remote.etag}\n{remote.size_bytes}".encode()).hexdigest()[:16]
    return target.with_name(f".{target.name}.{version}.part")


def _vouchers(entry: CatalogueModel, remote: RemoteFile, digest: bytes) -> tuple[Literal["catalogue", "hub"], ...]:
    said: tuple[tuple[Literal["catalogue", "hub"], bytes | None], ...] = (
        ("catalogue", entry.digest),
        ("hub", remote.sha256),
    )
    return tuple(who for who, expected in said if expected == digest)


def _wrong(remote: RemoteFile, found: bytes, who: str, expected: bytes, kept: str) -> WrongDigest:
    return WrongDigest(
        source=remote.source, file=remote.file, found=found.hex(), who=who, expected=expected.hex(), kept=kept
    )


def _refuse_full_disk(folder: Path, remote: RemoteFile, needed_bytes: int) -> None:
    free_bytes = shutil.disk_usage(folder).free
    if needed_bytes + SPARE_DISK_BYTES > free_bytes:
        raise DiskTooSmall(
            file=remote.file, folder=folder, needed_mb=needed_bytes // 10**6, free_mb=free_bytes // 10**6
        )


@contextlib.contextmanager
def _disk_errors(folder: Path, remote: RemoteFile) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        if exc.errno in _NO_SPACE:
            free_mb = shutil.disk_usage(folder).free // 10**6
            raise DiskTooSmall(file=remote.file, folder=folder, needed_mb="some", free_mb=free_mb) from exc
        raise CannotUse(path=folder, reason=(exc.strerror or str(exc)).lower()) from exc
