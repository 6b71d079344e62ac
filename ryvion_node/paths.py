"""Where a node keeps its files, and how private ones are read and written.

Everything lies in folders of mode 0700 and files of mode 0600. A looser mode that somebody set is refused,
not silently tightened: what was readable may already have been read.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from ryvion_node.errors import EXIT_DATA, EXIT_NO_INPUT, EXIT_PERMISSION, OperatorError

APP_NAME = "ryvion-node"
HOME_VARIABLE = "RYVION_HOME"
FOLDER_MODE = 0o700
FILE_MODE = 0o600
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class TooOpen(OperatorError):
    """{path} may be used by others (mode {mode}), but it must be private. Close it with: chmod {wanted} {path}"""

    exit_code = EXIT_PERMISSION


class CannotUse(OperatorError):
    """Cannot use {path}: {reason}. Check that it belongs to you and that the disk is there, or choose another
    place with --home.
    """

    exit_code = EXIT_PERMISSION


class FileMissing(OperatorError):
    """{path} does not exist."""

    exit_code = EXIT_NO_INPUT


class FileTooLarge(OperatorError):
    """{path} is larger than {limit_bytes} bytes, so it is not what its name says. Move it away."""

    exit_code = EXIT_DATA


@dataclass(frozen=True, slots=True)
class Paths:
    """The node's files; `home` holds state, the configuration may lie elsewhere."""

    home: Path
    config_file: Path

    @property
    def identity_file(self) -> Path:
        return self.home / "identity.key"

    @property
    def keys_file(self) -> Path:
        return self.home / "keys.json"

    @property
    def ledger_file(self) -> Path:
        return self.home / "ledger.sqlite3"

    @property
    def knowledge_file(self) -> Path:
        """Knowledge bases: passages, their vectors, and the record of what left the machine."""
        return self.home / "knowledge.db"

    @property
    def answers_folder(self) -> Path:
        """Sealed answers to requests with an Idempotency-Key, for 24 hours."""
        return self.home / "answers"

    @property
    def models_folder(self) -> Path:
        return self.home / "models"

    @property
    def manifest_file(self) -> Path:
        """The models that the owner pulled or added."""
        return self.home / "models.json"

    @property
    def digests_file(self) -> Path:
        """SHA-256 of model files by path, size and time; only a cache."""
        return self.home / "digests.json"

    @property
    def speeds_file(self) -> Path:
        """What was measured of models when they were last loaded; only a cache."""
        return self.home / "speeds.json"

    @property
    def control_file(self) -> Path:
        """Written by the running node: where its control API is, and the token for it."""
        return self.home / "control.json"


def resolve_paths(home: Path | None = None, environ: Mapping[str, str] | None = None) -> Paths:
    """Choose the folders: `home` (--home), else $RYVION_HOME, else the platform's own. Touches nothing."""
    chosen = home
    if chosen is None:
        from_environment = (os.environ if environ is None else environ).get(HOME_VARIABLE, "")
        chosen = Path(from_environment) if from_environment else None
    if chosen is not None:
        absolute = chosen.expanduser().absolute()
        return Paths(home=absolute, config_file=absolute / "config.toml")
    return Paths(
        home=platformdirs.user_state_path(APP_NAME, appauthor=False),
        config_file=platformdirs.user_config_path(APP_NAME, appauthor=False) / "config.toml",
    )


def make_private_folder(folder: Path) -> None:
    """Create `folder` (and its parents) with mode 0700, or check the mode of one that is there; raises TooOpen."""
    with _os_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=FOLDER_MODE)
        status = folder.stat()
    if not stat.S_ISDIR(status.st_mode):
        raise CannotUse(path=folder, reason="it is not a folder")
    refuse_too_open(folder, status)


def refuse_too_open(path: Path, status: os.stat_result) -> None:
    """Raise TooOpen when group or others have any right on a file or folder."""
    mode = stat.S_IMODE(status.st_mode)
    if mode & _OTHERS:
        wanted = FOLDER_MODE if stat.S_ISDIR(status.st_mode) else FILE_MODE
        raise TooOpen(path=path, mode=f"{mode:04o}", wanted=f"{wanted:o}")


def read_private_file(path: Path, limit_bytes: int) -> bytes:
    """Read a small private file; raises FileMissing, TooOpen, FileTooLarge or CannotUse."""
    with _os_errors(path):
        try:
            file = path.open("rb")
        except FileNotFoundError:
            raise FileMissing(path=path) from None
        with file:
            refuse_too_open(path, os.fstat(file.fileno()))
            data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise FileTooLarge(path=path, limit_bytes=limit_bytes)
    return data


def create_private_file(path: Path, data: bytes) -> bool:
    """Create `path` with mode 0600 whole or not at all; False when it is there already (it is left alone).

    A link instead of a rename, because a rename would overwrite what another process created meanwhile.
    """
    with _os_errors(path), _durable_sibling(path, data) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        _sync_folder(path.parent)
    return True


def replace_private_file(path: Path, data: bytes) -> None:
    """Put `data` in the place of `path`, mode 0600; after a crash either the old or the new content is there."""
    with _os_errors(path), _durable_sibling(path, data) as temporary:
        temporary.replace(path)
        _sync_folder(path.parent)


@contextlib.contextmanager
def sole_editor(path: Path, busy: type[OperatorError]) -> Iterator[None]:
    """Be the only one who edits the private file at `path`; raises `busy`, filled with `path`, when another does."""
    make_private_folder(path.parent)
    lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise busy(path=path) from None
        yield
    finally:
        os.close(lock)


@contextlib.contextmanager
def _durable_sibling(path: Path, data: bytes) -> Iterator[Path]:
    """A temporary file beside `path` with `data` safely on disk; removed afterwards unless it was renamed."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _os_errors(path: Path) -> Iterator[None]:
    """Translate what the operating system refuses."""
    try:
        yield
    except OSError as exc:
        raise CannotUse(path=path, reason=(exc.strerror or str(exc)).lower()) from exc
