"""Proofs that a passage was in the prompt of a job, from its signed audit envelope (spec 02, "Proved passages").

Pure. A proof is an exported receipt with `passages` beside its envelope: the text of each, its place among the hashes
of the envelope, and the path from there to the root that was signed. It shows no other passage's text.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Final

from ryvion_protocol.constants import MAX_CHUNK_HASHES
from ryvion_protocol.errors import PayloadInvalid
from ryvion_protocol.findings import Finding
from ryvion_protocol.merkle import inclusion_path, merkle_root, root_from_path
from ryvion_protocol.messages import AuditEnvelope

KEY: Final = "passages"
"""Where they stand in an exported receipt."""
_HEX_32: Final = re.compile(r"[0-9a-f]{64}")


class PassageNotUsed(ValueError):
    """The envelope does not name this text, so there is nothing to prove."""


def passage_hash(text: str) -> bytes:
    """What stands for a passage in the order and in the envelope; raises UnicodeEncodeError for what is no Unicode text."""
    return hashlib.sha256(text.encode()).digest()


def prove_passage(envelope: AuditEnvelope, text: str, source: Mapping[str, object]) -> dict[str, object]:
    """The proof that `text` was in the prompt. `source` says where it stands, which nobody signed.

    Raises PassageNotUsed.
    """
    hashes = envelope.chunk_hashes
    digest = passage_hash(text)
    if digest not in hashes:
        raise PassageNotUsed(f"the envelope does not name SHA-256 {digest.hex()}")
    index = hashes.index(digest)
    path = [node.hex() for node in inclusion_path(hashes, index)]
    return {"index": index, "path": path, "text": text, "source": dict(source)}


def proved(envelope: AuditEnvelope | None, passages: object) -> Iterator[Finding]:
    """What the passages in an exported receipt prove; `envelope`: None when there is no signed one."""
    if not isinstance(passages, list) or not 0 < len(passages) <= MAX_CHUNK_HASHES:
        yield Finding(KEY, "failed", f"The passages are no list of 1 .. {MAX_CHUNK_HASHES} proofs.")
        return
    for passage in passages:
        yield _proved(envelope, passage)


def recognised(envelope: AuditEnvelope | None, places: Mapping[bytes, str]) -> Iterator[Finding]:
    """Whether all passages of the prompt are among `places`: `passage_hash` of a text, and where it stands. And their
    root.
    """
    if envelope is None:
        yield Finding(KEY, "failed", "There is no signed audit envelope, so nobody said what the prompt held.")
        return
    hashes = envelope.chunk_hashes
    if not hashes:
        yield Finding(KEY, "failed", "The envelope names no passage: there was none in the prompt.")
        return
    for number, digest in enumerate(hashes, start=1):
        if digest in places:
            yield Finding(f"passage_{number}", "passed", f"It is {places[digest]}.")
        else:
            missing = f"Not in this knowledge base, or not any more: SHA-256 {digest.hex()}."
            yield Finding(f"passage_{number}", "failed", missing)
    yield _root(envelope)


def _root(envelope: AuditEnvelope) -> Finding:
    root, count = merkle_root(envelope.chunk_hashes), len(envelope.chunk_hashes)
    if root == envelope.chunk_root:
        return Finding("chunk_root", "passed", f"The root over all {count} was signed: {root.hex()}.")
    return Finding("chunk_root", "failed", f"The root over all {count} is {root.hex()}, signed was another.")


def _proved(envelope: AuditEnvelope | None, passage: object) -> Finding:
    """One proof. Nothing in it counts but text, index and path."""
    match passage:
        case {"index": int(index), "text": str(text), "path": list(nodes)} if (
            type(index) is int and 0 <= index < MAX_CHUNK_HASHES
        ):
            pass
        case _:
            return Finding(
                "passage", "failed", f"A passage needs its text, its path, and its index below {MAX_CHUNK_HASHES}."
            )
    name = f"passage_{index + 1}"
    if envelope is None:
        return Finding(name, "failed", "There is no signed audit envelope, so nobody said what the prompt held.")
    try:
        path = [bytes.fromhex(node) for node in nodes if _HEX_32.fullmatch(node)]
        digest = passage_hash(text)
        found = root_from_path(digest, index, len(envelope.chunk_hashes), path)
    except (PayloadInvalid, UnicodeEncodeError, TypeError) as exc:
        return Finding(name, "failed", f"It proves nothing: {exc}.")
    if len(path) != len(nodes) or found != envelope.chunk_root:
        detail = f"The path does not lead from this text (SHA-256 {digest.hex()}) to the root that was signed."
        return Finding(name, "failed", detail)
    count = len(envelope.chunk_hashes)
    detail = f"This text of {len(text)} characters is number {index + 1} of the {count} that the order named and the node signed"
    return Finding(name, "passed", f"{detail} (SHA-256 {digest.hex()}).")
