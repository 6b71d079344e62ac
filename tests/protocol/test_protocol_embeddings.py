"""The embedding job: any cut of the vectors hashes alike, its bill has one rule, and its receipt verifies offline."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ryvion_protocol.agreement import check_features, check_job_request
from ryvion_protocol.checks import all_passed, check_finished_job
from ryvion_protocol.constants import MAX_DIMENSIONS, MAX_TEXTS_PER_REQUEST, MAX_VECTOR_BYTES
from ryvion_protocol.errors import PayloadInvalid, SchemaError
from ryvion_protocol.exported import export_receipt, verify_exported
from ryvion_protocol.merkle import merkle_root
from ryvion_protocol.messages import EMBEDDING, EmbedRequest, Finished, Receipt, Vectors
from ryvion_protocol.money import cost_microcredits, metering_units
from ryvion_protocol.packet import pack, unpack
from ryvion_protocol.transcript import VectorsResult
from specs.embedding_samples import EMBED_REQUEST, VECTORS, embedding_evidence, sample_embedding
from specs.samples import message_of

JOB = sample_embedding()
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(st.integers(1, 4), st.lists(st.integers(1, 3), max_size=6), st.data())
def test_vectors_hash_alike_however_they_are_cut(dimensions: int, cuts: list[int], data: st.DataObject) -> None:
    """R-02-14, R-04-38."""
    total = sum(cuts)
    values = struct.pack(f"<{total * dimensions}f", *(data.draw(finite) for _ in range(total * dimensions)))
    result = VectorsResult(total)
    for seq, count in enumerate(cuts):
        at = 4 * dimensions * result.count
        message = Vectors(seq, result.count, dimensions, values[at : at + 4 * dimensions * count])
        assert message.count == count
        result.add(unpack(pack(message).raw, (Vectors,)).message)  # type: ignore[arg-type]
    assert (result.count, result.value_bytes) == (total, len(values))
    assert result.digest == hashlib.sha256(values).digest()
    result.check_end(Finished("stop", 0, 0))


@given(st.lists(st.builds(Vectors, st.integers(0, 3), st.integers(0, 3), st.integers(1, 2), st.just(bytes(8)))))
def test_any_vectors_are_put_together_or_refused(messages: list[Vectors]) -> None:
    result = VectorsResult(4)
    for message in messages:
        before = (result.count, result.digest)
        try:
            result.add(message)
        except PayloadInvalid:
            assert (result.count, result.digest) == before
    assert result.count <= 4


def test_the_largest_of_everything_fits_its_frame() -> None:
    largest = Vectors(2**32 - 1, MAX_TEXTS_PER_REQUEST - 1, 15, bytes(MAX_VECTOR_BYTES))
    assert unpack(pack(largest).raw, (Vectors,)).message == largest
    assert 4 * MAX_DIMENSIONS <= MAX_VECTOR_BYTES
    hashes = (bytes(32),) * 64
    texts = EmbedRequest(bytes(16), ("some words, not many",) * MAX_TEXTS_PER_REQUEST, hashes, merkle_root(hashes))
    assert unpack(pack(texts).raw, (EmbedRequest,)).message == texts
    for wrong in ((), ("",), ("a",) * (MAX_TEXTS_PER_REQUEST + 1)):
        with pytest.raises(SchemaError):
            pack(EmbedRequest(bytes(16), wrong))


def test_an_order_commits_to_its_texts() -> None:
    """R-04-9."""
    check_job_request(JOB.job_request, JOB.job_offer)
    check_features(JOB.job_request, JOB.job_offer, JOB.quote_request)
    with pytest.raises(PayloadInvalid, match="committed"):
        check_job_request(pack(replace(EMBED_REQUEST, texts=("Other.",))), JOB.job_offer)


@given(st.integers(0, 2**32 - 1), st.integers(0, 10**12))
def test_only_an_embedding_is_billed_without_a_completion(tokens: int, price: int) -> None:
    """R-04-17, R-04-40."""
    assert metering_units(tokens, 0, EMBEDDING) == tokens
    assert metering_units(tokens, 0) == cost_microcredits(tokens, 0, price, price) == 0
    assert cost_microcredits(tokens, 0, price, price, EMBEDDING) == -(-tokens * price // 10**6)


def test_a_good_embedding_passes_all_checks() -> None:
    assert all_passed(check_finished_job(embedding_evidence(JOB)))


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_the_receipt_of_an_embedding_verifies_with_what_clients_keep(encoding: str) -> None:
    """R-02-14."""
    exported = export_receipt(message_of(Receipt, JOB.receipt), JOB.envelope.raw)
    values = b"".join(message.values for message in VECTORS)

    def saved(vectors: list[bytes]) -> bytes:
        data = [
            {
                "object": "embedding",
                "index": index,
                "embedding": base64.b64encode(one).decode()
                if encoding == "base64"
                else list(struct.unpack("<2f", one)),
            }
            for index, one in enumerate(vectors)
        ]
        return json.dumps({"object": "list", "data": data}).encode()

    vectors = [values[at : at + 8] for at in range(0, 24, 8)]
    verdict = verify_exported(exported, saved(vectors))
    assert verdict.valid
    assert {finding.outcome for finding in verdict.findings} == {"passed"}
    assert "tokens of embedded texts" in next(f.detail for f in verdict.findings if f.name == "units")
    assert verify_exported(exported, values).valid
    assert not verify_exported(exported, saved(vectors[::-1])).valid
    assert not verify_exported(exported, json.dumps({"object": "list", "data": [{"embedding": ["a"]}]}).encode()).valid
