"""What refusals say to a person: each names what to do instead."""

from __future__ import annotations

import pytest
from proxy_harness import serving

from ryvion_node.market.fake import Script, says
from ryvion_node.market.interface import MarketError
from ryvion_node.preferences_object import PreferencesObject

CHAT = {"model": "echo", "messages": [{"role": "user", "content": "hi"}]}
SCRIPTS = {"echo": says("hi")}
KEY = {"authorization": "Bearer sk-buyer"}
POST = ("POST", "/v1/chat/completions")


@pytest.mark.parametrize(
    ("place", "headers", "words"),
    [
        (POST, {}, ("none came", "Authorization: Bearer <key>", "keys create")),
        (POST, {"authorization": "sk-buyer"}, ("none came", "Authorization: Bearer <key>")),
        (POST, {"authorization": "Basic c2s="}, ("none came", "Authorization: Bearer <key>")),
        (POST, {"authorization": "Bearer sk-nobody"}, ("not one of this node's", "keys create")),
        (POST, KEY | {"host": "host.docker.internal:7986"}, ("`allowed_hosts` under [proxy]",)),
        (POST, KEY | {"origin": "http://localhost:3000"}, ("`allowed_origins` under [proxy]",)),
        (("POST", "/chat/completions"), KEY, ("'/chat/completions'", "http://HOST:PORT/v1", "/openapi.json")),
        (("GET", "/api/v1/receipts/4eb400f614cdae28"), KEY, ("whole cid", "ryv1:sha256:")),
        (("GET", "/v1/chat/completions"), KEY, ("GET is not possible here; send POST.",)),
    ],
)
async def test_who_comes_wrong_is_shown_the_way(
    place: tuple[str, str], headers: dict[str, str], words: tuple[str, ...]
) -> None:
    async with serving(SCRIPTS) as endpoint:
        reply = await endpoint.ask(*place, CHAT if place[0] == "POST" else None, **headers)
    for each in words:
        assert each in reply.error["message"]


@pytest.mark.parametrize(
    ("extra", "param", "words"),
    [
        (
            {"ryvion": {"quantization": "Q8_0"}},
            "ryvion.quantization",
            (f"{', '.join(PreferencesObject.model_fields)}.",),
        ),
        ({"jurisdiction": "Germany"}, "jurisdiction", ("did you mean DE (Germany)?",)),
        ({"messages": []}, "messages", ("at least 1 item, not 0.",)),
        (
            {"response_format": {"type": "json_object", "schema": {"type": "object"}}},
            "response_format.schema",
            ("'response_format.json_schema.schema'", "'json_schema'"),
        ),
    ],
)
async def test_a_wrong_value_is_told_the_right_one(
    extra: dict[str, object], param: str, words: tuple[str, ...]
) -> None:
    async with serving(SCRIPTS) as endpoint:
        reply = await endpoint.ask(*POST, CHAT | extra, **KEY)
    assert (reply.status, reply.error["param"]) == (400, param)
    for each in words:
        assert each in reply.error["message"]
    assert "?." not in reply.error["message"]


async def test_a_body_that_is_no_object_is_called_by_no_name() -> None:
    async with serving(SCRIPTS) as endpoint:
        reply = await endpoint.ask(*POST, [], **KEY)
    assert reply.error["message"] == "The request body: Input should be an object."


@pytest.mark.parametrize(("extra", "param"), [({}, None), ({"ryvion": {"max_price": 1}}, "ryvion.max_price")])
async def test_the_request_s_own_price_limit_is_named_when_it_has_one(
    extra: dict[str, object], param: str | None
) -> None:
    async with serving({"echo": Script(before=(MarketError("price_limit", "too dear"),))}) as endpoint:
        reply = await endpoint.ask(*POST, CHAT | extra, **KEY)
    assert (reply.status, reply.error["param"]) == (402, param)
