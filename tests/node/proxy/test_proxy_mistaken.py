"""Names that were meant as ours are refused on every endpoint that buys; a limit is never dropped in silence."""

from __future__ import annotations

import pytest
from proxy_harness import serving

from ryvion_node.market.fake import says
from ryvion_node.preferences_object import PreferencesObject
from ryvion_node.proxy.constants import MAX_NAMES_COMPARED
from ryvion_node.proxy.errors import ApiError
from ryvion_node.proxy.mistaken import CALLED_OTHERWISE, CHAT_LIMITS, LIMITS, refuse_mistaken
from ryvion_node.proxy.requests import ChatRequest

KEY = {"authorization": "Bearer sk-buyer"}
BUYING = [
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}),
    ("/v1/responses", {"input": "hi"}),
    ("/v1/completions", {"prompt": "hi"}),
    ("/v1/embeddings", {"input": "hi"}),
]


@pytest.mark.parametrize(("path", "body"), BUYING)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("jurisdictions", ["DE"]),
        ("extra_body", {"jurisdiction": "DE"}),
        ("max_price", 5),
        ("Ryvion", {"sort": "price"}),
    ],
)
async def test_a_limit_that_would_be_dropped_buys_nothing(
    path: str, body: dict[str, object], name: str, value: object
) -> None:
    async with serving({"m": says("x")}) as endpoint:
        reply = await endpoint.ask("POST", path, body | {"model": "m", name: value}, **KEY)
        assert not endpoint.market.orders
    assert (reply.status, reply.error["code"], reply.error["param"]) == (400, "unsupported_parameter", name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("juristiction", "'jurisdiction' is meant"),
        ("JURISDICTION", "'jurisdiction' is meant"),
        ("ryvionn", "'ryvion' is meant"),
        ("provider", "'ryvion' and 'jurisdiction'"),
        ("knowledgeBase", "'knowledge_base' is meant"),
        *((name, f"is called '{here}' here") for name, here in CALLED_OTHERWISE.items()),
        *((name, "belongs into the object 'ryvion'") for name in PreferencesObject.model_fields),
    ],
)
def test_what_was_meant_is_told(name: str, words: str) -> None:
    with pytest.raises(ApiError, match=words):
        refuse_mistaken({"new": 1, name: 5}, CHAT_LIMITS)
    refuse_mistaken({name: None}, CHAT_LIMITS)


@pytest.mark.parametrize(
    "name", ["region", "version", "country", "vision", "cache_prompt", "timings_per_token", "", "é"]
)
def test_other_words_are_let_through(name: str) -> None:
    refuse_mistaken({name: 5}, CHAT_LIMITS)


def test_names_of_other_servers_stand_for_names_that_there_are() -> None:
    assert set(CALLED_OTHERWISE.values()) | set(CHAT_LIMITS) <= set(ChatRequest.model_fields)
    assert not set(CALLED_OTHERWISE) & set(ChatRequest.model_fields)


def test_a_body_of_names_alone_takes_no_time() -> None:
    refuse_mistaken({f"a{number}": 1 for number in range(MAX_NAMES_COMPARED)} | {"max_price": 5}, LIMITS)
