"""Which files a command line means: those that are named, and in folders all that may be documents."""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ryvion_node.cli.output import printable
from ryvion_node.errors import EXIT_USAGE, OperatorError
from ryvion_node.knowledge.constants import MAX_DOCUMENTS, MAX_FILE_BYTES

HEAD_BYTES: Final = 8192
"""Of a file in a folder, looked at to tell documents from other files, as git and grep do."""
_IGNORED: Final = frozenset({"__pycache__", "node_modules", "thumbs.db", "desktop.ini", "lost+found", "$recycle.bin"})
"""Names that no owner gave, in small letters."""
_IGNORED_ENDINGS: Final = ("~", ".bak", ".tmp", ".swp", ".part", ".crdownload")
_DOCUMENTS: Final = frozenset("pdf docx doc xlsx xls pptx ppt odt ods odp epub rtf".split())
"""Never left out: the node reads some of them, and names the mend for the others."""
_UNICODE_MARKS: Final = (b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")


class SameName(OperatorError):
    """{first} and {second} would both be called {name} in the knowledge base. Add the folder above them, so that their
    names tell them apart.
    """

    exit_code = EXIT_USAGE


class TooManyFiles(OperatorError):
    """There are more than {limit} files, the most that a knowledge base takes. Add fewer folders to each."""

    exit_code = EXIT_USAGE


class CannotRead(Exception):
    """A file that is meant cannot be read; the message says why."""


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file to add; it is looked at again when it is read."""

    path: Path
    name: str
    """What it is called in the knowledge base: its path from the folder that was named, with that folder in front."""
    size_bytes: int


@dataclass(slots=True)
class Selection:
    """What a command line comes to."""

    files: list[FoundFile] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    """Why -> how many, of what folders hold besides."""
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    """Name and reason."""


def select_files(given: Sequence[Path]) -> Selection:
    """Files as they are named, folders through and through, each file once; raises SameName, TooManyFiles.

    Links within folders are not followed: what they lead to is there under its own name, or is none of the folder's.
    """
    selection = Selection()
    by_path: dict[Path, FoundFile] = {}
    by_name: dict[str, FoundFile] = {}
    for argument in given:
        root = argument.resolve()
        name = printable(root.name if argument.name in ("", "..") else argument.name)
        for file in _in_folder(root, name, selection) if root.is_dir() else _alone(root, name, selection):
            if file.path in by_path:
                continue
            if (other := by_name.setdefault(file.name, file)) is not file:
                raise SameName(first=other.path, second=file.path, name=repr(file.name))
            by_path[file.path] = file
            if len(by_path) > MAX_DOCUMENTS:
                raise TooManyFiles(limit=MAX_DOCUMENTS)
    selection.files = list(by_path.values())
    return selection


def read_file(file: FoundFile) -> bytes:
    """All of it; raises CannotRead. It waits for no pipe and follows no link that took its place meanwhile."""
    return _read(file.path, MAX_FILE_BYTES + 1)


def _alone(path: Path, name: str, selection: Selection) -> Iterator[FoundFile]:
    try:
        status = path.stat()
    except OSError as exc:
        selection.unreadable.append((name, _reason(exc)))
        return
    if stat.S_ISREG(status.st_mode):
        yield FoundFile(path, name, status.st_size)
    else:
        selection.unreadable.append((name, "it is no file"))


def _in_folder(root: Path, name: str, selection: Selection) -> Iterator[FoundFile]:
    """In the order of names, folder by folder."""
    waiting = [(root, name)]
    while waiting:
        folder, prefix = waiting.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as exc:
            selection.unreadable.append((prefix, _reason(exc)))
            continue
        folders = []
        for entry in entries:
            label = f"{prefix}/{printable(entry.name)}".removeprefix("/")
            why = _why_left_out(entry)
            if why is not None:
                selection.left_out[why] += 1
            elif entry.is_dir(follow_symlinks=False):
                folders.append((Path(entry.path), label))
            else:
                yield from _in_reach(Path(entry.path), label, selection)
        waiting += reversed(folders)


def _in_reach(path: Path, label: str, selection: Selection) -> Iterator[FoundFile]:
    """The file, unless its beginning shows that it is no document."""
    try:
        head, size = _read(path, HEAD_BYTES), path.lstat().st_size
    except CannotRead as exc:
        selection.unreadable.append((label, str(exc)))
        return
    except OSError as exc:
        selection.unreadable.append((label, _reason(exc)))
        return
    if _is_binary(head, path):
        selection.left_out["binary"] += 1
    else:
        yield FoundFile(path, label, size)


def _why_left_out(entry: os.DirEntry[str]) -> str | None:
    """By its name and kind."""
    name = entry.name.lower()
    if entry.is_symlink():
        return "linked"
    if name.startswith("."):
        return "hidden"
    if name in _IGNORED or name.endswith(_IGNORED_ENDINGS) or name.startswith("~$"):
        return "ignored"
    if not entry.is_dir(follow_symlinks=False) and not entry.is_file(follow_symlinks=False):
        return "special"
    return None


def _is_binary(head: bytes, path: Path) -> bool:
    """Text has no NUL, but for UTF-16 and UTF-32."""
    document = path.suffix.lower().removeprefix(".") in _DOCUMENTS or head.lstrip().startswith(b"%PDF-")
    return b"\0" in head and not document and not head.startswith(_UNICODE_MARKS)


def _read(path: Path, limit: int) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise CannotRead("it is no file")
            return file.read(limit)
    except OSError as exc:
        raise CannotRead("it became a link" if exc.errno == errno.ELOOP else _reason(exc)) from exc


def _reason(exc: OSError) -> str:
    return f"it cannot be read ({(exc.strerror or str(exc)).lower()})"
