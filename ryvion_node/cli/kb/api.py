"""Knowledge bases as the running node shows them over HTTP (docs/knowledge.md), and what they are called."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote, urlencode

from ryvion_node.cli.control_client import DISK_TIMEOUT_S, call_node, send_file
from ryvion_node.errors import EXIT_NO_INPUT, EXIT_USAGE, OperatorError
from ryvion_node.paths import Paths

Json = dict[str, Any]
_ROOT: Final = "/api/v1/knowledge-bases"
_PAGE: Final = 500
"""Documents asked for at once."""


class NoSuchKnowledgeBase(OperatorError):
    """There is no knowledge base {name}. `ryvion-node kb list` shows those there are, `ryvion-node kb create` makes
    one.
    """

    exit_code = EXIT_NO_INPUT


class NameAmbiguous(OperatorError):
    """{count} knowledge bases are called {name}: {ids}. Give the id of the one you mean."""

    exit_code = EXIT_USAGE


class NoSuchDocument(OperatorError):
    """The knowledge base {base} has no document {name}. `ryvion-node kb show {base}` lists those it has."""

    exit_code = EXIT_NO_INPUT


def named(names: Iterable[tuple[str, str]], wanted: str) -> str:
    """The id of the one that is `wanted`, an id or a name, among pairs of both.

    Raises NoSuchKnowledgeBase, NameAmbiguous.
    """
    pairs = list(names)
    if any(base_id == wanted for base_id, _ in pairs):
        return wanted
    found = [base_id for base_id, name in pairs if name == " ".join(wanted.split())]
    if not found:
        raise NoSuchKnowledgeBase(name=repr(wanted[:200]))
    if len(found) > 1:
        raise NameAmbiguous(count=len(found), name=repr(wanted[:200]), ids=", ".join(found))
    return found[0]


class KnowledgeApi:
    """Each method is one request, or one for each page; they raise the OperatorErrors of `call_node`."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    def create(self, name: str, jurisdiction: str | None) -> Json:
        wanted = {"name": name} if jurisdiction is None else {"name": name, "jurisdiction": jurisdiction}
        return self._call("POST", "", wanted)

    def bases(self) -> list[Json]:
        return list(self._call("GET", "")["data"])

    def base(self, wanted: str) -> Json:
        """By id or name; raises NoSuchKnowledgeBase, NameAmbiguous."""
        bases = self.bases()
        base_id = named(((base["id"], base["name"]) for base in bases), wanted)
        return next(base for base in bases if base["id"] == base_id)

    def delete(self, base_id: str) -> Json:
        return self._call("DELETE", f"/{base_id}")

    def forget_vectors(self, base_id: str) -> Json:
        """Have them made anew."""
        return self._call("DELETE", f"/{base_id}/vectors")

    def documents(self, base_id: str) -> Iterator[Json]:
        """All, oldest first."""
        after: dict[str, str] = {}
        while True:
            page = self._call("GET", f"/{base_id}/documents?{urlencode({'limit': _PAGE, **after})}")
            yield from page["data"]
            if not page["has_more"]:
                return
            after = {"after": page["data"][-1]["id"]}

    def documents_called(self, base_id: str, wanted: Sequence[str]) -> list[Json]:
        """Those with one of these ids or filenames, of which two may have the same: one that is found, and one that is
        to replace it. Raises NoSuchDocument.
        """
        found = [document for document in self.documents(base_id) if {document["id"], document["filename"]} & {*wanted}]
        for name in wanted:
            if not any(name in (document["id"], document["filename"]) for document in found):
                raise NoSuchDocument(base=base_id, name=repr(name[:200]))
        return found

    def document(self, base_id: str, document_id: str) -> Json:
        return self._call("GET", f"/{base_id}/documents/{quote(document_id, safe='')}")

    def delete_document(self, base_id: str, document_id: str) -> Json:
        return self._call("DELETE", f"/{base_id}/documents/{quote(document_id, safe='')}")

    def send(self, base_id: str, filename: str, data: bytes, on_sent: Callable[[int], None]) -> Json:
        """Upload a file; `outcome` of what comes back says what became of it."""
        return _object(send_file(self._paths, f"{_ROOT}/{base_id}/documents", filename, data, on_sent))

    def search(self, base_id: str, query: str, limit: int, documents: Sequence[str]) -> Json:
        wanted: dict[str, object] = {"query": query, "limit": limit}
        if documents:
            wanted["documents"] = list(documents)
        return self._call("POST", f"/{base_id}/search", wanted)

    def _call(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Json:
        return _object(call_node(self._paths, method, _ROOT + path, body, DISK_TIMEOUT_S))


def _object(answer: object) -> Json:
    assert isinstance(answer, dict)
    return answer
