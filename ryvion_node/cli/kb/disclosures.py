"""`ryvion-node kb disclosures`: what left the machine. It reads the node's own record, also while no node runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from ryvion_node.cli.kb.api import Json, NoSuchKnowledgeBase, named
from ryvion_node.cli.options import home_option, json_option
from ryvion_node.cli.output import counted, print_json, print_table, short_key, time_text
from ryvion_node.paths import Paths

if TYPE_CHECKING:
    from ryvion_node.knowledge.interface import Passage
    from ryvion_node.knowledge.reader import KnowledgeView
    from ryvion_node.knowledge.records import Disclosure

COLUMNS: Final = ("Time", "For", "Passages", "To node", "Where", "Id")
WHAT_FOR: Final = {"prompt": "an answer", "embedding": "vectors", "query": "a search"}
MAX_LISTED: Final = 1_000


@click.command(
    "disclosures",
    epilog="\b\nExamples:\n  ryvion-node kb disclosures\n  ryvion-node kb disclosures chatcmpl-4f1c...\n  ryvion-node kb disclosures --kb contracts --limit 1000 --json",
)
@click.argument("name", metavar="[JOB]", required=False)
@click.option(
    "--kb", "base", metavar="KB", help="Only of this knowledge base: a name, or an id, also of a deleted one."
)
@click.option(
    "--limit", type=click.IntRange(1, MAX_LISTED), default=50, show_default=True, help="How many, newest first."
)
@home_option
@json_option
def disclosures_command(name: str | None, base: str | None, limit: int, paths: Paths, as_json: bool) -> None:
    """List which passages left this machine: when, what for, to which node, and where that is.

    JOB is a job id or the id of an answer; with it every passage is listed, as far as it is still there. A passage is
    put on record before it leaves, so a job that failed is listed too.
    """
    from ryvion_node.knowledge.reader import read_knowledge

    with read_knowledge(paths.knowledge_file) as view:
        base_id = None if base is None else _base_id(view, base)
        found = left_for(view, name, base_id, limit)
        shown = [disclosure_json(view, disclosure) for disclosure in found]
    if as_json:
        print_json({"disclosures": shown})
    elif not found:
        click.echo("Nothing has left this machine." if name is None else f"Nothing left for {name}.", err=True)
    elif name is None:
        print_table(
            f"{counted(len(found), 'job')} that carried something away",
            COLUMNS,
            [_row(disclosure) for disclosure in found],
            right=("Passages",),
        )
    else:
        for one in shown:
            for line in disclosure_lines(one):
                click.echo(line)


def left_for(view: KnowledgeView, name: str | None, base_id: str | None, limit: int) -> list[Disclosure]:
    """Of a job or of an answer, which may have taken several; of all when `name` is None."""
    if name is None:
        return list(view.disclosures(knowledge_base=base_id, limit=limit))
    of_answer = view.disclosures(completion_id=name, knowledge_base=base_id, limit=limit)
    return [*of_answer, *view.disclosures(job_id=name, knowledge_base=base_id, limit=limit)]


def disclosure_json(view: KnowledgeView, disclosure: Disclosure) -> Json:
    """As the endpoint shows it, and of each passage where it stands, as far as it is still there."""
    chunk_ids = [chunk.chunk_id for chunk in disclosure.chunks]
    places = {passage.chunk_id: passage for passage in view.passages(disclosure.knowledge_base, chunk_ids)}
    return {
        "job_id": disclosure.job_id,
        "completion_id": disclosure.completion_id,
        "knowledge_base": disclosure.knowledge_base,
        "node_id": disclosure.node_key.hex(),
        "jurisdiction": disclosure.jurisdiction,
        "purpose": disclosure.purpose,
        "at_ms": disclosure.at_ms,
        "chunks": [
            {"chunk_id": chunk.chunk_id, "sha256": chunk.sha256, "place": _place(places.get(chunk.chunk_id))}
            for chunk in disclosure.chunks
        ],
    }


def disclosure_lines(shown: Json) -> list[str]:
    """One that `disclosure_json` made, for people."""
    whom = f"{short_key(shown['node_id'])} in {shown['jurisdiction']}"
    count = len(shown["chunks"])
    what = (
        f"{counted(count, 'passage')} of {shown['knowledge_base']}"
        if count
        else f"a question to {shown['knowledge_base']}"
    )
    lines = [f"{time_text(shown['at_ms'])} {what} to {whom}, for {WHAT_FOR[shown['purpose']]}, job {shown['job_id']}"]
    for chunk in shown["chunks"]:
        lines.append(f"  {chunk['chunk_id']} {where_text(chunk['place'])}")
    return lines


def where_text(place: Json | None) -> str:
    """Where a passage stands in its document."""
    if place is None:
        return "is not there any more"
    page = "" if place["page"] is None else f", page {place['page']}"
    return f"{place['filename']}{page}, characters {place['start']}-{place['end']}"


def place_json(passage: Passage) -> Json:
    """The same as JSON."""
    chunk = passage.chunk
    return {"filename": passage.filename, "page": chunk.page, "start": chunk.start, "end": chunk.end}


def _place(passage: Passage | None) -> Json | None:
    return None if passage is None else place_json(passage)


def _base_id(view: KnowledgeView, wanted: str) -> str:
    """What was deleted is on record under its id alone."""
    try:
        return named(((base.id, base.name) for base in view.knowledge_bases()), wanted)
    except NoSuchKnowledgeBase:
        if wanted.startswith("kb_"):
            return wanted
        raise


def _row(disclosure: Disclosure) -> tuple[str, ...]:
    return (
        time_text(disclosure.at_ms),
        WHAT_FOR[disclosure.purpose],
        str(len(disclosure.chunks)),
        short_key(disclosure.node_key.hex()),
        disclosure.jurisdiction,
        disclosure.completion_id,
    )
