"""`ryvion-node receipts`: what this node bought and sold, and the verification of anybody's exported receipts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ryvion_node.cli.kept_receipts import PAGE, all_receipts, exported_receipt, find_receipts
from ryvion_node.cli.options import home_option, json_option
from ryvion_node.cli.output import credits_text, print_json, print_table, short_key, time_text
from ryvion_node.cli.proofs import held_against, left_by, left_lines, prove_command
from ryvion_node.paths import Paths, replace_private_file

if TYPE_CHECKING:
    from ryvion_node.cli.kb.api import Json
    from ryvion_node.ledger.records import ReceiptDetail, ReceiptRecord
    from ryvion_protocol.exported import JsonObject
    from ryvion_protocol.findings import Verdict

COLUMNS = ("Time", "Side", "State", "Model", "With", "Where", "Units", "Credits", "Receipt")
MARKS = {"passed": "ok", "bounded": "ok, bounded", "failed": "FAILED", "absent": "not said"}
EXIT_INVALID, EXIT_UNREADABLE = 1, 2


@click.group()
def receipts() -> None:
    """List, show, export, prove and verify signed receipts.

    Every finished job leaves a RYV1 receipt: the seller's signature over job, seller, hash of the answer and billed
    tokens. `list`, `show` and `export` read this node's ledger, also while the node runs. `verify` needs nothing but
    an exported file.
    """


receipts.add_command(prove_command)


@receipts.command(
    "list", epilog="\b\nExamples:\n  ryvion-node receipts list\n  ryvion-node receipts list --limit 5 --json"
)
@click.option("--limit", type=click.IntRange(1, PAGE), default=50, show_default=True, help="How many, newest first.")
@home_option
@json_option
def list_command(limit: int, paths: Paths, as_json: bool) -> None:
    """List the newest receipts of bought and sold jobs."""
    from ryvion_node.ledger.reader import read_ledger

    with read_ledger(paths.ledger_file) as ledger:
        records = ledger.receipts(limit)
    if as_json:
        print_json({"receipts": [_record_json(record) for record in records]})
    elif not records:
        click.echo("No receipts yet.", err=True)
    else:
        print_table(
            f"{len(records)} receipts", COLUMNS, [_row(record) for record in records], right=("Units", "Credits")
        )


@receipts.command(
    "show",
    epilog="\b\nExamples:\n  ryvion-node receipts show chatcmpl-4f1c...\n  ryvion-node receipts show ryv1:sha256:1e83...",
)
@click.argument("name", metavar="RECEIPT")
@home_option
@json_option
def show_command(name: str, paths: Paths, as_json: bool) -> None:
    """Show one receipt with the checks that this node made of it, and the passages of yours that the job carried away.

    RECEIPT is a receipt's cid, a job id, or the id of a chat completion.
    """
    from ryvion_node.ledger.reader import read_ledger

    with read_ledger(paths.ledger_file) as ledger:
        details = find_receipts(ledger, name, paths)
    shown = [_detail_json(detail) | {"disclosures": left_by(paths, detail.record.job.job_id)} for detail in details]
    if as_json:
        print_json({"receipts": shown})
        return
    for detail, one in zip(details, shown, strict=True):
        _print_detail(detail, one["disclosures"])


@receipts.command(
    "export",
    epilog="\b\nExamples:\n  ryvion-node receipts export > receipts.json\n  ryvion-node receipts export chatcmpl-4f1c... --output receipt.json",
)
@click.argument("names", metavar="[RECEIPT]...", nargs=-1)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write (mode 0600). Default: stdout.",
)
@home_option
def export_command(names: tuple[str, ...], output: Path | None, paths: Paths) -> None:
    """Write receipts as JSON that anybody can verify, with their signed audit envelopes.

    RECEIPT is a cid, a job id, or the id of a chat completion; without one, all are written. Prompts and answers are
    not in the ledger, so they are not in the file either.
    """
    import json

    from ryvion_node.ledger.reader import read_ledger

    with read_ledger(paths.ledger_file) as ledger:
        details = (
            [detail for name in names for detail in find_receipts(ledger, name, paths)]
            if names
            else list(all_receipts(ledger))
        )
    text = json.dumps({"receipts": [exported_receipt(detail) for detail in details]}, indent=2) + "\n"
    if output is None:
        click.echo(text, nl=False)
        return
    replace_private_file(output.absolute(), text.encode())
    click.echo(f"{len(details)} receipts written to {output}", err=True)


@receipts.command(
    "verify",
    epilog="\b\nExamples:\n  ryvion-node receipts verify receipt.json\n  ryvion-node receipts verify receipt.json --answer answer.txt\n  ryvion-node receipts verify receipt.json --kb contracts\n  ryvion-node receipts export | ryvion-node receipts verify - --json",
)
@click.argument("file", type=click.File("rb"))
@click.option(
    "--answer",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="File with the exact text of the answer, or with the JSON that the API gave (embeddings too); its SHA-256 is compared.",
)
@click.option(
    "--kb", "base", metavar="KB", help="Name or id of a knowledge base here, whose passages must have been used."
)
@home_option
@json_option
def verify_command(file: Any, answer: Path | None, base: str | None, paths: Paths, as_json: bool) -> None:
    """Verify exported receipts offline: no node, ledger or network is needed, so anybody can.

    Checks that the fields are well-formed, that the named node signed them, that the audit envelope is signed by the
    same node and speaks of this receipt, and that both bill the same units; and passages that `receipts prove` put into
    the file. FILE may be - for stdin. It may also be an API answer, or its `ryvion` object.

    With --kb every passage of the prompt must be in that knowledge base, whose file is read on this machine.

    Exits 0 when every receipt is valid, 1 when one is not, 2 when the file holds no receipt.
    """
    from ryvion_protocol.exported import MAX_FILE_BYTES, ReceiptFileUnreadable, read_receipts, verify_exported

    text = None if answer is None else answer.read_bytes()
    try:
        data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise ReceiptFileUnreadable(f"it is larger than {MAX_FILE_BYTES} bytes")
        found = read_receipts(data)
        verdicts = [verify_exported(exported, text) for exported in found]
    except ReceiptFileUnreadable as exc:
        click.echo(f"There is no receipt to read: {exc}", err=True)
        sys.exit(EXIT_UNREADABLE)
    if base is not None:
        verdicts = held_against(paths, base, found, verdicts)
    if as_json:
        print_json({"receipts": [_verdict_json(verdict) for verdict in verdicts]})
    else:
        for verdict in verdicts:
            _print_verdict(verdict)
    sys.exit(0 if all(verdict.valid for verdict in verdicts) else EXIT_INVALID)


def _record_json(record: ReceiptRecord) -> JsonObject:
    job = record.job
    return {
        "cid": job.receipt_cid,
        "job_id": job.job_id,
        "completion_id": job.completion_id,
        "side": job.side,
        "state": job.state,
        "model": job.model,
        "model_digest": job.digest.hex(),
        "executor_key": job.executor_key.hex(),
        "requester_key": job.requester_key.hex(),
        "jurisdiction": job.jurisdiction,
        "prompt_units": job.prompt_units,
        "completion_units": job.completion_units,
        "cost_microcredits": job.cost_microcredits,
        "at_ms": record.at_ms,
        "failure_code": job.failure_code,
    }


def _detail_json(detail: ReceiptDetail) -> dict[str, Any]:
    checks = [{"name": c.name, "outcome": c.outcome, "detail": c.detail} for c in detail.checks]
    return {**_record_json(detail.record), "checks": checks, "exported": exported_receipt(detail)}


def _row(record: ReceiptRecord) -> tuple[str, ...]:
    job = record.job
    return (
        time_text(record.at_ms),
        job.side,
        job.state,
        job.model,
        short_key(job.peer_key.hex()),
        job.jurisdiction,
        f"{job.prompt_units}+{job.completion_units}",
        credits_text(job.cost_microcredits),
        job.receipt_cid.removeprefix("ryv1:sha256:")[:16],
    )


def _print_detail(detail: ReceiptDetail, left: list[Json]) -> None:
    job = detail.record.job
    lines = {
        "receipt": job.receipt_cid,
        "job": job.job_id,
        "completion": job.completion_id or "-",
        "time": time_text(detail.record.at_ms),
        "side": f"{job.side}, {job.state}",
        "model": f"{job.model} (SHA-256 {job.digest.hex()})",
        "seller": f"{job.executor_key.hex()} in {job.jurisdiction}",
        "buyer": job.requester_key.hex(),
        "units": f"{job.prompt_units} prompt + {job.completion_units} completion tokens",
        "cost": f"{credits_text(job.cost_microcredits)} credits",
    }
    for name, value in lines.items():
        click.echo(f"{name:<11} {value}")
    for check in detail.checks:
        click.echo(f"{'check':<11} {MARKS[check.outcome]}: {check.name.replace('_', ' ')}: {check.detail}")
    for line in left_lines(left):
        click.echo(line)
    click.echo()


def _verdict_json(verdict: Verdict) -> JsonObject:
    findings = [{"name": f.name, "outcome": f.outcome, "detail": f.detail} for f in verdict.findings]
    return {"job_id": verdict.job_id, "cid": verdict.cid, "valid": verdict.valid, "findings": findings}


def _print_verdict(verdict: Verdict) -> None:
    click.echo(f"{'valid' if verdict.valid else 'NOT VALID'}: receipt {verdict.cid or 'of job ' + verdict.job_id}")
    for finding in verdict.findings:
        click.echo(f"  {MARKS[finding.outcome]:<9} {finding.name.replace('_', ' ')}: {finding.detail}")
