"""Exported receipts: their JSON form, and the verification that anybody can do with nothing but the file.

Pure: bytes in, findings out. A file holds one receipt object, a list of them, or `{"receipts": [...]}`. A receipt
object has the RYV1 core (spec 02) and may have an `audit_envelope` beside it: the signed packet in base64, and its
fields once more for people to read. It may also have `passages` of the prompt, proved by that envelope. What the
endpoint's answers hold, `{"receipt": ..., "envelope": ...}`, is read too.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from ryvion_protocol.checks import billed_units
from ryvion_protocol.errors import PayloadInvalid, ProtocolError
from ryvion_protocol.findings import Finding, Verdict
from ryvion_protocol.messages import CHAT, EMBEDDING, AuditEnvelope, Receipt, ToolCall
from ryvion_protocol.packet import unpack
from ryvion_protocol.passages import KEY, proved
from ryvion_protocol.receipt import fields_of, receipt_from_json, receipt_to_json, verify_receipt
from ryvion_protocol.transcript import result_payload

MAX_FILE_BYTES = 64 * 1024 * 1024
"""An export of tens of thousands of receipts; a larger file is something else."""
_NOT_A_RECEIPT = ("receipt_json", "receipt_format")
"""Codes of PayloadInvalid for an object that is no receipt at all, unlike one that is wrong."""

JsonObject = dict[str, object]


class ReceiptFileUnreadable(ValueError):
    """The bytes are no exported receipt, so nothing can be said about them."""


def export_receipt(receipt: Receipt, envelope_packet: bytes | None) -> JsonObject:
    """The JSON form of a receipt, with the audit envelope's packet as it was received."""
    exported: JsonObject = dict(receipt_to_json(receipt))
    if envelope_packet is not None:
        exported["audit_envelope"] = export_envelope(envelope_packet)
    return exported


def export_envelope(packet: bytes) -> JsonObject:
    """The JSON form of an audit envelope: the packet that was signed, and its fields for people to read."""
    return {
        "packet": base64.b64encode(packet).decode("ascii"),
        "fields": readable_envelope(_open_envelope(packet)),
    }


def readable_envelope(envelope: AuditEnvelope) -> JsonObject:
    """The envelope's fields as JSON: bytes in hex, lists of them as lists."""
    return {field.name: _readable(getattr(envelope, field.name)) for field in fields(envelope)}


def envelope_of(exported: Mapping[str, object]) -> AuditEnvelope | None:
    """The envelope beside an exported receipt, if there is one that was signed; whether it is this receipt's,
    `verify_exported` says.
    """
    envelope = _read_envelope(exported)
    return envelope if isinstance(envelope, AuditEnvelope) else None


def read_receipts(data: bytes) -> list[JsonObject]:
    """The receipt objects in an exported file, or in what the endpoint answered; raises ReceiptFileUnreadable."""
    try:
        value: object = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise ReceiptFileUnreadable(f"it is not JSON ({exc})") from exc
    value = _listed(value)
    found = value if isinstance(value, list) else [value]
    receipts = [_unwrapped(item) for item in found if isinstance(item, dict)]
    if not receipts or len(receipts) != len(found):
        raise ReceiptFileUnreadable('it holds no receipt: a JSON object, a list of them, or {"receipts": [...]}')
    return receipts


def verify_exported(exported: Mapping[str, object], answer: bytes | None = None) -> Verdict:
    """Check one receipt object, and with `answer` that it is what the receipt is for.

    `answer` is its exact text, or the JSON of the chat completion, of its message, of the text completion, of the response or
    of the list of embeddings, as clients of the endpoint keep it. Of several choices it is the one of the receipt's job.
    Raises ReceiptFileUnreadable when it is no RYV1 receipt.
    """
    try:
        receipt = receipt_from_json(exported)
    except PayloadInvalid as exc:
        if exc.code in _NOT_A_RECEIPT:
            raise ReceiptFileUnreadable(str(exc)) from exc
        return Verdict(str(exported.get("job_id")), "", (Finding("fields", "failed", f"{exc}."),))
    findings = [Finding("fields", "passed", "The four fields are well-formed, and the cid is their SHA-256.")]
    findings.append(_signature(receipt))
    envelope = _read_envelope(exported)
    findings.extend(_envelope(receipt, envelope, exported))
    if KEY in exported:
        findings.extend(proved(envelope if isinstance(envelope, AuditEnvelope) else None, exported[KEY]))
    findings.append(_answer(receipt, answer))
    return Verdict(receipt.job_id, fields_of(receipt).cid(), tuple(findings))


