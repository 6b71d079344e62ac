"""What is at /api/v1/knowledge-bases, and the record of what left the machine.

Every knowledge base is the node's owner's, so every key whose scope allows it sees all of them. Only the key that made one,
and pays for it, changes it; and operators.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from typing import Final

import trio
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from ryvion_node.knowledge.constants import MAX_LISTED
from ryvion_node.knowledge.interface import Searcher
from ryvion_node.proxy.access import Action, Caller, Keys, admit
from ryvion_node.proxy.constants import MAX_KNOWLEDGE_BODY_BYTES, MAX_UPLOADS, UPLOAD_S
from ryvion_node.proxy.errors import ApiError
from ryvion_node.proxy.exchange import Exchange
from ryvion_node.proxy.knowledge.service import Knowledge
from ryvion_node.proxy.knowledge.shapes import (
    KnowledgeBaseRequest,
    SearchRequest,
    base_json,
    deleted_json,
    disclosure_json,
    document_json,
    found_json,
    list_json,
    parsed,
)
from ryvion_node.proxy.knowledge.shared import changeable, opened, told
from ryvion_node.proxy.knowledge.upload import uploaded_files
from ryvion_node.proxy.orders import jurisdictions_of
from ryvion_node.proxy.till import Till
from ryvion_node.proxy.validation import invalid_value


class _Endpoint(ABC):
    """An ASGI endpoint. Reading needs a key only; what changes or searches counts against the key's rate as well."""

    def __init__(self, knowledge: Knowledge | None, keys: Keys, till: Till) -> None:
        self._knowledge = knowledge
        self._keys = keys
        self._till = till

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check the caller, then answer."""
        exchange = Exchange.of(scope)
        action = self.action(exchange.method)
        if action in ("search_knowledge_bases", "change_knowledge_bases"):
            caller = (await self._till.admit(exchange, action)).caller
        else:
            caller = await admit(exchange.headers, self._keys, action)
        knowledge = opened(self._knowledge)
        with told():
            await self.serve(exchange, Request(scope), caller, knowledge)

    def action(self, method: str) -> Action:
        """What a key must allow."""
        return "list_knowledge_bases" if method in ("GET", "HEAD") else "change_knowledge_bases"

    @abstractmethod
    async def serve(self, exchange: Exchange, request: Request, caller: Caller, knowledge: Knowledge) -> None:
        """Answer."""


class KnowledgeBases(_Endpoint):
    """GET and POST /api/v1/knowledge-bases."""

    async def serve(self, exchange: Exchange, request: Request, caller: Caller, knowledge: Knowledge) -> None:
        """List them, or make one."""
        if exchange.method != "POST":
            bases = await knowledge.store.knowledge_bases()
            await exchange.answer_json(list_json([base_json(base) for base in bases]))
            return
        wanted = parsed(KnowledgeBaseRequest, await exchange.body(MAX_KNOWLEDGE_BODY_BYTES))
        places = jurisdictions_of(wanted.jurisdiction, caller.jurisdictions)
        with told("name"):
            base = await knowledge.store.create_knowledge_base(wanted.name, places, caller.id)
        await exchange.answer_json(base_json(base), status=201)


class OneKnowledgeBase(_Endpoint):
    """GET and DELETE /api/v1/knowledge-bases/{knowledge_base}."""

    async def serve(self, exchange: Exchange, request: Request, caller: Caller, knowledge: Knowledge) -> None:
        """Show it, or take it away."""
        base_id = request.path_params["knowledge_base"]
        if exchange.method == "DELETE":
            await changeable(knowledge, base_id, caller)
            await knowledge.store.delete_knowledge_base(base_id)
            await exchange.answer_json(deleted_json(base_id, "knowledge_base"))
        else:
            await exchange.answer_json(base_json(await knowledge.store.knowledge_base(base_id)))


class Documents(_Endpoint):
    """GET and POST /api/v1/knowledge-bases/{knowledge_base}/documents."""

    def __init__(self, knowledge: Knowledge | None, keys: Keys, till: Till) -> None:
        super().__init__(knowledge, keys, till)
        self._uploads = trio.CapacityLimiter(MAX_UPLOADS)

    async def serve(self, exchange: Exchange, request: Request, caller: Caller, knowledge: Knowledge) -> None:
        """List them, or take files in."""
        base_id = request.path_params["knowledge_base"]
        if exchange.method == "POST":
            await changeable(knowledge, base_id, caller)
            await self._upload(exchange, base_id, knowledge)
            return
        limit = limit_of(request.query_params)
        page = await knowledge.store.documents(base_id, limit, request.query_params.get("after"))
        is_full = len(page) == limit
        has_more = is_full and bool(await knowledge.store.documents(base_id, 1, page[-1].id))
        await exchange.answer_json(list_json([document_json(document) for document in page], has_more=has_more))

    async def _upload(self, exchange: Exchange, base_id: str, knowledge: Knowledge) -> None:
        taken = []
        async with self._uploads:
            with trio.move_on_after(UPLOAD_S) as scope:
                async with contextlib.aclosing(uploaded_files(exchange)) as files:
                    async for file in files:
                        added = await knowledge.store.add_document(base_id, file.data, file.filename)
                        taken.append(document_json(added.document, added.outcome))
        if scope.cancelled_caught:
            raise ApiError("request_timeout", f"The files did not arrive within {UPLOAD_S:.0f} s; send fewer at once.")
        await exchange.answer_json(taken[0] if len(taken) == 1 else list_json(taken), status=202)


class OneDocument(_Endpoint):
    """GET and DELETE /api/v1/knowledge-bases/{knowledge_base}/documents/{document}."""

    async def serve(self, exchange: Exchange, request: Request, caller: Caller, knowledge: Knowledge) -> None:
        """Show it, or take it away."""
        base_id, document = request.path_params["knowledge_base"], request.path_params["document"]
        if exchange.method == "DELETE":
            await changeable(knowledge, base_id, caller)
            await knowledge.store.delete_document(base_id, document)
            await exchange.answer_json(deleted_json(document, "knowledge_base.document"))
        else:
            await exchange.answer_json(document_json(await knowledge.store.document(base_id, document)))


class VectorsOfBase(_Endpoint):
    """DELETE /api/v1/knowledge-bases/{knowledge_base}/vectors: they are made anew."""

    async def serve(self, exchange: Exchange, request: Request, caller: Caller, knowledge: Knowledge) -> None:
        """Forget them."""
        base_id = request.path_params["knowledge_base"]
        await changeable(knowledge, base_id, caller)
        await knowledge.store.forget_vectors(base_id)
        await exchange.answer_json(deleted_json(base_id, "knowledge_base.vectors"))


class SearchView(_Endpoint):
    """POST /api/v1/knowledge-bases/{knowledge_base}/search: passages, and no answer."""

    def action(self, method: str) -> Action:
        """It shows what documents say, and may buy a vector of the query."""
        return "search_knowledge_bases"

    async def serve(self, exchange: Exchange, request: Request, caller: Caller, knowledge: Knowledge) -> None:
        """Search."""
        with self._till.further(caller, 1):
            wanted = parsed(SearchRequest, await exchange.body(MAX_KNOWLEDGE_BODY_BYTES))
            found = await knowledge.search.search(
                request.path_params["knowledge_base"],
                wanted.query,
                wanted.limit,
                wanted.documents,
                Searcher(caller.id, caller.jurisdictions),
            )
        await exchange.answer_json(found_json(found))


class DisclosuresView(_Endpoint):
    """GET /api/v1/disclosures: what left the machine, by job, by answer, or by knowledge base."""

    def action(self, method: str) -> Action:
        """It tells as much as receipts do."""
        return "read_receipts"

    async def serve(self, exchange: Exchange, request: Request, caller: Caller, knowledge: Knowledge) -> None:
        """List it."""
        asked = request.query_params
        found = await knowledge.store.disclosures(
            job_id=asked.get("job_id"),
            completion_id=asked.get("completion_id"),
            knowledge_base=asked.get("knowledge_base"),
            limit=limit_of(asked),
        )
        await exchange.answer_json(list_json([disclosure_json(disclosure) for disclosure in found]))


def limit_of(parameters: QueryParams) -> int:
    """How many to list; raises ApiError."""
    given = parameters.get("limit", "100")
    if not (given.isascii() and given.isdecimal() and len(given) < 5 and 1 <= int(given) <= MAX_LISTED):
        raise invalid_value("limit", f"must be a number from 1 to {MAX_LISTED}")
    return int(given)


_ROOT: Final = "/api/v1/knowledge-bases"
ROUTES: Final[tuple[tuple[str, type[_Endpoint], *tuple[str, ...]], ...]] = (
    (_ROOT, KnowledgeBases, "GET", "POST"),
    (_ROOT + "/{knowledge_base}", OneKnowledgeBase, "GET", "DELETE"),
    (_ROOT + "/{knowledge_base}/documents", Documents, "GET", "POST"),
    (_ROOT + "/{knowledge_base}/documents/{document}", OneDocument, "GET", "DELETE"),
    (_ROOT + "/{knowledge_base}/vectors", VectorsOfBase, "DELETE"),
    (_ROOT + "/{knowledge_base}/search", SearchView, "POST"),
    ("/api/v1/disclosures", DisclosuresView, "GET"),
)
"""Path, endpoint, methods."""
