"""`ryvion-node kb`: make knowledge bases, fill and search them, and see what left the machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import click

from ryvion_node.cli.kb.disclosures import disclosures_command
from ryvion_node.cli.options import home_option, json_option
from ryvion_node.cli.output import counted, print_json, print_table, time_text
from ryvion_node.paths import Paths

COLUMNS: Final = ("Id", "Name", "Sent to", "Documents", "Passages", "Made by", "Created")
DOCUMENT_COLUMNS: Final = ("Document", "Name", "State", "Pages", "Passages", "Vectors", "Size")
EXIT_FAILED: Final = 1
MAX_RESULTS: Final = 50


@click.group()
def kb() -> None:
    """Make knowledge bases, fill and search them, and see what left the machine.

    Documents stay on this machine. Questions to the endpoint with `knowledge_base` are answered from the passages
    that fit them; only those go to the node that answers. The commands talk to the node that runs here.
    """


kb.add_command(disclosures_command)


@kb.command(
    epilog="\b\nExamples:\n  ryvion-node kb create timetables\n  ryvion-node kb create contracts --jurisdiction EU"
)
@click.argument("name")
@click.option(
    "--jurisdiction",
    metavar="XX",
    help="Send its passages only there, for good: codes such as CA,DE, or a group such as EU.",
)
@home_option
@json_option
def create(name: str, jurisdiction: str | None, paths: Paths, as_json: bool) -> None:
    """Make a knowledge base and print its id, alone on stdout."""
    from ryvion_node.cli.kb.api import KnowledgeApi

    made = KnowledgeApi(paths).create(name, jurisdiction)
    if as_json:
        print_json(made)
        return
    click.echo(made["id"])
    click.echo(f"fill it with: ryvion-node kb add {made['id']} FOLDER", err=True)


@kb.command(
    epilog="\b\nExamples:\n  ryvion-node kb add timetables ~/timetables\n  ryvion-node kb add contracts 2025.pdf 2026.pdf notes/\n  ryvion-node kb add contracts scans/ --no-wait --json"
)
@click.argument("base", metavar="KB")
@click.argument("files", metavar="PATH...", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--no-wait", is_flag=True, help="Leave as soon as the node has the files; it reads them by itself.")
@home_option
@json_option
def add(base: str, files: tuple[Path, ...], no_wait: bool, paths: Paths, as_json: bool) -> None:
    """Add files, and folders with all that is in them, to the knowledge base KB (an id or a name).

    A file of a folder is called by its path from that folder, with the folder's name in front; a file that is named
    alone, by its own name. A file that changed replaces the one of its name, one that did not is skipped: run the
    command again whenever you like. In folders, hidden files, links and what is no document are left out and counted.

    Exits 1 when a file was refused or could not be read; the others are added all the same.
    """
    from ryvion_node.cli.kb.adding import add_files
    from ryvion_node.cli.kb.api import KnowledgeApi
    from ryvion_node.cli.kb.files import select_files
    from ryvion_node.cli.kb.progress import watching
    from ryvion_node.cli.kb.report import print_added

    api = KnowledgeApi(paths)
    base_id = api.base(base)["id"]
    selection = select_files(files)
    try:
        with watching(selection.files, quiet=as_json) as watcher:
            results = add_files(api, base_id, selection, watcher, wait=not no_wait)
    except KeyboardInterrupt:
        click.echo("What was sent is read all the same; run the command again for the rest.", err=True)
        raise
    if as_json:
        print_json(
            {
                "knowledge_base": base_id,
                "files": [result.as_json() for result in results],
                "left_out": dict(selection.left_out),
            }
        )
    else:
        print_added(results, selection.left_out)
    sys.exit(EXIT_FAILED if any(result.failed for result in results) else 0)


@kb.command("list", epilog="\b\nExamples:\n  ryvion-node kb list\n  ryvion-node kb list --json")
@home_option
@json_option
def list_command(paths: Paths, as_json: bool) -> None:
    """List the knowledge bases, where each may be sent, and who made it."""
    from ryvion_node.cli.kb.api import KnowledgeApi
    from ryvion_node.cli.kb.report import place_text

    bases = KnowledgeApi(paths).bases()
    if as_json:
        print_json({"knowledge_bases": bases})
    elif not bases:
        click.echo("No knowledge bases yet. Make one with: ryvion-node kb create NAME", err=True)
    else:
        rows = [
            (
                base["id"],
                base["name"],
                place_text(base["jurisdiction"]),
                str(base["documents"]),
                str(base["chunks"]),
                base["key_id"],
                time_text(base["created"] * 1000),
            )
            for base in bases
        ]
        print_table(counted(len(bases), "knowledge base"), COLUMNS, rows, right=("Documents", "Passages"))


@kb.command(epilog="\b\nExamples:\n  ryvion-node kb show timetables\n  ryvion-node kb show timetables --json")
@click.argument("base", metavar="KB")
@home_option
@json_option
def show(base: str, paths: Paths, as_json: bool) -> None:
    """Show the documents of the knowledge base KB, how far each is, and what is wrong with it."""
    from ryvion_node.cli.kb.api import KnowledgeApi
    from ryvion_node.cli.kb.progress import size_text
    from ryvion_node.cli.kb.report import notes_of, place_text

    api = KnowledgeApi(paths)
    found = api.base(base)
    documents = list(api.documents(found["id"]))
    if as_json:
        print_json(found | {"documents": documents})
        return
    title = f"{found['name']} ({found['id']}): {counted(len(documents), 'document')}"
    rows = [
        (
            document["id"],
            document["filename"],
            document["state"],
            "-" if document["pages"] is None else str(document["pages"]),
            str(document["chunks"]),
            str(document["embedded"]),
            size_text(document["size_bytes"]),
        )
        for document in documents
    ]
    print_table(title, DOCUMENT_COLUMNS, rows, right=("Pages", "Passages", "Vectors", "Size"))
    click.echo(f"its passages may be sent: {place_text(found['jurisdiction'])}")
    for line in notes_of(documents):
        click.echo(line)


@kb.command(
    epilog="\b\nExamples:\n  ryvion-node kb search timetables 'When does the ferry to Lund leave?'\n  ryvion-node kb search contracts notice --limit 10 --document 2026.pdf --json"
)
@click.argument("base", metavar="KB")
@click.argument("query")
@click.option("--limit", type=click.IntRange(1, MAX_RESULTS), default=5, show_default=True, help="How many passages.")
@click.option("--document", "documents", multiple=True, metavar="NAME", help="Only there: a document's name or id.")
@home_option
@json_option
def search(base: str, query: str, limit: int, documents: tuple[str, ...], paths: Paths, as_json: bool) -> None:
    """Search the knowledge base KB for QUERY and print passages, best first, as an answer would get them."""
    from ryvion_node.cli.kb.api import KnowledgeApi
    from ryvion_node.cli.kb.report import print_found

    api = KnowledgeApi(paths)
    base_id = api.base(base)["id"]
    within = [document["id"] for document in api.documents_called(base_id, documents)] if documents else []
    found = api.search(base_id, query, limit, within)
    if as_json:
        print_json(found)
    else:
        print_found(found)


@kb.command(
    epilog="\b\nExamples:\n  ryvion-node kb delete timetables old/winter.pdf\n  ryvion-node kb delete timetables --yes"
)
@click.argument("base", metavar="KB")
@click.argument("document", required=False)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@home_option
@json_option
def delete(base: str, document: str | None, yes: bool, paths: Paths, as_json: bool) -> None:
    """Delete the knowledge base KB with everything in it, or one DOCUMENT of it (a name or an id).

    Only the record of what left the machine stays; your own files are not touched.
    """
    from ryvion_node.cli.kb.api import KnowledgeApi

    api = KnowledgeApi(paths)
    found = api.base(base)
    documents = [] if document is None else api.documents_called(found["id"], (document,))
    if documents:
        what = f"{documents[0]['filename']} from {found['name']}"
    else:
        what = f"the knowledge base {found['name']} ({found['id']}) with {counted(found['documents'], 'document')}"
    if not yes:
        click.confirm(f"Delete {what}?", abort=True, err=True)
    if documents:
        deleted = [api.delete_document(found["id"], one["id"]) for one in documents]
    else:
        deleted = [api.delete(found["id"])]
    if as_json:
        print_json({"deleted": deleted})
    else:
        click.echo(f"deleted {what}")


@kb.command(epilog="\b\nExample:\n  ryvion-node kb forget-vectors timetables")
@click.argument("base", metavar="KB")
@home_option
@json_option
def forget_vectors(base: str, paths: Paths, as_json: bool) -> None:
    """Have all vectors of the knowledge base KB made anew: by another model, or because those it has find nothing.

    They are paid for once more. Until they are there, passages are found by their words alone.
    """
    from ryvion_node.cli.kb.api import KnowledgeApi

    api = KnowledgeApi(paths)
    found = api.base(base)
    forgotten = api.forget_vectors(found["id"])
    if as_json:
        print_json(forgotten)
    else:
        click.echo(f"the vectors of {found['name']} ({counted(found['chunks'], 'passage')}) are being made anew")
