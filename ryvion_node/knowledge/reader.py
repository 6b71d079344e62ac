"""A synchronous view of the knowledge bases; `read_knowledge` opens one for the command line, while the node may run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import apsw

from ryvion_node.knowledge import bases, disclosures, lookup
from ryvion_node.knowledge.database import connect, find_damage, operator_errors, schema_version
from ryvion_node.knowledge.errors import KnowledgeBaseUnknown, KnowledgeMissing, KnowledgeTooOld
from ryvion_node.knowledge.interface import KnowledgeBase, Passage
from ryvion_node.knowledge.records import Disclosure
from ryvion_node.knowledge.schema import MIGRATIONS


@contextlib.contextmanager
def read_knowledge(path: Path) -> Iterator[KnowledgeView]:
    """Open `path` to read; raises KnowledgeMissing, KnowledgeTooOld and the operator errors of `prepare_database`."""
    if not path.exists():
        raise KnowledgeMissing(path=path)
    with operator_errors(path), contextlib.closing(connect(path, writing=False)) as db:
        version = schema_version(db, path, len(MIGRATIONS))
        if version < len(MIGRATIONS):
            raise KnowledgeTooOld(path=path, found=version, known=len(MIGRATIONS))
        yield KnowledgeView(db)


class KnowledgeView:
    """What a person looks up without a running node."""

    def __init__(self, db: apsw.Connection) -> None:
        self._db = db

    def knowledge_bases(self) -> tuple[KnowledgeBase, ...]:
        """All, oldest first."""
        return bases.every(self._db)

    def find_damage(self) -> str | None:
        """What is wrong with the file; reads all of it. Indexes of words are not compared with the passages."""
        return find_damage(self._db)

    def passages_of(self, knowledge_base: str, hashes: Sequence[bytes]) -> tuple[Passage, ...]:
        """Those whose text has one of these SHA-256; raises KnowledgeBaseUnknown."""
        found = lookup.chunks_by_hash(self._db, bases.get_index(self._db, knowledge_base), hashes)
        return tuple(lookup.passage(chunk, knowledge_base) for chunk in found)

    def passage(self, chunk_id: str) -> Passage | None:
        """In whichever knowledge base it is."""
        found = (self.passages(base.id, (chunk_id,)) for base in self.knowledge_bases())
        return next((passages[0] for passages in found if passages), None)

    def passages(self, knowledge_base: str, chunk_ids: Sequence[str]) -> tuple[Passage, ...]:
        """Those that are there; none of a knowledge base that was deleted."""
        try:
            base = bases.get_index(self._db, knowledge_base)
        except KnowledgeBaseUnknown:
            return ()
        found = [lookup.chunk_by_id(self._db, base, chunk_id) for chunk_id in chunk_ids]
        return tuple(lookup.passage(chunk, knowledge_base) for chunk in found if chunk is not None)

    def disclosures(
        self,
        *,
        job_id: str | None = None,
        completion_id: str | None = None,
        knowledge_base: str | None = None,
        limit: int = 100,
    ) -> tuple[Disclosure, ...]:
        """What left the machine, newest first, at most MAX_LISTED."""
        return disclosures.find(
            self._db, job_id=job_id, completion_id=completion_id, knowledge_base=knowledge_base, limit=limit
        )
