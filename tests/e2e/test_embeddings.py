"""Vectors between real nodes: bought with the official client, found to mean something, and verified offline."""

from __future__ import annotations

import json
from pathlib import Path

import openai
import pytest

from tests.e2e.live import cli, live_market

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

MODEL = "ryvion-embed-tiny"
TEXTS = (
    "How do I change my password?",
    "I forgot my password and want to set a new one.",
    "The soup needs salt and a little pepper.",
    "Add more salt to the soup.",
)


def likeness(one: list[float], other: list[float]) -> float:
    """Cosine of the angle between two vectors of length 1."""
    return sum(a * b for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_texts_of_one_meaning_lie_close_and_their_receipt_verifies_offline(tmp_path: Path, encoding: str) -> None:
    with live_market(tmp_path) as market:
        market.start("bootstrap").wait_until_ready()
        seller = market.sell("seller", "DE", "0.5", MODEL)
        market.buy()
        market.ready(offers=1)
        assert seller.ready["serving"] == [MODEL]
        with openai.OpenAI(
            base_url=market.endpoint,
            api_key=market.api_key,
            http_client=openai.DefaultHttpxClient(trust_env=False),
            max_retries=0,
        ) as client:
            assert client.models.retrieve(MODEL).model_extra["ryvion"]["kinds"] == ["embedding"]  # type: ignore[index]
            raw = client.embeddings.with_raw_response.create(
                model=MODEL,
                input=list(TEXTS),
                encoding_format=encoding,  # type: ignore[arg-type]
            ).content
            vectors = [item.embedding for item in client.embeddings.create(model=MODEL, input=list(TEXTS)).data]
            with pytest.raises(openai.BadRequestError) as caught:
                client.embeddings.create(model=MODEL, input="word " * 2000)
            assert caught.value.code == "context_length_exceeded"
        assert likeness(vectors[0], vectors[1]) > max(likeness(vectors[0], other) for other in vectors[2:])
        assert likeness(vectors[2], vectors[3]) > max(likeness(vectors[2], other) for other in vectors[:2])
        assert all(likeness(vector, vector) == pytest.approx(1, abs=1e-5) for vector in vectors)
        about = json.loads(raw)["ryvion"]
        assert about["accepted"] is True
        assert {check["outcome"] for check in about["checks"]} == {"passed"}
        assert about["receipt"]["metering_units"] == json.loads(raw)["usage"]["prompt_tokens"] > 4 * len(TEXTS)
        assert about["cost_microcredits"] > 0
        receipt, answer = tmp_path / "receipt.json", tmp_path / "answer.json"
        receipt.write_text(json.dumps(about))
        answer.write_bytes(raw)
        verified = cli("receipts", "verify", str(receipt), "--answer", str(answer))
        assert verified.returncode == 0, verified.stdout + verified.stderr
        answer.write_text(json.dumps({"object": "list", "data": json.loads(raw)["data"][::-1]}))
        assert cli("receipts", "verify", str(receipt), "--answer", str(answer)).returncode != 0
        sold = [job for job in market.jobs("seller", "sold") if job.cost_microcredits]
        assert [job.cost_microcredits for job in sold] == [about["cost_microcredits"]] * 2
