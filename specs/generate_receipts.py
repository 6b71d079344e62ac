"""Vectors of spec 02: RYV1 receipts and audit envelopes. `python -m specs.generate_receipts [--check]`."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace

from ryvion_protocol.codec import encode_body, pack_value
from ryvion_protocol.merkle import inclusion_path, merkle_root, root_from_path
from ryvion_protocol.messages import AuditEnvelope
from ryvion_protocol.receipt import ReceiptFields, fields_of, issue_receipt, receipt_to_json
from ryvion_protocol.schema import JobId
from specs.samples import EXECUTOR, REQUESTER, SEEDS, message_of, sample_job
from specs.vector_form import JsonValue, Vector, main

UUID_JOB = JobId("6f1c9a2e-0000-4000-8000-000000000001")
HELLO_HASH = hashlib.sha256(b"hello").digest()
FOREIGN_SIGNATURE = bytes.fromhex(
    "050fc1466fc9fb35e8066182a08f26b81fc3a1066a492cea7fdd21e1b26c4b8b"
    "61ae31814d647efaff623a7b33590d9e3ebd2a9b1e041b2f9dc8f2f4314c1f01"
)
"""By the executor's seed over job-0001, "Hello, world!", 42 units: made by another implementation."""


Piece = tuple[int, str, str, str]
Part = tuple[str, str, tuple[Piece, ...]]


def vectors() -> Sequence[Vector]:
    """All vectors of the family, in the order of the file."""
    return [*_known_answers(), *_issuing(), *_files(), *_result_hashes(), *_passages(), *_envelopes()]


def _passages() -> list[Vector]:
    """Merkle trees over the hashes of passages, and paths through them."""
    hashes = tuple(hashlib.sha256(f"passage {number}".encode()).digest() for number in range(7))
    path = inclusion_path(hashes, 5)

    def tree(size: int) -> Vector:
        leaves = hashes[:size]
        given: dict[str, JsonValue] = {"leaves": [leaf.hex() for leaf in leaves]}
        paths: list[JsonValue] = [[node.hex() for node in inclusion_path(leaves, index)] for index in range(size)]
        gives: dict[str, JsonValue] = {"root": merkle_root(leaves).hex(), "paths": paths}
        return Vector(
            f"merkle-{size}", ("R-02-15",), f"The tree over {size}.", "merkle-root", b"", given=given, gives=gives
        )

    def climb(name: str, comment: str, index: int, size: int, nodes: Sequence[bytes], code: str = "") -> Vector:
        given: dict[str, JsonValue] = {"index": index, "size": size, "path": [node.hex() for node in nodes]}
        gives: dict[str, JsonValue] = {} if code else {"root": root_from_path(hashes[5], index, size, nodes).hex()}
        expect = "payload-invalid" if code else "ok"
        return Vector(name, ("R-02-15",), comment, "merkle-path", hashes[5], (), given, expect, code, gives)

    return [
        *(tree(size) for size in (0, 1, 2, 3, 6, 7)),
        climb("merkle-path-ok", "Up from the sixth of seven.", 5, 7, path),
        climb("merkle-path-short", "One hash is missing.", 5, 7, path[:-1], "merkle_path"),
        climb("merkle-path-long", "One hash too many.", 5, 7, (*path, hashes[0]), "merkle_path"),
        climb("merkle-path-nowhere", "The eighth of seven.", 7, 7, path, "merkle_path"),
    ]


def _known_answers() -> list[Vector]:
    foreign = {
        "job_id": "job-0001",
        "node_public_key": EXECUTOR.public_key.hex(),
        "result_hash": hashlib.sha256(b"Hello, world!").hexdigest(),
        "metering_units": 42,
        "signature": base64.b64encode(FOREIGN_SIGNATURE).decode("ascii"),
    }
    fields = ReceiptFields(JobId("job-0001"), EXECUTOR.public_key, hashlib.sha256(b"Hello, world!").digest(), 42)
    own = issue_receipt(ReceiptFields(UUID_JOB, REQUESTER.public_key, HELLO_HASH, 42), REQUESTER)
    return [
        Vector(
            "ryv1-known-1",
            ("R-02-1", "R-02-2", "R-02-4"),
            "A known answer with a job id that we verify and never issue.",
            "receipt",
            _json(foreign),
            ("executor",),
            gives=_named(fields),
        ),
        Vector(
            "ryv1-known-2",
            ("R-02-1", "R-02-2", "R-02-6"),
            "A known answer with a UUID as job id.",
            "receipt",
            _json(receipt_to_json(own)),
            ("requester",),
            gives=_named(fields_of(own)),
        ),
    ]


