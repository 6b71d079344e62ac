"""`receipts`: from the ledger to the screen, to a file, and to anybody's verification."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import trio_asyncio

from ryvion_node.ledger.store import SqliteLedger, open_ledger
from ryvion_protocol.packet import pack
from ryvion_protocol.receipt import fields_of
from ryvion_protocol.schema import JobId
from tests.node.cli.conftest import Run
from tests.node.ledger.ledger_samples import begun, settlement, ticking
from tests.protocol.test_exported_receipts import ANSWER, JOB_ID, SELLER, make_envelope, make_receipt

RECEIPT = make_receipt()
CID = fields_of(RECEIPT).cid()


@pytest.fixture
async def ledger(home: Path) -> AsyncIterator[SqliteLedger]:
    """A ledger that a node holds open, with one bought and accepted job."""
    async with trio_asyncio.open_loop(), open_ledger(home / "ledger.sqlite3", clock=ticking()) as opened:
        job = replace(begun(completion_id=f"chatcmpl-{JOB_ID}"), job_id=JOB_ID, executor_key=SELLER.public_key)
        await opened.begin_job(job)
        envelope = pack(make_envelope(RECEIPT), SELLER)
        await opened.settle_bought(
            replace(
                settlement(),
                job_id=JobId(JOB_ID),
                receipt=pack(RECEIPT).raw,
                receipt_cid=CID,
                envelope=envelope.raw,
                envelope_hash=envelope.hash,
            )
        )
        yield opened


async def test_list(run: Run, ledger: SqliteLedger) -> None:
    shown = run("receipts", "list")
    assert all(text in shown.stdout for text in ("bought", "accepted", "ryvion-tiny", "0.0007", "10+1"))
    (record,) = json.loads(run("receipts", "list", "--json").stdout)["receipts"]
    assert (record["cid"], record["cost_microcredits"]) == (CID, 700)


@pytest.mark.parametrize("name", [CID, JOB_ID, f"chatcmpl-{JOB_ID}"])
async def test_show_finds_a_receipt_by_each_of_its_names(run: Run, ledger: SqliteLedger, name: str) -> None:
    shown = run("receipts", "show", name)
    assert shown.exit_code == 0
    assert all(text in shown.stdout for text in (CID, "units counted", "ok, bounded", SELLER.public_key.hex()))


async def test_an_exported_receipt_verifies_anywhere(run: Run, ledger: SqliteLedger, tmp_path: Path) -> None:
    file, answer = tmp_path / "receipt.json", tmp_path / "answer.txt"
    answer.write_text(ANSWER)
    assert run("receipts", "export", CID, "--output", str(file)).exit_code == 0
    assert file.stat().st_mode & 0o777 == 0o600
    verified = run("receipts", "verify", str(file), "--answer", str(answer), with_home=False)
    assert verified.exit_code == 0
    assert verified.stdout.startswith(f"valid: receipt {CID}")
    assert "receipt is for this answer" in verified.stdout


async def test_all_receipts_go_through_a_pipe(run: Run, ledger: SqliteLedger) -> None:
    exported = run("receipts", "export")
    verified = run("receipts", "verify", "-", "--json", with_home=False, stdin=exported.stdout.encode())
    (verdict,) = json.loads(verified.stdout)["receipts"]
    assert (verdict["valid"], verdict["cid"]) == (True, CID)


async def test_a_tampered_receipt_exits_1_and_says_what_is_wrong(run: Run, ledger: SqliteLedger) -> None:
    exported = json.loads(run("receipts", "export").stdout)
    exported["receipts"][0]["audit_envelope"]["fields"]["jurisdiction"] = "US"
    verified = run("receipts", "verify", "-", with_home=False, stdin=json.dumps(exported).encode())
    assert verified.exit_code == 1
    assert "NOT VALID" in verified.stdout and "jurisdiction" in verified.stdout


@pytest.mark.parametrize("data", [b"", b"hello", b"{}", b"[1]", b'{"job_id": "x"}'])
def test_what_is_no_receipt_exits_2(run: Run, data: bytes) -> None:
    verified = run("receipts", "verify", "-", with_home=False, stdin=data)
    assert (verified.exit_code, verified.stdout) == (2, "")
    assert "no receipt to read" in verified.stderr


async def test_an_unknown_receipt_is_said(run: Run, ledger: SqliteLedger) -> None:
    refused = run("receipts", "show", "chatcmpl-none")
    assert refused.exit_code == 66
    assert "chatcmpl-none" in str(refused.error)


def test_no_ledger_is_said(run: Run) -> None:
    assert "ryvion-node up" in str(run("receipts", "list").error)
