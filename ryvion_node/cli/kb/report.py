"""What became of files, and what a search found, for people."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import click

from ryvion_node.cli.kb.adding import Result
from ryvion_node.cli.kb.api import Json
from ryvion_node.cli.output import counted, printable

WIDTH: Final = 100
SHOWN_PLACES: Final = 4
_WORDS: Final = {"replacing": "replaced", "refused": "FAILED"}


def print_added(results: Sequence[Result], left_out: Mapping[str, int]) -> None:
    """A line for each file, then what else is worth knowing, then the sums."""
    for result in results:
        click.echo(f"{_word(result):<10} {result.filename}{_detail(result)}")
    seen = [result.document for result in results if result.document is not None and not result.failed]
    for line in notes_of(seen):
        click.echo(line)
    if left_out:
        click.echo(f"left out of folders: {', '.join(f'{count} {why}' for why, count in sorted(left_out.items()))}")
    counts = Counter(_word(result) for result in results)
    sums = ", ".join(f"{count} {word}" for word, count in counts.items())
    click.echo(f"{counted(len(results), 'file')}: {sums}" if results else "There is nothing to add.")


def notes_of(documents: Sequence[Json]) -> Iterator[str]:
    """What is wrong with documents; a warning that many share is said once."""
    for document in documents:
        if document["error"] is not None:
            yield f"{document['filename']}: {document['error']}"
    shared: dict[str, list[str]] = {}
    for document in documents:
        for warning in document["warnings"]:
            shared.setdefault(warning, []).append(document["filename"])
    for warning, names in shared.items():
        yield f"{names[0] if len(names) == 1 else counted(len(names), 'document')}: {warning}"


def print_found(found: Json) -> None:
    """Passages with where they stand."""
    if found["note"]:
        click.echo(f"by words alone: {found['note']}", err=True)
    if not found["results"]:
        click.echo("Nothing was found.", err=True)
    for number, result in enumerate(found["results"], start=1):
        if number > 1:
            click.echo()
        click.echo(f"{number}. {source_text(result['metadata'])}")
        click.echo(f"   similarity {result['similarity']:.2f}, {result['chunk_id']}")
        for line in result["content"].splitlines():
            for part in textwrap.wrap(printable(line), WIDTH) or [""]:
                click.echo(f"   {part}".rstrip())


def source_text(metadata: Json) -> str:
    """Where a passage stands: file, page, headings."""
    page = "" if metadata["page"] is None else f", page {metadata['page']}"
    return printable(" > ".join((f"{metadata['filename']}{page}", *metadata["headings"])))


def place_text(jurisdiction: str | None) -> str:
    """Where passages may be sent; a group is its countries, which are cut."""
    codes = [] if jurisdiction is None else jurisdiction.split(",")
    if len(codes) <= SHOWN_PLACES:
        return ", ".join(codes) or "anywhere"
    return f"{', '.join(codes[:SHOWN_PLACES])} and {len(codes) - SHOWN_PLACES} more"


def _word(result: Result) -> str:
    if result.failed:
        return "FAILED"
    if result.document is not None and result.document["state"] not in ("ready", "failed"):
        return "sent"
    return _WORDS.get(result.outcome, result.outcome)


def _detail(result: Result) -> str:
    if result.error is not None:
        return f": {result.error}"
    assert result.document is not None
    if result.outcome == "duplicate":
        return f": it is there as {result.document['filename']}"
    if result.outcome == "unchanged" or result.document["state"] != "ready":
        return ""
    pages, chunks = result.document["pages"], counted(result.document["chunks"], "passage")
    return f": {chunks}" if pages is None else f": {counted(pages, 'page')}, {chunks}"