def _listed(value: object) -> object:
    """The receipts of an export, of a whole answer (its own, or those of its choices), or of a list of the endpoint."""
    match value:
        case {"receipts": receipts}:
            return receipts
        case {"ryvion": {"receipt": dict()} as own}:
            return own
        case {"ryvion": dict(), "choices": list(choices)}:
            return [choice.get("ryvion") for choice in choices if isinstance(choice, dict)]
        case {"object": "list", "data": receipts}:
            return receipts
    return value


def _unwrapped(item: JsonObject) -> JsonObject:
    """A receipt as the endpoint gives it, in its `ryvion` object or from /api/v1/receipts, as it is exported."""
    match item:
        case {"receipt": dict(core), "envelope": envelope}:
            return core | {"audit_envelope": envelope}
        case {"receipt": dict(core)}:
            return core
    return item


def _signature(receipt: Receipt) -> Finding:
    try:
        verify_receipt(receipt)
    except ProtocolError as exc:
        return Finding("signature", "failed", f"Not signed by {receipt.node_key.hex()}: {exc}.")
    return Finding("signature", "passed", f"Node {receipt.node_key.hex()} signed these fields.")


def _answer(receipt: Receipt, answer: bytes | None) -> Finding:
    if answer is None:
        return Finding("answer", "absent", f"Not compared; SHA-256 of the answer must be {receipt.result_hash.hex()}.")
    read = (
        None if hashlib.sha256(answer).digest() == receipt.result_hash else _payload_of_message(answer, receipt.job_id)
    )
    payload = answer if read is None else read
    found = hashlib.sha256(payload).digest()
    if found == receipt.result_hash:
        return Finding("answer", "passed", f"The receipt is for this answer of {len(payload)} bytes (SHA-256 agrees).")
    return Finding("answer", "failed", f"It is for another answer: this one has SHA-256 {found.hex()}.")


def _payload_of_message(answer: bytes, job_id: str) -> bytes | None:
    """What the result hash of an answer is over (spec 02); None when these bytes are the JSON of none."""
    try:
        match _of_one_choice(json.loads(answer), job_id):
            case {"choices": [{"message": dict(message)}]} | ({"role": "assistant"} as message):
                calls = [_call_of(call) for call in message.get("tool_calls") or ()]
                return result_payload(_text(message.get("content")), _text(message.get("reasoning_content")), calls)
            case {"object": "text_completion", "choices": [{"text": str(text)} as choice]}:
                return result_payload(text, _text(choice.get("reasoning_content")), [])
            case {"object": "response", "output": list(items)}:
                return _payload_of_items(items)
            case {"object": "list", "data": [{"embedding": _}, *_] as embeddings}:
                return b"".join(_values_of(item) for item in embeddings)
    except (ValueError, LookupError, AttributeError, RecursionError, TypeError, OverflowError, struct.error):
        return None
    return None


def _of_one_choice(answer: Any, job_id: str) -> Any:
    """An answer with several choices, cut to the one that this job gave."""
    match answer:
        case {"choices": [_, _, *_] as choices}:
            own = [choice for choice in choices if choice["ryvion"]["job_id"] == job_id]
            return {**answer, "choices": own}
    return answer


def _payload_of_items(items: list[object]) -> bytes:
    """The same of a response's output items, whose texts follow each other."""
    said = {"output_text": "", "reasoning_text": ""}
    calls: list[ToolCall] = []
    for item in items:
        match item:
            case {"type": "function_call", "call_id": str(call_id), "name": str(name), "arguments": str(given), **rest}:
                namespace = _text(rest.get("namespace"))
                calls.append(ToolCall(call_id, f"{namespace}__{name}" if namespace else name, given))
            case {"type": "message" | "reasoning", "summary": list(parts)} if parts:
                said["reasoning_text"] += "".join(_text(part["text"]) for part in parts)
            case {"type": "message" | "reasoning", "content": list(parts)}:
                for part in parts:
                    said[part["type"]] += _text(part["text"])
            case _:
                raise ValueError("not an item of an answer")
    return result_payload(said["output_text"], said["reasoning_text"], calls)


