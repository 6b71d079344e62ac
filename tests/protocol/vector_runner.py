"""Runs one vector: what to do for each `operation`, as specs/README.md describes them."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from ryvion_protocol.agreement import (
    check_features,
    check_job_offer,
    check_job_request,
    check_kind,
    check_quote,
    check_started,
)
from ryvion_protocol.any_message import Message
from ryvion_protocol.checks import JobEvidence, check_finished_job, first_failure
from ryvion_protocol.errors import PayloadInvalid
from ryvion_protocol.features import needed_features
from ryvion_protocol.framing import FrameDecoder
from ryvion_protocol.job import JobMachine, job_id_of
from ryvion_protocol.merkle import inclusion_path, merkle_root, root_from_path
from ryvion_protocol.messages import (
    AuditEnvelope,
    CallPiece,
    Delta,
    EmbedRequest,
    Finished,
    JobOffer,
    JobRequest,
    Offer,
    Quote,
    QuoteRequest,
    Receipt,
    Sampling,
    Started,
    Vectors,
    Withdraw,
)
from ryvion_protocol.money import cost_microcredits, metering_units
from ryvion_protocol.offers import check_offer_times, check_withdraw_times
from ryvion_protocol.packet import MessageClass, Packet, unpack
from ryvion_protocol.receipt import ReceiptFields, fields_of, issue_receipt, receipt_from_json, verify_receipt
from ryvion_protocol.schema import JobId, NodeKey
from ryvion_protocol.signing import SigningIdentity, signing_input, verify_typed
from ryvion_protocol.transcript import DeltaOrder, ResultBuilder, Transcript, VectorsResult
from ryvion_protocol.zigzag import unzigzag, zigzag
from specs.sampling_reference import (
    Place,
    chosen_token,
    kept_tokens,
    log_probabilities,
    margin,
    noise_halves,
    ruled_logits,
)
from specs.vector_form import plain

Json = dict[str, Any]
CLASSES: dict[str, MessageClass] = {cls.TYPE: cls for cls in get_args(Message)}
FOLDER = Path(__file__).parents[2] / "specs" / "vectors"


@dataclass(frozen=True)
class Case:
    """One vector as it stands in its file."""

    content: Json

    @property
    def id(self) -> str:
        return str(self.content["id"])


def load_cases() -> list[Case]:
    return [
        Case(vector)
        for path in sorted(FOLDER.glob("*.json"))
        for vector in json.loads(path.read_text(encoding="utf-8"))["vectors"]
    ]


def run(vector: Json) -> Json:
    """Do what the vector says; return what came out, or raise the ProtocolError."""
    return OPERATIONS[vector["operation"]](bytes.fromhex(vector["input_hex"]), vector["given"])


def _frames(data: bytes, given: Json) -> Json:
    decoder = FrameDecoder(given["max_bytes"])
    payloads = decoder.feed(data)
    decoder.finish()
    return {"payloads": [payload.hex() for payload in payloads]}


def _packet(data: bytes, given: Json) -> Json:
    packet = unpack(data, tuple(CLASSES[name] for name in given["allowed"]))
    return {"type": packet.message.TYPE, "hash": packet.hash.hex(), "fields": plain(packet.message)}


def _typed_signature(data: bytes, given: Json) -> Json:
    verify_typed(bytes.fromhex(given["key"]), given["type"], data, bytes.fromhex(given["signature"]))
    return {"signing_input": signing_input(given["type"], data).hex()}


def _receipt(data: bytes, given: Json) -> Json:
    receipt = receipt_from_json(json.loads(data))
    verify_receipt(receipt)
    return _named(fields_of(receipt))


def _merkle_root(data: bytes, given: Json) -> Json:
    leaves = _leaves(given)
    paths = [[node.hex() for node in inclusion_path(leaves, index)] for index in range(len(leaves))]
    return {"root": merkle_root(leaves).hex(), "paths": paths}


def _merkle_path(data: bytes, given: Json) -> Json:
    path = [bytes.fromhex(node) for node in given["path"]]
    return {"root": root_from_path(data, given["index"], given["size"], path).hex()}


def _leaves(given: Json) -> list[bytes]:
    return [bytes.fromhex(leaf) for leaf in given["leaves"]]


def _receipt_issue(data: bytes, given: Json) -> Json:
    identity = SigningIdentity(bytes.fromhex(given["seed"]))
    result_hash = bytes.fromhex(given["result_hash"])
    fields = ReceiptFields(JobId(given["job_id"]), identity.public_key, result_hash, given["metering_units"])
    return {"signature": issue_receipt(fields, identity).signature.hex(), **_named(fields)}


def _named(fields: ReceiptFields) -> Json:
    return {"preimage": fields.preimage().decode(), "digest": fields.digest().hex(), "cid": fields.cid()}


def _result_hash(data: bytes, given: Json) -> Json:
    builder = ResultBuilder()
    for seq, (text, reasoning, calls) in enumerate(given["deltas"]):
        builder.add(Delta(seq, 0, text, (), reasoning, tuple(CallPiece(*piece) for piece in calls)))
    assert builder.payload == data
    return {
        "result_hash": builder.digest.hex(),
        "text_bytes": builder.text_bytes,
        "billable_texts": list(builder.billable_texts()),
    }


def _zigzag(data: bytes, given: Json) -> Json:
    codes = [zigzag(number) for number in given["numbers"]]
    assert [unzigzag(code) for code in codes] == given["numbers"]
    return {"codes": codes}


def _offer_times(data: bytes, given: Json) -> Json:
    message = unpack(data, (Offer, Withdraw)).message
    if isinstance(message, Offer):
        check_offer_times(message, given["now_ms"])
    elif isinstance(message, Withdraw):
        check_withdraw_times(message, given["now_ms"])
    return {}


def _job_id(data: bytes, given: Json) -> Json:
    return {"job_id": job_id_of(unpack(data, (JobOffer,)))}


def _job_sequence(data: bytes, given: Json) -> Json:
    """Both sides follow the table, each from its own end."""
    requester, executor = JobMachine("requester"), JobMachine("executor")
    for sender, name in given["messages"]:
        sending, receiving = (requester, executor) if sender == "requester" else (executor, requester)
        try:
            sending.on_sent(CLASSES[name])
        finally:
            receiving.on_received(CLASSES[name])
    assert requester.state == executor.state
    return {"state": requester.state}


def _quote(data: bytes, given: Json) -> Json:
    check_quote(
        unpack(data, (Quote,)), _given(given, "quote_request", QuoteRequest), _key(given["peer"]), given["now_ms"]
    )
    return {}


def _job_offer(data: bytes, given: Json) -> Json:
    quote, request = _given(given, "quote", Quote), _given(given, "quote_request", QuoteRequest)
    check_job_offer(unpack(data, (JobOffer,)), quote, request, _key(given["peer"]), given["now_ms"])
    return {}


def _job_request(data: bytes, given: Json) -> Json:
    check_job_request(unpack(data, (JobRequest,)), _given(given, "job_offer", JobOffer))
    return {}


def _job_features(data: bytes, given: Json) -> Json:
    request, offer = unpack(data, (JobRequest,)), _given(given, "job_offer", JobOffer)
    check_features(request, offer, _given(given, "quote_request", QuoteRequest))
    assert isinstance(request.message, JobRequest)
    assert isinstance(offer.message, JobOffer)
    return {"needed": list(needed_features(offer.message.sampling, request.message))}


def _job_kind(data: bytes, given: Json) -> Json:
    content = unpack(data, (JobRequest, EmbedRequest))
    check_kind(content, _given(given, "job_offer", JobOffer), _given(given, "quote_request", QuoteRequest))
    return {}


def _vectors(data: bytes, given: Json) -> Json:
    result = VectorsResult(given["texts"])
    for raw in given["frames"]:
        vectors = unpack(bytes.fromhex(raw), (Vectors,)).message
        assert isinstance(vectors, Vectors)
        result.add(vectors)
    result.check_end(Finished(given["reason"], 0, 0))
    return {"result_hash": result.digest.hex(), "vectors": result.count}


def _started(data: bytes, given: Json) -> Json:
    started = unpack(data, (Started,)).message
    assert isinstance(started, Started)
    check_started(started, _given(given, "job_offer", JobOffer), _given(given, "quote", Quote))
    return {}


def _delta_order(data: bytes, given: Json) -> Json:
    order = DeltaOrder()
    for seq, choice in given["deltas"]:
        order.add(Delta(seq, choice, "", ()))
    return {}


def _transcript(data: bytes, given: Json) -> Json:
    transcript = Transcript(JobId(given["job_id"]))
    heads = [transcript.digest.hex()]
    for raw in given["frames"]:
        transcript.add(bytes.fromhex(raw))
        heads.append(transcript.digest.hex())
    return {"heads": heads}


def _cost(data: bytes, given: Json) -> Json:
    units = metering_units(given["prompt_units"], given["completion_units"], given.get("kind", "chat"))
    return {"metering_units": units, "cost_microcredits": cost_microcredits(**given)}


def _checks(data: bytes, given: Json) -> Json:
    finished = _optional(given["finished"], Finished)
    receipt = _optional(given["receipt"], Receipt)
    evidence = JobEvidence(
        job_offer=_given(given, "job_offer", JobOffer),
        quote=_given(given, "quote", Quote),
        state=given["state"],
        frames=given["frames"],
        frame_bytes=given["frame_bytes"],
        result_hash=bytes.fromhex(given["result_hash"]),
        transcript_hash=bytes.fromhex(given["transcript_hash"]),
        text_bytes=given["text_bytes"],
        billable_texts=given["billable_texts"],
        own_prompt_units=given["own_prompt_units"],
        own_completion_units=given["own_completion_units"],
        finished=None if finished is None else finished.message,  # type: ignore[arg-type]
        receipt=None if receipt is None else receipt.message,  # type: ignore[arg-type]
        envelope=_optional(given["envelope"], AuditEnvelope),
        offered_ms=given["offered_ms"],
        ended_ms=given["ended_ms"],
        chunk_root=bytes.fromhex(given["chunk_root"]),
        kind=given["kind"],
        embedded_bytes=given["embedded_bytes"],
        embedded_texts=given["embedded_texts"],
    )
    checks = check_finished_job(evidence)
    failed = first_failure(checks)
    if failed:
        raise PayloadInvalid(failed)
    return {"outcomes": {check.name: check.outcome for check in checks}}


def _given(given: Json, name: str, cls: MessageClass) -> Packet:
    return unpack(bytes.fromhex(given[name]), (cls,))


def _optional(raw: str | None, cls: MessageClass) -> Packet | None:
    return None if raw is None else unpack(bytes.fromhex(raw), (cls,))


def _key(text: str) -> NodeKey:
    return NodeKey(bytes.fromhex(text))


def _place(data: bytes, given: Json) -> Place:
    return Place(
        logits=_logits(data),
        sampling=Sampling(**given["sampling"]),
        position=given["position"],
        prompt=given["prompt"],
        completion=given["completion"],
        bias={token: unzigzag(code) for token, code in given["logit_bias"]},
        allowed=given["allowed"],
    )


def _logits(data: bytes) -> tuple[float, ...]:
    return struct.unpack(f"<{len(data) // 4}f", data)


def _sample(data: bytes, given: Json) -> Json:
    place = _place(data, given)
    warm = place.sampling.temperature_millionths > 0
    return {
        "token": chosen_token(place),
        "kept": kept_tokens(ruled_logits(place), place.sampling) if warm else None,
    }


def _margin(data: bytes, given: Json) -> Json:
    found = margin(_place(data, given), given["token"])
    return {"margin_millionths": None if math.isinf(found) else round(found * 1_000_000)}


def _noise(data: bytes, given: Json) -> Json:
    return {"halves": noise_halves(given["seed"], given["position"], given["size"])}


def _logprobs(data: bytes, given: Json) -> Json:
    return {"millionths": [round(value * 1_000_000) for value in log_probabilities(_logits(data))]}


OPERATIONS: dict[str, Callable[[bytes, Json], Json]] = {
    "sample": _sample,
    "margin": _margin,
    "noise": _noise,
    "logprobs": _logprobs,
    "zigzag": _zigzag,
    "frames": _frames,
    "packet": _packet,
    "typed-signature": _typed_signature,
    "receipt": _receipt,
    "receipt-issue": _receipt_issue,
    "merkle-root": _merkle_root,
    "merkle-path": _merkle_path,
    "result-hash": _result_hash,
    "offer-times": _offer_times,
    "job-id": _job_id,
    "job-sequence": _job_sequence,
    "quote": _quote,
    "job-offer": _job_offer,
    "job-request": _job_request,
    "job-features": _job_features,
    "started": _started,
    "job-kind": _job_kind,
    "vectors": _vectors,
    "delta-order": _delta_order,
    "transcript": _transcript,
    "cost": _cost,
    "checks": _checks,
}
