"""Sealing what is kept for an Idempotency-Key, so that only who has the API key and that key can open it.

Name and sealing key come from both by BLAKE2b. The node stores neither: its key file has only a SHA-256 of API keys,
which opens nothing here.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from dataclasses import asdict, dataclass

import nacl.exceptions
import nacl.secret

from ryvion_node.proxy.errors import Headers

NAME_BYTES = 16


class NotOurs(Exception):
    """What was found does not open with this key: the file was damaged or put there by somebody else."""


@dataclass(frozen=True, slots=True)
class Claim:
    """That a request with this key was begun."""

    fingerprint: str
    """Of path and body: the same key for something else is a mistake."""
    completion_id: str
    """Under which the ledger has the jobs that it led to."""


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """An answer as it was sent."""

    status: int
    headers: Headers
    body: bytes


class Seal:
    """Opens and closes what belongs to one Idempotency-Key of one API key."""

    def __init__(self, token: str, idempotency_key: str) -> None:
        root = _blake2b(token, b"", b"ryvion answers")
        self.name = _blake2b(idempotency_key, root, b"ryvion name")[:NAME_BYTES].hex()
        self._box = nacl.secret.SecretBox(_blake2b(idempotency_key, root, b"ryvion seal"))

    def close_claim(self, claim: Claim) -> bytes:
        """The claim, sealed."""
        return self._close(json.dumps(asdict(claim)).encode())

    def open_claim(self, sealed: bytes) -> Claim:
        """Raises NotOurs."""
        return Claim(**json.loads(self._open(sealed)))

    def close_answer(self, answer: StoredAnswer) -> bytes:
        """The answer, packed and sealed: a stream's chunks are alike and shrink to a tenth."""
        head = json.dumps({"status": answer.status, "headers": answer.headers}).encode()
        return self._close(zlib.compress(head + b"\n" + answer.body, 1))

    def open_answer(self, sealed: bytes) -> StoredAnswer:
        """Raises NotOurs."""
        head, _, body = zlib.decompress(self._open(sealed)).partition(b"\n")
        fields = json.loads(head)
        return StoredAnswer(fields["status"], tuple((name, value) for name, value in fields["headers"]), body)

    def _close(self, data: bytes) -> bytes:
        return bytes(self._box.encrypt(data))

    def _open(self, sealed: bytes) -> bytes:
        try:
            return self._box.decrypt(sealed)
        except (nacl.exceptions.CryptoError, ValueError) as exc:
            raise NotOurs from exc


def _blake2b(text: str, key: bytes, person: bytes) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=32, key=key, person=person).digest()
