"""Answers grounded in documents, with real nodes: what they say, what the receipt proves, what left and to whom."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from ryvion_protocol.merkle import merkle_root
from tests.e2e.live import LiveMarket, cli, live_market, wait_until
from tests.e2e.real_documents import write_harbour

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

CHAT, EMBEDDING = "ryvion-tiny", "ryvion-embed-tiny"
QUESTION = [{"role": "user", "content": "When does the ferry to Lund leave?"}]
ROOT = "/api/v1/knowledge-bases"


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveMarket]:
    """A seller of answers in Canada, a seller of vectors in Germany, and a buyer."""
    with live_market(tmp_path_factory.mktemp("knowledge")) as running:
        running.start("bootstrap").wait_until_ready()
        running.sell("chatter", "CA", "0.5", CHAT)
        running.sell("embedder", "DE", "0.5", EMBEDDING)
        running.buy()
        running.ready(offers=2)
        yield running


@pytest.fixture
def http(market: LiveMarket) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {market.api_key}"}
    with httpx.Client(
        base_url=market.endpoint.removesuffix("/v1"), headers=headers, trust_env=False, timeout=30
    ) as client:
        yield client


@pytest.fixture
def client(market: LiveMarket) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=market.endpoint,
        api_key=market.api_key,
        http_client=openai.DefaultHttpxClient(trust_env=False),
        max_retries=0,
    ) as made:
        yield made


def base_with(http: httpx.Client, text: str, jurisdiction: str | None = None) -> str:
    """A knowledge base of one document that searches find."""
    base = str(http.post(ROOT, json={"name": "Ferries", "jurisdiction": jurisdiction}).json()["id"])
    sent = http.post(f"{ROOT}/{base}/documents", files={"file": ("timetable.md", text.encode())})
    assert sent.status_code == 202, sent.text
    path = f"{ROOT}/{base}/documents/{sent.json()['id']}"
    wait_until(lambda: http.get(path).json()["state"] == "ready", "the document is ready")
    return base


def disclosed(http: httpx.Client, **asked: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = http.get("/api/v1/disclosures", params=asked).json()["data"]
    return found


def say(client: openai.OpenAI, base: str | None) -> Any:
    body = {} if base is None else {"extra_body": {"knowledge_base": base}}
    return client.chat.completions.create(
        model=CHAT,
        messages=QUESTION,  # type: ignore[arg-type]
        temperature=0,
        max_tokens=40,
        **body,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("time", ["7:45", "9:10"])
def test_the_answer_follows_the_document_and_the_receipt_proves_it(
    http: httpx.Client, client: openai.OpenAI, market: LiveMarket, tmp_path: Path, time: str
) -> None:
    base = base_with(http, f"The ferry to Lund leaves at {time}.")
    (document,) = http.get(f"{ROOT}/{base}/documents").json()["data"]
    assert (document["chunks"], document["embedded"]) == (1, 1)
    assert time not in str(say(client, None).choices[0].message.content)
    answer = say(client, base)
    assert answer.choices[0].message.content == f"The ferry to Lund leaves at {time}."
    about = answer.model_extra["ryvion"]
    (source,) = about["sources"]
    digest = hashlib.sha256(f"The ferry to Lund leaves at {time}.".encode()).digest()
    assert (source["filename"], source["sha256"]) == ("timetable.md", digest.hex())
    assert about["search"]["method"] == "hybrid"
    signed = about["envelope"]["fields"]
    assert signed["chunk_hashes"] == [digest.hex()]
    assert signed["chunk_root"] == merkle_root([digest]).hex()
    assert about["accepted"] is True
    assert {check["outcome"] for check in about["checks"]} == {"passed"}
    receipt = tmp_path / "receipt.json"
    receipt.write_text(json.dumps(about))
    verified = cli("receipts", "verify", str(receipt))
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_what_left_is_listed_with_whom_it_went_to(
    http: httpx.Client, client: openai.OpenAI, market: LiveMarket
) -> None:
    base = base_with(http, "The ferry to Lund leaves at 11:30.")
    http.post(f"{ROOT}/{base}/search", json={"query": "Which boat goes at half past eleven?"})
    answer = say(client, base)
    peers = {str(market.nodes[name].ready["peer_id"]): name for name in ("chatter", "embedder")}
    listed = disclosed(http, knowledge_base=base)
    left = [(one["purpose"], peers[one["peer_id"]], one["jurisdiction"], len(one["chunks"])) for one in listed]
    # The vector of a question that was asked before is remembered, so that one may not have left again.
    assert set(left) == {
        ("prompt", "chatter", "CA", 1),
        ("query", "embedder", "DE", 0),
        ("embedding", "embedder", "DE", 1),
    }
    assert [purpose for purpose, *_ in left if purpose != "query"] == ["prompt", "embedding"]
    (carried,) = disclosed(http, completion_id=answer.id)
    assert carried["job_id"] == answer.model_extra["ryvion"]["job_id"]
    assert carried["chunks"][0]["sha256"] == answer.model_extra["ryvion"]["sources"][0]["sha256"]
    for node in market.nodes.values():
        assert "ferry" not in node.log_file.read_text()
    bought = {job.job_id: job for job in market.jobs("buyer", "bought")}
    for one in listed:
        assert bought[one["job_id"]].completion_id == one["completion_id"]
        assert bought[one["job_id"]].key_id.startswith("key-")


def test_a_base_whose_country_nobody_serves_fails_closed(http: httpx.Client, client: openai.OpenAI) -> None:
    base = base_with(http, "The ferry to Lund leaves at 5:05.", "JP")
    (document,) = http.get(f"{ROOT}/{base}/documents").json()["data"]
    assert (document["state"], document["embedded"]) == ("ready", 0)
    assert "no node in JP" in document["warnings"][0]
    with pytest.raises(openai.PermissionDeniedError) as caught:
        say(client, base)
    assert caught.value.code == "jurisdiction_not_allowed"
    found = http.post(f"{ROOT}/{base}/search", json={"query": "ferry to Lund"}).json()
    assert (found["method"], len(found["results"])) == ("bm25", 1)
    assert disclosed(http, knowledge_base=base) == []


def test_a_node_that_serves_the_model_itself_sends_nothing_to_make_vectors(tmp_path: Path) -> None:
    with live_market(tmp_path) as alone:
        path = tmp_path / "own.toml"
        path.write_text(
            f'[node]\njurisdiction = "DE"\n[executor]\nenabled = true\n[[executor.models]]\nname = "{EMBEDDING}"\n'
        )
        alone.buy("buyer", "--config", str(path)).wait_until_ready()
        headers = {"authorization": f"Bearer {alone.api_key}"}
        url = alone.endpoint.removesuffix("/v1")
        with httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=30) as http:
            base = base_with(http, "The ferry to Lund leaves at 7:45.")
            (document,) = http.get(f"{ROOT}/{base}/documents").json()["data"]
            assert document["embedded"] == 1
            found = http.post(f"{ROOT}/{base}/search", json={"query": "When does the boat leave?"}).json()
            assert found["method"] == "hybrid"
            assert disclosed(http) == []
        assert alone.jobs("buyer", "bought") == []


def test_from_a_folder_to_the_proof_of_one_passage(client: openai.OpenAI, market: LiveMarket, tmp_path: Path) -> None:
    docs = write_harbour(tmp_path)
    home = ("--home", str(market.nodes["buyer"].paths.home))
    base = cli("kb", "create", "harbour", *home).stdout.strip()

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

    about = say(client, base).model_extra["ryvion"]
    ferry = next(source for source in about["sources"] if source["filename"] == "harbour/ferries.pdf")
    assert ferry["page"] == 1

    job_id = about["job_id"]
    (left,) = json.loads(cli("kb", "disclosures", job_id, "--json", *home).stdout)["disclosures"]
    assert (left["jurisdiction"], left["purpose"]) == ("CA", "prompt")
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
