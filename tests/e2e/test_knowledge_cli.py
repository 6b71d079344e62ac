"""Knowledge bases on the command line, with real nodes: a folder of real files, an answer, and a proof of what it used."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docx
import fpdf
import openai
import pytest

from tests.e2e.live import LiveMarket, cli, live_market

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

CHAT, EMBED = "ryvion-tiny", "ryvion-embed-tiny"


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveMarket]:
    """A seller that answers and makes vectors, and a buyer."""
    with live_market(tmp_path_factory.mktemp("knowledge")) as running:
        running.start("bootstrap").wait_until_ready()
        running.sell("seller", "DE", "0.5", CHAT, EMBED)
        running.buy()
        running.ready(offers=1)
        yield running


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    """One file of each kind, one that is broken, and what nobody wants to add."""
    folder = tmp_path / "harbour"
    (folder / "rules").mkdir(parents=True)
    (folder / "boats.md").write_text("# Boats\n\nThe boat is called Marigold.\n\n# Engine\n\nIt is from 1984.\n")
    (folder / "prices.csv").write_text("item,price\nticket,12\nbicycle,3\n")
    pdf = fpdf.FPDF()
    for text in ("The ferry to Lund leaves at a quarter past eight.", "In winter there is no ferry."):
        pdf.add_page()
        pdf.set_font("Helvetica", size=12)
        pdf.multi_cell(0, 8, text)
    pdf.output(str(folder / "ferries.pdf"))
    document = docx.Document()
    document.add_heading("Harbour rules", 1)
    document.add_paragraph("The harbour master is Berta Quist. Boats are moored by eight in the evening.")
    document.save(str(folder / "rules" / "harbour.docx"))
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7\nnothing else")
    (folder / ".notes").write_text("hidden")
    (folder / "photo.jpg").write_bytes(b"\xff\xd8\xff\0\0")
    return folder


def test_from_a_folder_to_a_proof(market: LiveMarket, docs: Path, tmp_path: Path) -> None:
    home = ("--home", str(market.nodes["buyer"].paths.home))
    base = cli("kb", "create", "harbour", "--jurisdiction", "EU", *home).stdout.strip()

    added = cli("kb", "add", "harbour", str(docs), "--json", *home)
    assert added.returncode == 1, "one file is broken"
    files = {file["filename"]: file for file in json.loads(added.stdout)["files"]}
    broken = files.pop("harbour/broken.pdf")
    assert "damaged" in broken["error"]
    assert sorted(files) == [
        f"harbour/{name}" for name in ("boats.md", "ferries.pdf", "prices.csv", "rules/harbour.docx")
    ]
    assert all(file["document"]["state"] == "ready" and file["document"]["embedded"] > 0 for file in files.values())
    assert json.loads(added.stdout)["left_out"] == {"hidden": 1, "binary": 1}

    (docs / "broken.pdf").unlink()
    (docs / "boats.md").write_text("# Boats\n\nThe boat is called Heidi.\n")
    again = cli("kb", "add", base, str(docs), *home)
    assert again.returncode == 0
    assert "replaced   harbour/boats.md" in again.stdout and "unchanged  harbour/ferries.pdf" in again.stdout
    found = json.loads(cli("kb", "search", "harbour", "What is the boat called?", "--json", *home).stdout)
    assert found["method"] == "hybrid"
    assert "Heidi" in found["results"][0]["content"]
    assert not any("Marigold" in result["content"] for result in found["results"])

    about = ask(market, base, "When does the ferry to Lund leave?")
    ferry = next(source for source in about["sources"] if source["filename"] == "harbour/ferries.pdf")
    assert ferry["page"] == 1

    job_id = about["job_id"]
    (left,) = json.loads(cli("kb", "disclosures", job_id, "--json", *home).stdout)["disclosures"]
    assert (left["jurisdiction"], left["purpose"]) == ("DE", "prompt")
    assert [chunk["chunk_id"] for chunk in left["chunks"]] == [source["chunk_id"] for source in about["sources"]]

    receipt, proof = tmp_path / "receipt.json", tmp_path / "proof.json"
    receipt.write_text(json.dumps(about))
    assert cli("receipts", "verify", str(receipt), "--kb", "harbour", *home).returncode == 0
    assert cli("receipts", "prove", job_id, "--chunk", ferry["chunk_id"], "-o", str(proof), *home).returncode == 0
    verified = cli("receipts", "verify", str(proof))
    assert verified.returncode == 0, verified.stdout
    assert f"number {ferry['number']} of the {len(about['sources'])}" in verified.stdout

    proof.write_text(proof.read_text().replace("quarter past eight", "quarter past nine"))
    assert cli("receipts", "verify", str(proof)).returncode == 1
    assert cli("kb", "delete", "harbour", "harbour/ferries.pdf", "--yes", *home).returncode == 0
    gone = cli("receipts", "verify", str(receipt), "--kb", "harbour", *home)
    assert gone.returncode == 1
    assert "Not in this knowledge base" in gone.stdout


def ask(market: LiveMarket, base: str, question: str) -> dict[str, Any]:
    """The `ryvion` object of an answer."""
    with openai.OpenAI(
        base_url=market.endpoint,
        api_key=market.api_key,
        http_client=openai.DefaultHttpxClient(trust_env=False),
        max_retries=0,
    ) as client:
        answer = client.chat.completions.create(
            model=CHAT,
            messages=[{"role": "user", "content": question}],
            max_tokens=16,
            extra_body={"knowledge_base": base},
        )
    assert answer.model_extra is not None
    return dict(answer.model_extra["ryvion"])
