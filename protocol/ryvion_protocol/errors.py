"""Everything that can be wrong with what a peer sent: one class per layer that catches it (spec 00, "Errors").

`code` is stable and may go on the wire; the text is for a person and never echoes a prompt or an answer.
A caller's own mistakes (a wrong key to sign with, a class that is no message) are ordinary ValueErrors and TypeErrors.
"""

from __future__ import annotations

from typing import ClassVar


class ProtocolError(Exception):
    """The bytes or their order break the protocol. `layer` is the `expect` of the vectors."""

    layer: ClassVar[str] = "protocol-error"

    def __init__(self, code: str, message: str = "") -> None:
        super().__init__(message or code)
        self.code = code


class FramingError(ProtocolError):
    """A frame or packet is empty, too long, or cut off."""

    layer: ClassVar[str] = "framing-error"


class EncodingError(ProtocolError):
    """The bytes are not the canonical encoding of any value we allow."""

    layer: ClassVar[str] = "encoding-non-canonical"

    def __init__(self, message: str) -> None:
        super().__init__("encoding_non_canonical", message)


class SchemaError(ProtocolError):
    """A value has the wrong type, length, range or pattern for its field."""

    layer: ClassVar[str] = "schema-error"

    def __init__(self, message: str) -> None:
        super().__init__("schema_invalid", message)


class SignatureInvalid(ProtocolError):
    """A signature is missing, surplus, of the wrong length, by an unusable key, or simply wrong."""

    layer: ClassVar[str] = "signature-invalid"

    def __init__(self, message: str) -> None:
        super().__init__("signature_invalid", message)


class PayloadInvalid(ProtocolError):
    """Every field is legal by itself, but together, against earlier messages, or against the clock they are not."""

    layer: ClassVar[str] = "payload-invalid"


class StateError(ProtocolError):
    """A message that may not come now."""

    layer: ClassVar[str] = "state-error"

    def __init__(self, message: str) -> None:
        super().__init__("unexpected_message", message)
