"""The `ryvion` object of requests: it reaches the order on all endpoints, within the key's own, and fails closed."""

from __future__ import annotations

from typing import Any

import pytest
from proxy_clients import async_client
from proxy_harness import HELLO, Endpoint, FakeKeys, Key, Reply, serving

from ryvion_node.market.fake import Script, says
from ryvion_node.market.interface import MarketError
from ryvion_node.market.wanted import needed_features
from ryvion_node.preferences import Preferences
from ryvion_protocol.schema import NodeKey

pytestmark = [
    pytest.mark.filterwarnings("ignore:Async generator '(httpx|httpcore|openai):ResourceWarning"),
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <async_generator object:pytest.PytestUnraisableExceptionWarning"
    ),
]

NODE, OTHER = NodeKey(b"\x01" * 32), NodeKey(b"\x02" * 32)
WANTED: dict[str, Any] = {
    "sort": "latency",
    "max_price": 700,
    "allow": [NODE.hex()],
    "deny": [OTHER.hex()],
    "digest": "ab" * 32,
    "quantisation": "q8_0",
    "min_assurance": "count-checked",
}
MEANT = Preferences(
    sort="latency",
    max_price=700,
    allow=frozenset({NODE}),
    deny=frozenset({OTHER}),
    digests=frozenset({b"\xab" * 32}),
    quantisations=frozenset({"Q8_0"}),
    min_assurance="count-checked",
)
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": HELLO},
    "/v1/completions": {"prompt": "hi"},
    "/v1/responses": {"input": "hi"},
    "/v1/embeddings": {"input": "hi"},
}


async def ask(endpoint: Endpoint, path: str, ryvion: object, token: str = "sk-buyer") -> Reply:
    body = BODIES[path] | {"model": "echo", "ryvion": ryvion}
    return await endpoint.ask("POST", path, body, authorization=f"Bearer {token}")


@pytest.mark.parametrize("path", BODIES)
async def test_preferences_reach_the_order(path: str) -> None:
    async with serving({"echo": says("a")}) as endpoint:
        for ryvion in (WANTED, {}, None):
            assert (await ask(endpoint, path, ryvion)).status == 200
        orders = endpoint.market.embeddings or endpoint.market.orders
        assert [order.preferences for order in orders] == [MEANT, Preferences(), Preferences()]
        assert [order.max_price for order in orders] == [700, None, None]


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize(
    ("ryvion", "code", "param"),
    [
        ({"max_prize": 5}, "unsupported_parameter", "ryvion.max_prize"),
        ({"allow": []}, "invalid_value", "ryvion.allow"),
        ({"allow": [NODE.hex(), "somebody"]}, "invalid_value", "ryvion.allow[1]"),
        ({"deny": [5]}, "invalid_type", "ryvion.deny[0]"),
        ({"digest": "Q8_0"}, "invalid_value", "ryvion.digest"),
        ({"digest": [None]}, "invalid_type", "ryvion.digest[0]"),
        ({"max_price": "5"}, "invalid_type", "ryvion.max_price"),
        ({"min_assurance": "sampled"}, "invalid_value", "ryvion.min_assurance"),
        ("price", "invalid_type", "ryvion"),
    ],
)
async def test_what_is_not_understood_is_refused_by_name(path: str, ryvion: object, code: str, param: str) -> None:
    async with serving({"echo": says("a")}) as endpoint:
        reply = await ask(endpoint, path, ryvion)
        assert (reply.status, reply.error["code"], reply.error["param"]) == (400, code, param)
        assert not endpoint.market.orders
        assert not endpoint.market.embeddings


class BoundKeys(FakeKeys):
    """With one more key, that has preferences."""

    def __init__(self) -> None:
        super().__init__()
        bound = Preferences("price", 100, frozenset({NODE, OTHER}), quantisations=frozenset({"Q8_0"}))
        self.by_token["sk-bound"] = Key("k7", preferences=bound)


