"""How far adding is, on stderr: bars on a terminal, else a line for each step."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from ryvion_node.cli.kb.adding import Watcher
from ryvion_node.cli.kb.api import Json
from ryvion_node.cli.kb.files import FoundFile
from ryvion_node.cli.output import counted

if TYPE_CHECKING:
    from rich.progress import Progress


@contextmanager
def watching(files: Sequence[FoundFile], *, quiet: bool) -> Iterator[Watcher]:
    """`quiet`: no lines where no bars can be shown."""
    if not sys.stderr.isatty():
        yield _Silence() if quiet else _Lines(len(files))
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[amount]}", markup=False),
        TimeElapsedColumn(),
    )
    # Results go to stdout afterwards; nothing else is printed meanwhile that would have to be kept above the bars.
    with Progress(
        *columns, console=Console(stderr=True), transient=True, redirect_stdout=False, redirect_stderr=False
    ) as progress:
        yield _Bars(progress, files)


class _Silence:
    def sending(self, number: int, file: FoundFile) -> None:
        pass

    def sent(self, size_bytes: int) -> None:
        pass

    def reading(self, waiting: int) -> None:
        pass

    def seen(self, document: Json) -> None:
        pass


class _Lines(_Silence):
    def __init__(self, files: int) -> None:
        self._files = files
        self._state: tuple[str, str] = ("", "")

    def sending(self, number: int, file: FoundFile) -> None:
        click.echo(f"sending {number} of {self._files}: {file.name} ({size_text(file.size_bytes)})", err=True)

    def reading(self, waiting: int) -> None:
        if waiting:
            click.echo(f"the node reads {counted(waiting, 'document')}", err=True)

    def seen(self, document: Json) -> None:
        state = (document["id"], document["state"])
        if state != self._state:
            self._state = state
            click.echo(f"{document['state']}: {document['filename']}", err=True)


class _Bars(_Silence):
    """One for what is sent, in bytes, and one for what is read, in documents and parts of them."""

    def __init__(self, progress: Progress, files: Sequence[FoundFile]) -> None:
        self._progress = progress
        self._files = len(files)
        self._bytes = max(1, sum(file.size_bytes for file in files))
        self._sending = progress.add_task("Sending", total=self._bytes, amount="")
        self._reading = progress.add_task("Reading", total=None, amount="", visible=False)
        self._through: set[str] = set()
        self._waiting = 0

    def sending(self, number: int, file: FoundFile) -> None:
        self._progress.update(self._sending, amount=f"{number} of {self._files}, {size_text(self._bytes)}")

    def sent(self, size_bytes: int) -> None:
        self._progress.advance(self._sending, size_bytes)

    def reading(self, waiting: int) -> None:
        self._waiting = waiting
        self._progress.update(self._sending, completed=self._bytes)
        self._progress.update(self._reading, total=max(1, waiting), visible=waiting > 0)

    def seen(self, document: Json) -> None:
        part = document["embedded"] / document["chunks"] if document["chunks"] else 0.0
        if document["state"] in ("ready", "failed"):
            self._through.add(document["id"])
            part = 0.0
        now = document["filename"] if document["state"] != "embedding" else f"{document['filename']}, {part:.0%}"
        amount = f"{len(self._through)} of {self._waiting}, {now[-60:]}"
        self._progress.update(self._reading, completed=len(self._through) + part, amount=amount)


def size_text(size_bytes: int) -> str:
    """Bytes for people."""
    size, units = float(size_bytes), ["bytes", "kB", "MB", "GB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.0f} {units[0]}" if units[0] == "bytes" else f"{size:.1f} {units[0]}"
