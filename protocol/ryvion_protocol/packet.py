"""A message as it travels: [type, body, signature], the payload of one frame and of one gossip message (spec 00)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

from ryvion_protocol.any_message import Message
from ryvion_protocol.codec import check_kinds, decode_body, encode_body, pack_value, unpack_value
from ryvion_protocol.errors import FramingError, SchemaError, SignatureInvalid, StateError
from ryvion_protocol.rules import check_payload
from ryvion_protocol.signing import SigningIdentity, verify_typed

MessageClass = type[Message]


@dataclass(frozen=True, slots=True)
class Packet:
    """A checked message together with the very bytes it came in or goes out as."""

    message: Message
    body: bytes
    """The canonical encoding of the message's fields: what is signed."""
    signature: bytes
    """64 bytes, or none when the class is not signed."""
    raw: bytes
    """The whole packet."""

    @property
    def hash(self) -> bytes:
        """SHA-256 of the body: how other messages refer to this one."""
        return hashlib.sha256(self.body).digest()


def pack(message: Message, signer: SigningIdentity | None = None) -> Packet:
    """Encode a message and sign it when its class is signed.

    Raises SchemaError or PayloadInvalid for values that no peer would take, FramingError when it grows too large,
    and ValueError when the signer is missing, surplus, or not the one the message names.
    """
    cls = type(message)
    if _signer_key(message) != (None if signer is None else signer.public_key):
        raise ValueError(f"{cls.__name__} must be signed by the key it names, and only if its class is signed")
    body = encode_body(message)
    check_payload(message)
    signature = b"" if signer is None else signer.sign_typed(cls.TYPE, body)
    raw = pack_value((cls.TYPE, body, signature))
    _check_size(raw, cls.MAX_BYTES)
    return Packet(message, body, signature, raw)


def unpack(raw: bytes, allowed: tuple[MessageClass, ...]) -> Packet:
    """Decode and check one packet whose class is in `allowed`.

    In this order: size, canonical encoding, outer shape, allowed now, size of its class, body encoding and schema,
    rules between fields, signature. Raises the ProtocolError of the first that fails, and nothing else.
    """
    classes = _by_type(allowed)
    _check_size(raw, max((cls.MAX_BYTES for cls in allowed), default=0))
    message_type, body, signature = _open(raw)
    cls = classes.get(message_type)
    if cls is None:
        raise StateError(f"{', '.join(classes) or 'nothing'} may come now, not {message_type[:32]!r}")
    _check_size(raw, cls.MAX_BYTES)
    message = decode_body(cls, body)
    check_payload(message)
    key = _signer_key(message)
    if key is not None:
        verify_typed(key, cls.TYPE, body, signature)
    elif signature:
        raise SignatureInvalid(f"{cls.TYPE} is not signed, but a signature came with it")
    return Packet(message, body, signature, raw)


def _open(raw: bytes) -> tuple[str, bytes, bytes]:
    value = unpack_value(raw)
    if type(value) is tuple and len(value) == 3:
        message_type, body, signature = value
        if type(message_type) is str and type(body) is bytes and type(signature) is bytes:
            return message_type, body, signature
    check_kinds(value)
    raise SchemaError("a packet is an array of type (string), body (bytes) and signature (bytes)")


def _signer_key(message: Message) -> bytes | None:
    """The key that must have signed, or None when the class is not signed."""
    field = getattr(type(message), "SIGNER", None)
    if field is None:
        return None
    key: bytes = getattr(message, field)
    return key


def _check_size(raw: bytes, max_bytes: int) -> None:
    if len(raw) > max_bytes:
        raise FramingError("frame_too_large", f"a packet of {len(raw)} bytes, at most {max_bytes} are allowed")


@lru_cache(maxsize=256)
def _by_type(allowed: tuple[MessageClass, ...]) -> dict[str, MessageClass]:
    return {cls.TYPE: cls for cls in allowed}
