"""What the endpoints of knowledge bases have in common: whether there are any, and how they fail."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ryvion_node.knowledge.errors import DocumentUnknown, KnowledgeBaseUnknown, KnowledgeError, KnowledgeLimit
from ryvion_node.proxy.access import Caller
from ryvion_node.proxy.errors import ApiError
from ryvion_node.proxy.knowledge.service import Knowledge


async def changeable(knowledge: Knowledge, base_id: str, caller: Caller) -> None:
    """Raise ApiError when `caller` may not change this knowledge base: the key that made it pays for what is added."""
    base = await knowledge.store.knowledge_base(base_id)
    if caller.scope != "operator" and caller.id != base.key_id:
        problem = f"The key {base.key_id} made this knowledge base and pays for it: change it with that key, or an operator's."
        raise ApiError("insufficient_scope", problem)


def opened(knowledge: Knowledge | None) -> Knowledge:
    """The knowledge bases; raises ApiError when the owner has switched them off."""
    if knowledge is None:
        problem = "Knowledge bases are switched off on this node; its owner can set `enabled = true` in [knowledge]."
        raise ApiError("knowledge_disabled", problem)
    return knowledge


@contextlib.contextmanager
def told(param: str | None = None) -> Iterator[None]:
    """What goes wrong inside as the error object; `param` names the knowledge base, where a body does."""
    try:
        yield
    except KnowledgeError as error:
        raise _api_error(error, param) from error


def _api_error(error: KnowledgeError, param: str | None) -> ApiError:
    said = str(error)
    problem = f"{said[:1].upper()}{said[1:]}."
    match error:
        case KnowledgeBaseUnknown():
            problem += " GET /api/v1/knowledge-bases lists those there are."
            return ApiError("knowledge_base_not_found", problem, param=param)
        case DocumentUnknown():
            problem += " GET /api/v1/knowledge-bases/{id}/documents lists those there are."
            return ApiError("document_not_found", problem, param="documents" if param else None)
        case KnowledgeLimit():
            return ApiError("knowledge_limit", problem, param=param)
        case _:
            return ApiError("knowledge_unavailable", problem)
