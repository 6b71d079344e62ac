"""The record of passages that left this machine, each function within one transaction. It outlives what it is about."""

from __future__ import annotations

from collections.abc import Sequence

import apsw

from ryvion_node.knowledge.constants import MAX_DISCLOSED_CHUNKS, MAX_LISTED
from ryvion_node.knowledge.database import one, rows
from ryvion_node.knowledge.errors import KnowledgeLimit
from ryvion_node.knowledge.records import DisclosedChunk, Disclosure


def record(db: apsw.Connection, disclosure: Disclosure) -> None:
    """Once per job and knowledge base; a second time changes nothing. Raises KnowledgeLimit."""
    if len(disclosure.chunks) > MAX_DISCLOSED_CHUNKS:
        raise KnowledgeLimit(f"one job carries at most {MAX_DISCLOSED_CHUNKS} passages")
    row = one(
        db,
        """
        INSERT INTO disclosures
            (job_id, completion_id, knowledge_base, node_key, jurisdiction, purpose, at_ms)
            VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (job_id, knowledge_base) DO NOTHING RETURNING number
        """,
        disclosure.job_id,
        disclosure.completion_id,
        disclosure.knowledge_base,
        disclosure.node_key,
        disclosure.jurisdiction,
        disclosure.purpose,
        disclosure.at_ms,
    )
    if row is not None:
        db.executemany(
            "INSERT INTO disclosed_chunks (disclosure, position, chunk_id, sha256) VALUES (?, ?, ?, ?)",
            [
                (row[0], position, bytes.fromhex(chunk.chunk_id.removeprefix("chk_")), bytes.fromhex(chunk.sha256))
                for position, chunk in enumerate(disclosure.chunks)
            ],
        )


def find(
    db: apsw.Connection, *, job_id: str | None, completion_id: str | None, knowledge_base: str | None, limit: int
) -> tuple[Disclosure, ...]:
    """Newest first; each argument that is given narrows it."""
    asked = {"job_id": job_id, "completion_id": completion_id, "knowledge_base": knowledge_base}
    given = {name: value for name, value in asked.items() if value is not None}
    found = rows(
        db,
        f"""
        SELECT number, job_id, completion_id, knowledge_base, node_key, jurisdiction, purpose, at_ms FROM disclosures
        WHERE {" AND ".join(f"{name} = ?" for name in given) or "TRUE"} ORDER BY number DESC LIMIT ?
        """,
        *given.values(),
        min(limit, MAX_LISTED),
    )
    return tuple(
        Disclosure(
            job_id=job,
            completion_id=completion,
            knowledge_base=base,
            node_key=node_key,
            jurisdiction=jurisdiction,
            purpose=purpose,
            at_ms=at_ms,
            chunks=_chunks(db, number),
        )
        for number, job, completion, base, node_key, jurisdiction, purpose, at_ms in found
    )


def embedded_chunks(db: apsw.Connection, base_id: str, keys: Sequence[bytes]) -> tuple[DisclosedChunk, ...]:
    """The passages of a knowledge base whose vectors are made of texts with these SHA-256."""
    found: list[DisclosedChunk] = []
    for key in keys:
        kept = rows(
            db,
            """
            SELECT chunks.id, chunks.sha256 FROM chunks JOIN documents ON documents.number = chunks.document
                JOIN bases ON bases.number = documents.base
            WHERE chunks.embedding_key = ? AND bases.id = ? ORDER BY chunks.number LIMIT 1
            """,
            key,
            base_id,
        )
        found += [DisclosedChunk(f"chk_{chunk.hex()}", digest.hex()) for chunk, digest in kept]
    return tuple(found)


def _chunks(db: apsw.Connection, number: int) -> tuple[DisclosedChunk, ...]:
    kept = rows(db, "SELECT chunk_id, sha256 FROM disclosed_chunks WHERE disclosure = ? ORDER BY position", number)
    return tuple(DisclosedChunk(f"chk_{chunk.hex()}", digest.hex()) for chunk, digest in kept)
