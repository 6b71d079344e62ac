"""RYV1 receipts: four fields, one digest, one signature, byte for byte as the field has them (spec 02).

We issue job ids of hex digits and hyphens only, and verify any that cannot be mistaken for another receipt's preimage.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ryvion_protocol.constants import HASH_BYTES, KEY_BYTES, MAX_METERING_UNITS, SIGNATURE_BYTES
from ryvion_protocol.ed25519 import verify
from ryvion_protocol.errors import PayloadInvalid
from ryvion_protocol.messages import Receipt
from ryvion_protocol.schema import JobId, NodeKey

if TYPE_CHECKING:
    from ryvion_protocol.signing import SigningIdentity

RECEIPT_FORMAT = "RYV1"
_OWN_JOB_ID = re.compile(r"[0-9a-f-]{1,64}")
_FOREIGN_JOB_ID = re.compile(r"[!-{}~]{1,128}")
"""Visible ASCII without the separator `|`."""
_HEX_32 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ReceiptFields:
    """What a RYV1 signature commits to; key and hash are 32 bytes, one unit is one token."""

    job_id: JobId
    node_key: NodeKey
    result_hash: bytes
    metering_units: int

    def preimage(self) -> bytes:
        """The text that is hashed; raises PayloadInvalid when a field could not be told from its neighbours."""
        check_fields(self)
        parts = (self.job_id, self.node_key.hex(), self.result_hash.hex(), str(self.metering_units))
        return "|".join((RECEIPT_FORMAT, "receipt", *parts)).encode("ascii")

    def digest(self) -> bytes:
        """The 32 bytes that are signed."""
        return hashlib.sha256(self.preimage()).digest()

    def cid(self) -> str:
        """The receipt's name."""
        return f"ryv1:sha256:{self.digest().hex()}"


def check_fields(fields: ReceiptFields) -> None:
    """Raise PayloadInvalid unless the fields make a preimage that only they can make."""
    if _FOREIGN_JOB_ID.fullmatch(fields.job_id) is None:
        raise PayloadInvalid("receipt_job_id", "a receipt's job id is 1 .. 128 visible ASCII characters without |")
    if len(fields.node_key) != KEY_BYTES or len(fields.result_hash) != HASH_BYTES:
        raise PayloadInvalid("receipt_lengths", "a receipt's node key and result hash have 32 bytes each")
    if type(fields.metering_units) is not int or not 0 <= fields.metering_units <= MAX_METERING_UNITS:
        raise PayloadInvalid("receipt_units", f"metering units are an integer 0 .. {MAX_METERING_UNITS}")


def check_own_fields(fields: ReceiptFields) -> None:
    """Raise PayloadInvalid for what we would verify but never issue."""
    check_fields(fields)
    if _OWN_JOB_ID.fullmatch(fields.job_id) is None:
        raise PayloadInvalid("receipt_job_id", "we issue job ids of 1 .. 64 characters 0-9, a-f and - only")


def issue_receipt(fields: ReceiptFields, identity: SigningIdentity) -> Receipt:
    """Sign a receipt; raises PayloadInvalid for a field that we never issue, ValueError for another node's key."""
    signature = identity.sign_receipt(fields)
    return Receipt(fields.job_id, fields.node_key, fields.result_hash, fields.metering_units, signature)


def verify_receipt(receipt: Receipt) -> None:
    """Raise PayloadInvalid for fields that make no preimage, SignatureInvalid when the named node did not sign them."""
    verify(receipt.node_key, fields_of(receipt).digest(), receipt.signature)


def fields_of(receipt: Receipt) -> ReceiptFields:
    """The four signed fields."""
    return ReceiptFields(receipt.job_id, receipt.node_key, receipt.result_hash, receipt.metering_units)


def receipt_to_json(receipt: Receipt) -> dict[str, str | int]:
    """The exported form: hex for key and hash, base64 for the signature, and the name it can be looked up by."""
    return {
        "format": RECEIPT_FORMAT,
        "job_id": receipt.job_id,
        "node_public_key": receipt.node_key.hex(),
        "result_hash": receipt.result_hash.hex(),
        "metering_units": receipt.metering_units,
        "signature": base64.b64encode(receipt.signature).decode("ascii"),
        "cid": fields_of(receipt).cid(),
    }


def receipt_from_json(obj: object) -> Receipt:
    """Read an exported receipt; raises PayloadInvalid. It is not verified yet.

    Audit metadata may stand beside the core: other keys are ignored. `format` and `cid` may be absent; when they
    are there they must be right.
    """
    if not isinstance(obj, Mapping):
        raise PayloadInvalid("receipt_json", "a receipt is a JSON object")
    if obj.get("format", RECEIPT_FORMAT) != RECEIPT_FORMAT:
        raise PayloadInvalid("receipt_format", f"only the receipt format {RECEIPT_FORMAT} is known")
    units = obj.get("metering_units")
    if type(units) is not int:
        raise PayloadInvalid("receipt_json", "metering_units is missing or no integer")
    receipt = Receipt(
        job_id=JobId(_text(obj, "job_id")),
        node_key=NodeKey(_hex_32(obj, "node_public_key")),
        result_hash=_hex_32(obj, "result_hash"),
        metering_units=units,
        signature=_signature(_text(obj, "signature")),
    )
    if obj.get("cid", fields_of(receipt).cid()) != fields_of(receipt).cid():
        raise PayloadInvalid("receipt_cid", "the cid is not the hash of this receipt")
    return receipt


def _text(obj: Mapping[str, object], key: str) -> str:
    value = obj.get(key)
    if not isinstance(value, str):
        raise PayloadInvalid("receipt_json", f"{key} is missing or no string")
    return value


def _hex_32(obj: Mapping[str, object], key: str) -> bytes:
    text = _text(obj, key)
    if _HEX_32.fullmatch(text) is None:
        raise PayloadInvalid("receipt_json", f"{key} is not 64 lowercase hex digits")
    return bytes.fromhex(text)


def _signature(text: str) -> bytes:
    try:
        signature = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        signature = b""
    if len(signature) != SIGNATURE_BYTES or base64.b64encode(signature).decode("ascii") != text:
        raise PayloadInvalid("receipt_json", f"signature is not the base64 of {SIGNATURE_BYTES} bytes")
    return signature