@pytest.mark.parametrize("path", BODIES)
async def test_a_request_narrows_what_its_key_may_and_never_widens_it(path: str) -> None:
    async with serving({"echo": says("a")}, keys=BoundKeys()) as endpoint:
        await ask(endpoint, path, None, "sk-bound")
        await ask(endpoint, path, WANTED | {"quantisation": ["F16", "Q8_0"], "max_price": 50}, "sk-bound")
        await ask(endpoint, path, {"max_price": 10**9, "quantisation": "F16"}, "sk-bound")
        plain, narrowed, widened = endpoint.market.embeddings or endpoint.market.orders
    assert plain.preferences == BoundKeys().by_token["sk-bound"].preferences
    assert (narrowed.preferences.sort, narrowed.preferences.allow) == ("latency", {NODE})
    assert (narrowed.max_price, narrowed.preferences.quantisations) == (50, {"Q8_0"})
    assert (plain.max_price, widened.max_price) == (100, 100)
    assert widened.preferences.quantisations == frozenset()


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize(("preference", "param"), [("allow", "ryvion.allow"), (None, "ryvion")])
async def test_preferences_that_nobody_meets_are_a_403(path: str, preference: str | None, param: str) -> None:
    refusal = MarketError("preferences_not_met", "nobody; on offer: Q8_0", preference=preference)
    async with serving({"echo": Script(before=(refusal,))}) as endpoint:
        reply = await ask(endpoint, path, WANTED)
    assert (reply.status, reply.error["code"], reply.error["param"]) == (403, "preferences_not_met", param)
    assert reply.error["type"] == "permission_error"
    assert "on offer: Q8_0" in (reply.error["message"] or "")


async def test_the_official_client_sends_them_as_an_extra() -> None:
    async with serving({"echo": says("a")}) as endpoint, async_client(endpoint) as client:
        await client.chat.completions.create(model="echo", messages=HELLO, extra_body={"ryvion": WANTED})
        await client.responses.create(model="echo", input="hi", extra_body={"ryvion": WANTED})
        await client.embeddings.create(model="echo", input="hi", extra_body={"ryvion": WANTED})
        assert [order.preferences for order in endpoint.market.orders] == [MEANT, MEANT]
        assert endpoint.market.embeddings[0].preferences == MEANT


@pytest.mark.parametrize("kind", ["chat", "embedding"])
async def test_a_route_is_explained_for_the_same_preferences_and_for_features(kind: str) -> None:
    body = {"model": "echo", "ryvion": WANTED, "features": ["tools", "counted", "tools"]}
    async with serving({"echo": Script(kind=kind)}, keys=BoundKeys()) as endpoint:
        for token in ("sk-buyer", "sk-bound"):
            reply = await endpoint.ask("POST", "/api/v1/route", body, authorization=f"Bearer {token}")
            assert (reply.status, reply.json()["sort"]) == (200, "latency")
        free, bound = endpoint.market.routed
    assert (free.kind, free.preferences, free.max_price) == (kind, MEANT, 700)
    assert needed_features(free) == ("counted", "tools")
    assert (bound.max_price, bound.preferences.quantisations) == (100, {"Q8_0"})


@pytest.mark.parametrize(
    ("extra", "code", "param"),
    [
        ({"ryvion": {"max_prize": 5}}, "unsupported_parameter", "ryvion.max_prize"),
        ({"ryvion": {"allow": []}}, "invalid_value", "ryvion.allow"),
        ({"features": ["telepathy"]}, "invalid_value", "features[0]"),
        ({"features": "tools"}, "invalid_type", "features"),
    ],
)
async def test_a_route_that_is_not_understood_is_refused_by_name(
    extra: dict[str, object], code: str, param: str
) -> None:
    async with serving({"echo": says("a")}) as endpoint:
        reply = await endpoint.ask("POST", "/api/v1/route", {"model": "echo"} | extra, authorization="Bearer sk-buyer")
    assert (reply.status, reply.error["code"], reply.error["param"]) == (400, code, param)
