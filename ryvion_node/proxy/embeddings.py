"""POST /v1/embeddings: vectors of texts, bought as a job of their own, with a receipt over their very bytes."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator

import trio
from starlette.types import Receive, Scope, Send

from ryvion_node.market.collecting import Embedded, OtherDimensions, collect
from ryvion_node.market.interface import EmbeddingOrder, Market, MarketError, Placement
from ryvion_node.market.vectors import EMBEDDING_PREFIX
from ryvion_node.proxy.answers import outcome_json, taken_json
from ryvion_node.proxy.completions import job_headers
from ryvion_node.proxy.embedding_requests import EmbeddingRequest, embedding_order, parse_embedding_request
from ryvion_node.proxy.errors import ApiError, from_market
from ryvion_node.proxy.till import Till, Visit


class Embeddings:
    """The ASGI endpoint."""

    def __init__(self, market: Market, till: Till) -> None:
        self._market = market
        self._till = till

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check the caller and the request, then answer."""
        await self._till.serve(scope, self._serve, EMBEDDING_PREFIX)

    async def _serve(self, visit: Visit) -> None:
        asked = parse_embedding_request(visit.body)
        order = embedding_order(asked, visit.caller.jurisdictions, visit.caller.preferences, visit.account)
        placement: Placement | None = None
        try:
            async with self._market.embed(order) as job:
                placement = job.placement
                ended = await collect(job, asked.dimensions)
        except MarketError as error:
            raise from_market(error, order) from error
        match ended:
            case Embedded():
                headers = (*job_headers(ended.placement), ("x-ryvion-receipt-cid", ended.outcome.cid))
                # A thousand long vectors take a second to write: the other requests go on meanwhile.
                body = await trio.to_thread.run_sync(_body, asked, order, ended)
                await visit.exchange.answer(200, body, headers)
            case OtherDimensions():
                raise _other_dimensions(ended) from ended
            case MarketError():
                raise from_market(ended, order, headers=job_headers(placement)) from ended
            case _:
                raise ended


def _other_dimensions(ended: OtherDimensions) -> ApiError:
    """What came so far is paid for, so nobody should simply try again."""
    problem = f"'dimensions' must be {ended.found} for this model, or left out: vectors are not shortened here."
    headers = (*job_headers(ended.placement), ("x-should-retry", "false"))
    return ApiError("unsupported_parameter", problem, param="dimensions", headers=headers)


def _body(asked: EmbeddingRequest, order: EmbeddingOrder, done: Embedded) -> bytes:
    tokens = done.outcome.prompt_tokens
    answer = {
        "id": order.account.completion_id,
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": vector}
            for index, vector in enumerate(_vectors(done, encoded=asked.encoding_format == "base64"))
        ],
        "model": done.placement.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        "ryvion": taken_json(done.placement) | outcome_json(done.placement, done.outcome),
    }
    return json.dumps(answer).encode()


def _vectors(done: Embedded, *, encoded: bool) -> Iterator[str | list[float]]:
    size = 4 * max(done.dimensions, 1)
    for at in range(0, len(done.values), size):
        vector = done.values[at : at + size]
        if encoded:
            yield base64.b64encode(vector).decode("ascii")
        else:
            # Nine digits are read back as the same float32, so the receipt's hash can be checked with them.
            yield [float(f"{number:.9g}") for number in struct.unpack(f"<{done.dimensions}f", vector)]
