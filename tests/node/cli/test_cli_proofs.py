"""Passages on the command line: what left, receipts held against a knowledge base, and proofs for others."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import trio_asyncio

from ryvion_node.knowledge.fake import WordEmbedder
from ryvion_node.knowledge.interface import Passage
from ryvion_node.knowledge.records import DisclosedChunk, Disclosure
from ryvion_node.knowledge.search import Search
from ryvion_node.knowledge.store import KnowledgeStore
from ryvion_node.ledger.store import open_ledger
from ryvion_protocol.merkle import merkle_root
from ryvion_protocol.packet import pack
from ryvion_protocol.receipt import fields_of
from ryvion_protocol.schema import JobId
from tests.node.cli.conftest import Run
from tests.node.knowledge.store_support import ingest_all, opened
from tests.node.ledger.ledger_samples import begun, settlement, ticking
from tests.protocol.test_exported_receipts import JOB_ID, SELLER, make_envelope, make_receipt

ANSWER_ID = "chatcmpl-4f1c"
FERRIES = b"# Ferries\n\nThe ferry to Lund leaves at a quarter past eight.\n\n# Fares\n\nA ticket for the ferry costs twelve crowns.\n"
RECEIPT = make_receipt()


@dataclass(frozen=True, slots=True)
class Grounded:
    """A home with a knowledge base, and a receipt of a job that carried two of its passages."""

    base: str
    store: KnowledgeStore
    passages: tuple[Passage, ...]


@pytest.fixture
async def grounded(home: Path) -> AsyncIterator[Grounded]:
    async with opened(home / "knowledge.db") as store:
        base = await store.create_knowledge_base("Timetables")
        await store.add_document(base.id, FERRIES, "docs/ferries.md")
        await store.add_document(base.id, b"The harbour master is called Olga.", "harbour.txt")
        embedder = WordEmbedder()
        await ingest_all(store, embedder)
        found = await Search(store, embedder).search(base.id, "ferry ticket Lund", 2)
        assert len(found.passages) == 2
        await store.record_disclosure(
            Disclosure(
                job_id=JOB_ID,
                completion_id=ANSWER_ID,
                knowledge_base=base.id,
                node_key=SELLER.public_key,
                jurisdiction="DE",
                purpose="prompt",
                at_ms=1_000,
                chunks=tuple(DisclosedChunk(one.chunk_id, one.sha256) for one in found.passages),
            )
        )
        await buy(home, found.passages)
        yield Grounded(base.id, store, found.passages)


async def buy(home: Path, passages: tuple[Passage, ...]) -> None:
    """Put the job into the ledger."""
    hashes = tuple(bytes.fromhex(passage.sha256) for passage in passages)
    signed = replace(make_envelope(RECEIPT), chunk_hashes=hashes, chunk_root=merkle_root(hashes))
    envelope = pack(signed, SELLER)
    async with trio_asyncio.open_loop(), open_ledger(home / "ledger.sqlite3", clock=ticking()) as ledger:
        await ledger.begin_job(replace(begun(completion_id=ANSWER_ID), job_id=JOB_ID, executor_key=SELLER.public_key))
        await ledger.settle_bought(
            replace(
                settlement(),
                job_id=JobId(JOB_ID),
                receipt=pack(RECEIPT).raw,
                receipt_cid=fields_of(RECEIPT).cid(),
                envelope=envelope.raw,
                envelope_hash=envelope.hash,
            )
        )


def exported(run: Run, tmp_path: Path) -> str:
    file = tmp_path / "receipt.json"
    run("receipts", "export", ANSWER_ID, "--output", str(file))
    return str(file)


async def test_what_left_is_listed_with_the_places_of_the_passages(run: Run, grounded: Grounded) -> None:
    listed = run("kb", "disclosures")
    assert all(text in listed.stdout for text in ("1 job that carried", ANSWER_ID, "DE", SELLER.public_key.hex()[:12]))
    for name in (ANSWER_ID, JOB_ID):
        shown = run("kb", "disclosures", name).stdout
        for passage in grounded.passages:
            span = f"characters {passage.chunk.start}-{passage.chunk.end}"
            assert f"{passage.chunk_id} docs/ferries.md, {span}" in shown
    (one,) = json.loads(run("kb", "disclosures", "--kb", "Timetables", "--json").stdout)["disclosures"]
    assert (one["purpose"], one["jurisdiction"], one["node_id"]) == ("prompt", "DE", SELLER.public_key.hex())
    assert [chunk["sha256"] for chunk in one["chunks"]] == [passage.sha256 for passage in grounded.passages]
    assert run("kb", "disclosures", "chatcmpl-none").stdout == ""


async def test_a_receipt_shows_what_its_job_carried_away(run: Run, grounded: Grounded) -> None:
    shown = run("receipts", "show", ANSWER_ID).stdout
    assert "2 passages of" in shown and grounded.passages[0].chunk_id in shown
    (one,) = json.loads(run("receipts", "show", ANSWER_ID, "--json").stdout)["receipts"]
    assert len(one["disclosures"][0]["chunks"]) == 2


async def test_a_receipt_is_shown_though_the_knowledge_bases_are_damaged(run: Run, home: Path) -> None:
    await buy(home, ())
    (home / "knowledge.db").touch(mode=0o600)
    (home / "knowledge.db").write_bytes(b"not a database at all" * 100)
    shown = run("receipts", "show", ANSWER_ID)
    assert (shown.exit_code, JOB_ID in shown.stdout) == (0, True)
    assert "Put a backup" in shown.stderr


async def test_the_record_outlives_the_documents(run: Run, grounded: Grounded) -> None:
    await grounded.store.delete_knowledge_base(grounded.base)
    assert "is not there any more" in run("kb", "disclosures", ANSWER_ID).stdout
    assert run("kb", "disclosures", "--kb", grounded.base).stdout


async def test_a_receipt_is_held_against_the_knowledge_base(run: Run, grounded: Grounded, tmp_path: Path) -> None:
    file = exported(run, tmp_path)
    verified = run("receipts", "verify", file, "--kb", "Timetables")
    assert verified.exit_code == 0
    assert verified.stdout.count("docs/ferries.md, characters") == 2
    assert "root over all 2 was signed" in verified.stdout
    by_id = run("receipts", "verify", file, "--kb", grounded.base, "--json")
    (verdict,) = json.loads(by_id.stdout)["receipts"]
    assert verdict["valid"]


async def test_a_passage_that_is_not_there_any_more_exits_1(run: Run, grounded: Grounded, tmp_path: Path) -> None:
    file = exported(run, tmp_path)
    other = await grounded.store.create_knowledge_base("Other")
    elsewhere = run("receipts", "verify", file, "--kb", other.id)
    changed = FERRIES.replace(b"twelve", b"thirteen")
    await grounded.store.add_document(grounded.base, changed, "docs/ferries.md")
    await ingest_all(grounded.store, WordEmbedder())
    verified = run("receipts", "verify", file, "--kb", "Timetables")
    assert (elsewhere.exit_code, verified.exit_code) == (1, 1)
    assert elsewhere.stdout.count("Not in this knowledge base") == 2
    assert verified.stdout.count("Not in this knowledge base") == 1
    assert run("receipts", "verify", file).exit_code == 0


async def test_one_passage_is_proved_and_verified_with_nothing_but_the_file(
    run: Run, grounded: Grounded, tmp_path: Path
) -> None:
    proved, other = grounded.passages
    proof = run("receipts", "prove", ANSWER_ID, "--chunk", proved.chunk_id)
    assert proof.exit_code == 0
    assert [one["text"] for one in json.loads(proof.stdout)["passages"]] == [proved.chunk.text]
    verified = run("receipts", "verify", "-", with_home=False, stdin=proof.stdout.encode())
    assert verified.exit_code == 0
    assert "is number 1 of the 2 that the order named" in verified.stdout
    tampered = proof.stdout.replace("ferry", "train", 1)
    assert tampered != proof.stdout
    refused = run("receipts", "verify", "-", with_home=False, stdin=tampered.encode())
    assert refused.exit_code == 1
    assert "FAILED    passage 1" in refused.stdout
    file = tmp_path / "proof.json"
    both = run("receipts", "prove", JOB_ID, *("--chunk", proved.chunk_id, "--chunk", other.chunk_id), "-o", str(file))
    assert (both.stdout, file.stat().st_mode & 0o777) == ("", 0o600)
    assert run("receipts", "verify", str(file), with_home=False).exit_code == 0


async def test_what_was_not_in_the_prompt_cannot_be_proved(run: Run, grounded: Grounded) -> None:
    (harbour,) = [one for one in await all_passages(grounded) if one.filename == "harbour.txt"]
    refused = run("receipts", "prove", ANSWER_ID, "--chunk", grounded.passages[0].chunk_id, "--chunk", harbour.chunk_id)
    assert refused.exit_code == 66
    assert harbour.chunk_id in str(refused.error)
    for unknown in (f"chk_{'0' * 24}", "chk_", "nonsense"):
        refused = run("receipts", "prove", ANSWER_ID, "--chunk", unknown)
        assert refused.exit_code == 66 and "kb disclosures" in str(refused.error)


async def all_passages(grounded: Grounded) -> tuple[Passage, ...]:
    found = await Search(grounded.store, WordEmbedder()).search(grounded.base, "ferry harbour master Olga", 10)
    return found.passages


@pytest.mark.parametrize(
    "command", [("kb", "disclosures"), ("receipts", "prove", ANSWER_ID, "--chunk", "chk_0"), ("receipts", "verify")]
)
async def test_without_knowledge_bases_that_is_said(
    run: Run, tmp_path: Path, home: Path, command: tuple[str, ...]
) -> None:
    await buy(home, ())
    if command == ("receipts", "verify"):
        command = ("receipts", "verify", exported(run, tmp_path), "--kb", "Timetables")
    refused = run(*command)
    assert refused.exit_code == 66
    assert "ryvion-node up --proxy" in str(refused.error)
    assert not (home / "knowledge.db").exists()


async def test_a_receipt_without_passages_does_not_pass_for_one(run: Run, home: Path, tmp_path: Path) -> None:
    await buy(home, ())
    async with opened(home / "knowledge.db") as store:
        await store.create_knowledge_base("Timetables")
        refused = run("receipts", "verify", exported(run, tmp_path), "--kb", "Timetables")
    assert refused.exit_code == 1
    assert "names no passage" in refused.stdout
    assert run("receipts", "show", ANSWER_ID).exit_code == 0