def _values_of(item: object) -> bytes:
    """A vector as it was delivered: the endpoint writes every float32 so that it is read back as the same one."""
    match item:
        case {"embedding": str(encoded)}:
            return base64.b64decode(encoded, validate=True)
        case {"embedding": list(numbers)}:
            return struct.pack(f"<{len(numbers)}f", *numbers)
    raise ValueError("not an embedding")


def _call_of(call: object) -> ToolCall:
    match call:
        case {"id": str(call_id), "function": {"name": str(name), "arguments": str(arguments)}}:
            return ToolCall(call_id, name, arguments)
    raise ValueError("not a tool call")


def _text(value: object) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    raise ValueError("not a text")


def _read_envelope(exported: Mapping[str, object]) -> AuditEnvelope | Finding:
    """The signed envelope, or why there is none."""
    match exported.get("audit_envelope"):
        case None:
            return Finding("envelope", "absent", "No audit envelope: model, place and times are not attested.")
        case {"packet": str(text)}:
            pass
        case _:
            return Finding("envelope", "failed", "The audit envelope has no packet, the bytes that were signed.")
    try:
        return _open_envelope(base64.b64decode(text, validate=True))
    except (ProtocolError, binascii.Error, ValueError) as exc:
        return Finding("envelope", "failed", f"The audit envelope is not a signed one: {exc}.")


def _envelope(receipt: Receipt, envelope: AuditEnvelope | Finding, exported: Mapping[str, object]) -> Iterator[Finding]:
    """The audit envelope: its own signature, and that it speaks of this very receipt."""
    if isinstance(envelope, Finding):
        yield envelope
        return
    yield Finding("envelope", "passed", f"Node {envelope.executor_key.hex()} signed the audit envelope.")
    yield _same_job(receipt, envelope)
    yield _same_units(receipt, envelope)
    match exported["audit_envelope"]:
        case {"fields": shown} if shown is not None:
            yield _shown_fields(envelope, shown)


def _open_envelope(packet: bytes) -> AuditEnvelope:
    message = unpack(packet, (AuditEnvelope,)).message
    assert isinstance(message, AuditEnvelope)
    return message


def _same_job(receipt: Receipt, envelope: AuditEnvelope) -> Finding:
    pairs = (
        ("job id", envelope.job_id == receipt.job_id),
        ("node key", envelope.executor_key == receipt.node_key),
        ("receipt digest", envelope.receipt_digest == fields_of(receipt).digest()),
    )
    wrong = [name for name, agrees in pairs if not agrees]
    if wrong:
        return Finding("same_job", "failed", f"The envelope belongs to another receipt: other {', '.join(wrong)}.")
    detail = f"The envelope is for this receipt: {envelope.model} in {envelope.jurisdiction}, {envelope.status}."
    return Finding("same_job", "passed", detail)


def _same_units(receipt: Receipt, envelope: AuditEnvelope) -> Finding:
    kind = EMBEDDING if envelope.completion_units == 0 and receipt.metering_units > 0 else CHAT
    billed = billed_units(envelope, kind)
    sum_text = f"{envelope.prompt_units} prompt + {envelope.completion_units} completion tokens bill {billed} units"
    if kind == EMBEDDING:
        sum_text = f"{envelope.prompt_units} tokens of embedded texts bill {billed} units"
    if billed == receipt.metering_units:
        return Finding("units", "passed", f"{sum_text}, as the receipt says.")
    return Finding("units", "failed", f"{sum_text}, but the receipt says {receipt.metering_units}.")


def _shown_fields(envelope: AuditEnvelope, shown: object) -> Finding:
    signed = readable_envelope(envelope)
    if shown == signed:
        return Finding("shown_fields", "passed", "The readable fields are those that were signed.")
    found = shown if isinstance(shown, Mapping) else {}
    wrong = [name for name in signed.keys() | found.keys() if signed.get(name) != found.get(name)]
    return Finding(
        "shown_fields", "failed", f"The readable fields differ from the signed ones: {', '.join(sorted(wrong))}."
    )


def _readable(value: object) -> object:
    if isinstance(value, bytes):
        return value.hex()
    return [_readable(item) for item in value] if isinstance(value, tuple) else value
