"""Clients may ask for models by names that the owner chose; what they get names the model itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from proxy_clients import async_client
from proxy_harness import serving

from ryvion_node.config import ConfigInvalid, load_config
from ryvion_node.market.fake import Script, says
from ryvion_node.market.interface import EmbeddingOrder
from ryvion_node.proxy.settings import Settings

ALIASES = {"gpt-4o-mini": "echo", "text-embedding-3-small": "embed", "gone": "nobody's"}
SCRIPTS = {"echo": says("a", "b"), "embed": Script(kind="embedding")}
SETTINGS = Settings(port=0, aliases=ALIASES)
KEY = {"authorization": "Bearer sk-buyer"}

pytestmark = pytest.mark.filterwarnings("ignore:Async generator '(httpx|httpcore|openai):ResourceWarning")


async def test_every_endpoint_that_buys_knows_them() -> None:
    async with serving(SCRIPTS, SETTINGS) as endpoint, async_client(endpoint) as client:
        chat = await client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "x"}])
        response = await client.responses.create(model="gpt-4o-mini", input="x")
        text = await client.completions.create(model="gpt-4o-mini", prompt="x")
        vectors = await client.embeddings.create(model="text-embedding-3-small", input="x")
        routed = await endpoint.ask("POST", "/api/v1/route", {"model": "gpt-4o-mini"}, **KEY)
        await endpoint.ask("POST", "/api/v1/route", {"model": "text-embedding-3-small"}, **KEY)
    assert [answer.model for answer in (chat, response, text, vectors)] == ["echo", "echo", "echo", "embed"]
    assert routed.json()["model"] == "echo"
    assert [(order.kind, order.model) for order in endpoint.market.routed] == [("chat", "echo"), ("embedding", "embed")]
    assert {order.model for order in endpoint.market.orders} == {"echo"}
    assert [order.model for order in endpoint.market.embeddings if isinstance(order, EmbeddingOrder)] == ["embed"]


async def test_models_list_them_beside_what_they_stand_for() -> None:
    async with serving(SCRIPTS, SETTINGS) as endpoint:
        listed: Any = (await endpoint.ask("GET", "/v1/models", **KEY)).json()
        one: Any = (await endpoint.ask("GET", "/v1/models/gpt-4o-mini", **KEY)).json()
        gone = await endpoint.ask("GET", "/v1/models/gone", **KEY)
    assert {model["id"]: model["ryvion"].get("alias_of") for model in listed["data"]} == {
        "echo": None,
        "embed": None,
        "gpt-4o-mini": "echo",
        "text-embedding-3-small": "embed",
    }
    assert one in listed["data"]
    assert gone.status == 404


async def test_what_an_alias_stands_for_may_be_gone() -> None:
    async with serving(SCRIPTS, SETTINGS) as endpoint:
        reply = await endpoint.chat("gone")
    assert (reply.status, reply.error["code"]) == (404, "model_not_found")
    assert "nobody's" in str(reply.error["message"])


def config(folder: Path, aliases: str) -> Any:
    path = folder / "node.toml"
    path.write_text(f"[proxy]\naliases = {aliases}\n", encoding="utf-8")
    return load_config(path)


def test_the_owner_names_them(tmp_path: Path) -> None:
    assert config(tmp_path, '{"gpt-4o" = "ryvion-tiny"}').proxy.aliases == {"gpt-4o": "ryvion-tiny"}


@pytest.mark.parametrize(
    ("aliases", "why"),
    [
        ('{"gpt-5-mini" = "m"}', "ask for other things"),
        ('{"openai/GPT-5" = "m"}', "ask for other things"),
        ('{"o1" = "m"}', "ask for other things"),
        ('{"o4-mini" = "m"}', "ask for other things"),
        ('{"my-Codex" = "m"}', "ask for other things"),
        ('{"a" = "b", "b" = "c"}', "alias itself"),
        ('{"no name" = "m"}', "aliases"),
        ('{"a" = ""}', "aliases"),
    ],
)
def test_names_that_do_harm_are_refused(tmp_path: Path, aliases: str, why: str) -> None:
    with pytest.raises(ConfigInvalid, match=why):
        config(tmp_path, aliases)
