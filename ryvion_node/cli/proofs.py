"""Passages of prompts, held against the node's knowledge bases, or proved one by one to anybody (spec 02)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ryvion_node.cli.kb.api import named
from ryvion_node.cli.kb.disclosures import disclosure_json, disclosure_lines, left_for, place_json, where_text
from ryvion_node.cli.kept_receipts import exported_receipt, find_receipts
from ryvion_node.cli.options import home_option
from ryvion_node.cli.output import counted
from ryvion_node.errors import EXIT_NO_INPUT, EXIT_USAGE, OperatorError
from ryvion_node.paths import Paths, replace_private_file

if TYPE_CHECKING:
    from ryvion_node.cli.kb.api import Json
    from ryvion_node.knowledge.interface import Passage
    from ryvion_protocol.exported import JsonObject
    from ryvion_protocol.findings import Verdict


class NoSuchPassage(OperatorError):
    """There is no passage {chunk_id} in the knowledge bases of {path}: its document was replaced or deleted, or it never
    was there. `ryvion-node kb disclosures JOB` lists those of a job.
    """

    exit_code = EXIT_NO_INPUT


class NotInPrompt(OperatorError):
    """The passage {chunk_id} was not in the prompt of {name}, by what the seller signed. `ryvion-node kb disclosures
    {name}` lists those that were.
    """

    exit_code = EXIT_NO_INPUT


class SeveralJobs(OperatorError):
    """{name} has several receipts with these passages, of the jobs {jobs}. Give the id of the job you mean."""

    exit_code = EXIT_USAGE


@click.command(
    "prove",
    epilog="\b\nExamples:\n  ryvion-node receipts prove chatcmpl-4f1c... --chunk chk_82c0... > proof.json\n  ryvion-node receipts verify proof.json",
)
@click.argument("name", metavar="RECEIPT")
@click.option(
    "--chunk", "chunk_ids", multiple=True, required=True, metavar="ID", help="A passage to prove; again for more."
)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write (mode 0600). Default: stdout.",
)
@home_option
def prove_command(name: str, chunk_ids: tuple[str, ...], output: Path | None, paths: Paths) -> None:
    """Prove to anybody that a job was ordered with a passage of yours in its prompt, by what its seller signed.

    RECEIPT is a cid, a job id, or the id of an answer; the answer's `sources` have the ids of passages. The proof holds
    the receipt, the signed envelope, and of each --chunk the text, its place, and the path to the signed root. Of the
    other passages it shows hashes, which are in the envelope, and no text; whoever guesses a text can tell by its hash.

    `receipts verify` checks it with nothing but the file.
    """
    from ryvion_node.knowledge.reader import read_knowledge
    from ryvion_node.ledger.reader import read_ledger

    with read_knowledge(paths.knowledge_file) as view:
        passages = [(chunk_id, view.passage(chunk_id)) for chunk_id in chunk_ids]
    for chunk_id, passage in passages:
        if passage is None:
            raise NoSuchPassage(path=paths.knowledge_file, chunk_id=chunk_id)
    with read_ledger(paths.ledger_file) as ledger:
        exported = [exported_receipt(detail) for detail in find_receipts(ledger, name, paths)]
    proof = _proof(name, exported, [passage for _, passage in passages if passage is not None])
    text = json.dumps(proof, indent=2, ensure_ascii=False) + "\n"
    if output is None:
        click.echo(text, nl=False)
        return
    replace_private_file(output.absolute(), text.encode())
    click.echo(f"{counted(len(passages), 'passage')} proved in {output}", err=True)


def held_against(
    paths: Paths, wanted: str, exported: Sequence[JsonObject], verdicts: Sequence[Verdict]
) -> list[Verdict]:
    """The verdicts with what the knowledge base `wanted`, an id or a name, has of the passages that were used.

    It reads the file and needs no running node. Raises OperatorError.
    """
    from ryvion_node.knowledge.reader import read_knowledge
    from ryvion_protocol.exported import envelope_of
    from ryvion_protocol.passages import passage_hash, recognised

    envelopes = [envelope_of(receipt) for receipt in exported]
    hashes = {digest for envelope in envelopes if envelope is not None for digest in envelope.chunk_hashes}
    with read_knowledge(paths.knowledge_file) as view:
        base_id = named(((base.id, base.name) for base in view.knowledge_bases()), wanted)
        places = {
            passage_hash(passage.chunk.text): f"{where_text(place_json(passage))} ({passage.chunk_id})"
            for passage in view.passages_of(base_id, tuple(hashes))
        }
    return [
        replace(verdict, findings=(*verdict.findings, *recognised(envelope, places)))
        for verdict, envelope in zip(verdicts, envelopes, strict=True)
    ]


def left_by(paths: Paths, job_id: str) -> list[Json]:
    """What a job carried away from knowledge bases, for `receipts show`, which shows the rest in any case."""
    from ryvion_node.knowledge.reader import read_knowledge

    if not paths.knowledge_file.exists():
        return []
    try:
        with read_knowledge(paths.knowledge_file) as view:
            return [disclosure_json(view, disclosure) for disclosure in left_for(view, job_id, None, 1)]
    except OperatorError as exc:
        click.echo(f"What left the machine is not shown: {exc}", err=True)
        return []


def left_lines(left: Sequence[Json]) -> Iterator[str]:
    """The same for people."""
    for disclosure in left:
        first, *others = disclosure_lines(disclosure)
        yield f"{'left':<11} {first}"
        yield from (f"{'':<9} {line}" for line in others)


def _proof(name: str, exported: Sequence[JsonObject], passages: Sequence[Passage]) -> JsonObject:
    """Of the one receipt whose envelope names all these passages; raises NotInPrompt, SeveralJobs."""
    from ryvion_protocol.exported import envelope_of
    from ryvion_protocol.passages import KEY, PassageNotUsed, prove_passage

    proofs: list[JsonObject] = []
    missing = passages[0]
    for receipt in exported:
        envelope = envelope_of(receipt)
        if envelope is None:
            continue
        proved = []
        try:
            for missing in passages:
                proved.append(prove_passage(envelope, missing.chunk.text, place_json(missing)))
        except PassageNotUsed:
            continue
        proofs.append({**receipt, KEY: proved})
    if not proofs:
        raise NotInPrompt(chunk_id=missing.chunk_id, name=name)
    if len(proofs) > 1:
        raise SeveralJobs(name=name, jobs=", ".join(str(proof["job_id"]) for proof in proofs))
    return proofs[0]