def _issuing() -> list[Vector]:
    def issue(name: str, requirement: str, comment: str, job_id: str, units: int, code: str = "") -> Vector:
        given: dict[str, JsonValue] = {
            "seed": SEEDS["requester"].hex(),
            "job_id": job_id,
            "result_hash": HELLO_HASH.hex(),
            "metering_units": units,
        }
        if code:
            return Vector(
                name, (requirement,), comment, "receipt-issue", b"", ("requester",), given, "payload-invalid", code
            )
        fields = ReceiptFields(JobId(job_id), REQUESTER.public_key, HELLO_HASH, units)
        gives = {**_named(fields), "signature": issue_receipt(fields, REQUESTER).signature.hex()}
        return Vector(name, (requirement,), comment, "receipt-issue", b"", ("requester",), given, gives=gives)

    return [
        issue("issue-known-2", "R-02-2", "The second known answer, made again.", UUID_JOB, 42),
        issue("issue-zero", "R-02-5", "Nothing billed is written as 0.", UUID_JOB, 0),
        issue("issue-most", "R-02-5", "2^53 - 1 units.", UUID_JOB, 2**53 - 1),
        issue("issue-too-many", "R-02-5", "2^53 units.", UUID_JOB, 2**53, "receipt_units"),
        issue("issue-negative", "R-02-5", "-1 units.", UUID_JOB, -1, "receipt_units"),
        issue("issue-foreign-id", "R-02-3", "A letter outside a-f.", "job-0001", 42, "receipt_job_id"),
        issue("issue-upper-case", "R-02-3", "Upper case.", UUID_JOB.upper(), 42, "receipt_job_id"),
        issue("issue-empty-id", "R-02-3", "No job id.", "", 42, "receipt_job_id"),
        issue("issue-long-id", "R-02-3", "65 characters.", "0" * 65, 42, "receipt_job_id"),
        issue("issue-separator", "R-02-3", "A separator in the job id.", "00|11", 42, "receipt_job_id"),
    ]


def _files() -> list[Vector]:
    good = receipt_to_json(issue_receipt(ReceiptFields(UUID_JOB, REQUESTER.public_key, HELLO_HASH, 42), REQUESTER))
    signature = base64.b64decode(str(good["signature"]))
    flipped = base64.b64encode(bytes([signature[0] ^ 1]) + signature[1:]).decode("ascii")

    def bad(name: str, requirement: str, comment: str, code: str, **change: JsonValue) -> Vector:
        layer = "signature-invalid" if code == "signature_invalid" else "payload-invalid"
        content = {key: value for key, value in {**good, **change}.items() if value is not None}
        return Vector(name, (requirement,), comment, "receipt", _json(content), ("requester",), {}, layer, code)

    no_cid: dict[str, JsonValue] = {"cid": None}
    named = _named(ReceiptFields(UUID_JOB, REQUESTER.public_key, HELLO_HASH, 42))
    extra = _json({**good, "audit": {"model": "ryvion-tiny"}})
    return [
        Vector("file-extra", ("R-02-7",), "Audit metadata beside it.", "receipt", extra, ("requester",), gives=named),
        bad("file-units-changed", "R-02-2", "43 units.", "signature_invalid", metering_units=43, **no_cid),
        bad("file-hash-changed", "R-02-2", "Another result.", "signature_invalid", result_hash="00" * 32, **no_cid),
        bad("file-job-changed", "R-02-2", "Another job.", "signature_invalid", job_id=UUID_JOB[:-1] + "2", **no_cid),
        bad(
            "file-key-changed",
            "R-02-2",
            "Another node.",
            "signature_invalid",
            node_public_key=EXECUTOR.public_key.hex(),
            **no_cid,
        ),
        bad("file-signature-flipped", "R-02-2", "One bit of the signature.", "signature_invalid", signature=flipped),
        bad("file-cid-wrong", "R-02-8", "The name of another receipt.", "receipt_cid", cid="ryv1:sha256:" + "00" * 32),
        bad("file-separator", "R-02-4", "A separator in a foreign job id.", "receipt_job_id", job_id="a|b", **no_cid),
        bad("file-space", "R-02-4", "A space in a foreign job id.", "receipt_job_id", job_id="a b", **no_cid),
        bad("file-format", "R-02-7", "A format that we do not know.", "receipt_format", format="RYV2"),
        bad("file-units-true", "R-02-7", "true is no number.", "receipt_json", metering_units=True, **no_cid),
        bad("file-units-text", "R-02-7", "Units as text.", "receipt_json", metering_units="42", **no_cid),
        bad("file-no-signature", "R-02-7", "No signature.", "receipt_json", signature=None),
        bad("file-signature-hex", "R-02-7", "Hex where base64 belongs.", "receipt_json", signature=signature.hex()),
        bad(
            "file-upper-hex",
            "R-02-7",
            "Upper-case hex.",
            "receipt_json",
            result_hash=HELLO_HASH.hex().upper(),
            **no_cid,
        ),
        Vector("file-array", ("R-02-7",), "No object.", "receipt", b"[]", (), {}, "payload-invalid", "receipt_json"),
    ]


