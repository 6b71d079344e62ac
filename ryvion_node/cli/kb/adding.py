"""Handing files to the node, and waiting until it has read them."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, replace
from typing import Final, Protocol

from ryvion_node.cli.control_client import NodeRefused
from ryvion_node.cli.kb.api import Json, KnowledgeApi
from ryvion_node.cli.kb.files import CannotRead, FoundFile, Selection, read_file
from ryvion_node.knowledge.constants import MAX_FILE_BYTES, MAX_WAITING_BYTES

MAX_AHEAD_BYTES: Final = MAX_WAITING_BYTES // 8
"""Sent and not seen read. The node refuses files beyond what it keeps of unread ones, and others may add some too."""
POLL_S: Final = 0.2
"""Between two looks at a document that is not through. A short one takes about a second."""
_OF_ONE_FILE: Final = (400, 413, 415)
"""HTTP statuses that say something about the file, and nothing about the next one."""
_DONE: Final = ("ready", "failed")


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one file."""

    filename: str
    outcome: str
    """As in the API: added, replacing, unchanged, duplicate; or refused."""
    document: Json | None = None
    """As it was last seen; of a duplicate, the one that was there before."""
    error: str | None = None

    @property
    def failed(self) -> bool:
        return self.error is not None

    def as_json(self) -> Json:
        return {
            "filename": self.filename,
            "outcome": self.outcome,
            "error": self.error,
            "document": self.document,
        }


class Watcher(Protocol):
    """Whoever shows how far it is."""

    def sending(self, number: int, file: FoundFile) -> None:
        """That file of the selection comes now, from 1."""

    def sent(self, size_bytes: int) -> None:
        """So much more of it is with the node."""

    def reading(self, waiting: int) -> None:
        """All are sent; the node has so many to read."""

    def seen(self, document: Json) -> None:
        """A document, as it is now."""


def add_files(api: KnowledgeApi, base_id: str, selection: Selection, watcher: Watcher, *, wait: bool) -> list[Result]:
    """Hand over all that can be read, and with `wait` look until the node is through with each document.

    What is wrong with one file is its own result; raises OperatorError for what is wrong with the node.
    """
    results = [Result(name, "refused", error=reason) for name, reason in selection.unreadable]
    ahead: deque[tuple[int, int]] = deque()
    """Place in `results` and bytes of each that the node may not have read."""
    for number, file in enumerate(selection.files, start=1):
        watcher.sending(number, file)
        ahead.append((len(results), file.size_bytes))
        results.append(_send(api, base_id, file, watcher))
        while wait and sum(size for _, size in ahead) > MAX_AHEAD_BYTES:
            index, _ = ahead.popleft()
            results[index] = _wait(api, base_id, results[index], watcher)
    if not wait:
        return results
    watcher.reading(len({result.document["id"] for result in results if result.document and _is_under_way(result)}))
    return [_wait(api, base_id, result, watcher) for result in results]


def _send(api: KnowledgeApi, base_id: str, file: FoundFile, watcher: Watcher) -> Result:
    try:
        data = read_file(file)
        if len(data) > MAX_FILE_BYTES:
            raise CannotRead(f"it is larger than {MAX_FILE_BYTES} bytes, the most that is read: split it")
        document = api.send(base_id, file.name, data, watcher.sent)
    except CannotRead as exc:
        return Result(file.name, "refused", error=str(exc))
    except NodeRefused as exc:
        if exc.facts["status"] not in _OF_ONE_FILE:
            raise
        return Result(file.name, "refused", error=str(exc))
    return _as_seen(Result(file.name, document["outcome"]), document)


def _wait(api: KnowledgeApi, base_id: str, result: Result, watcher: Watcher) -> Result:
    while _is_under_way(result):
        assert result.document is not None
        try:
            document = api.document(base_id, result.document["id"])
        except NodeRefused as exc:
            if exc.facts["code"] != "document_not_found":
                raise
            return replace(result, error="it was deleted or replaced meanwhile")
        watcher.seen(document)
        result = _as_seen(result, document)
        if _is_under_way(result):
            time.sleep(POLL_S)
    return result


def _is_under_way(result: Result) -> bool:
    return result.document is not None and result.document["state"] not in _DONE


def _as_seen(result: Result, document: Json) -> Result:
    return replace(result, document=document, error=document["error"] if document["state"] == "failed" else None)