def _result_hashes() -> list[Vector]:
    def hashed(
        name: str, requirement: str, comment: str, payload: bytes, texts: Sequence[str], *deltas: Part
    ) -> Vector:
        gives: dict[str, JsonValue] = {
            "result_hash": hashlib.sha256(payload).hexdigest(),
            "text_bytes": sum(len(text.encode()) for text in texts),
            "billable_texts": list(texts),
        }
        given: dict[str, JsonValue] = {"deltas": list(deltas)}
        return Vector(name, (requirement,), comment, "result-hash", payload, (), given, gives=gives)

    def text(name: str, comment: str, *pieces: str) -> Vector:
        whole = "".join(pieces)
        return hashed(
            name, "R-02-9", comment, whole.encode(), [whole] if whole else [], *((piece, "", ()) for piece in pieces)
        )

    def refused(name: str, comment: str, *pieces: Piece) -> Vector:
        given: dict[str, JsonValue] = {"deltas": [("", "", pieces)]}
        layer = "payload-invalid"
        return Vector(name, ("R-04-31",), comment, "result-hash", b"", (), given, layer, "call_order")

    first, more = (0, "c1", "add", '{"a":'), (0, "", "", "1}")
    return [
        text("result-pieces", "Pieces are joined without anything between them.", "Hello", ", ", "world!"),
        text("result-utf8", "UTF-8, not normalised.", "Gru\u0308ße"),
        text("result-empty", "No text at all."),
        hashed(
            "result-reasoning",
            "R-02-13",
            "Thoughts beside the text.",
            b"\x93\xa24.\xaeTwo and two...\x90",
            ["4.", "Two and two..."],
            ("", "Two and ", ()),
            ("", "two...", ()),
            ("4.", "", ()),
        ),
        hashed(
            "result-calls",
            "R-02-13",
            "Two calls, the first in two pieces, the second without arguments.",
            b'\x93\xa0\xa0\x92\x93\xa2c1\xa3add\xa7{"a":1}\x93\xa2c2\xa4stop\xa0',
            ["add", '{"a":1}', "stop"],
            ("", "", (first,)),
            ("", "", (more, (1, "c2", "stop", ""))),
        ),
        refused("call-headless", "A call's second piece without its first.", more),
        refused("call-skipped", "Call 1 before call 0.", (1, "c2", "stop", "")),
        refused("call-begun-twice", "A second first piece.", first, first),
        refused("call-nameless", "A first piece without a name.", (0, "c1", "", "")),
        refused("call-without-id", "A first piece without an id.", (0, "", "add", "")),
        refused("call-renamed", "A second piece with a name.", first, (0, "", "add", "")),
        refused("call-resumed", "Call 0 goes on after call 1 began.", first, (1, "c2", "stop", ""), more),
    ]


def _envelopes() -> list[Vector]:
    job = sample_job()
    envelope = message_of(AuditEnvelope, job.envelope)

    def bad(name: str, requirement: str, comment: str, code: str, changed: AuditEnvelope) -> Vector:
        body = encode_body(changed)
        raw = pack_value((changed.TYPE, body, EXECUTOR.sign_typed(changed.TYPE, body)))
        given: dict[str, JsonValue] = {"allowed": [changed.TYPE]}
        return Vector(name, (requirement,), comment, "packet", raw, ("executor",), given, "payload-invalid", code)

    late = replace(envelope, started_ms=envelope.finished_ms + 1)
    early = replace(envelope, first_token_ms=envelope.started_ms - 1)
    forged = job.envelope
    raw = pack_value((envelope.TYPE, forged.body, REQUESTER.sign_typed(envelope.TYPE, forged.body)))
    given: dict[str, JsonValue] = {"allowed": [envelope.TYPE]}
    return [
        Vector(
            "envelope-ok",
            ("R-02-11", "R-02-12"),
            "The envelope of the sample job.",
            "packet",
            job.envelope.raw,
            ("executor", "requester"),
            given,
            gives={"type": envelope.TYPE, "hash": job.envelope.hash.hex()},
        ),
        bad("envelope-status", "R-02-11", "An unknown status.", "envelope_status", replace(envelope, status="done")),
        bad("envelope-backwards", "R-02-11", "It finished before it started.", "envelope_times", late),
        bad("envelope-first-token", "R-02-11", "Its first token came before it started.", "envelope_times", early),
        Vector(
            "envelope-forged",
            ("R-02-12",),
            "Signed by the requester in the executor's name.",
            "packet",
            raw,
            ("executor", "requester"),
            given,
            "signature-invalid",
            "signature_invalid",
        ),
    ]


def _named(fields: ReceiptFields) -> dict[str, JsonValue]:
    return {"preimage": fields.preimage().decode("ascii"), "digest": fields.digest().hex(), "cid": fields.cid()}


def _json(content: object) -> bytes:
    return json.dumps(content, separators=(",", ":"), sort_keys=True).encode()


if __name__ == "__main__":
    main("02", "receipts", vectors)
