"""The endpoint before the node's own key file."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from proxy_harness import Client, FakeReceipts, Reply

from ryvion_node.keys import KeyStore
from ryvion_node.market.fake import FakeMarket, says
from ryvion_node.proxy.server import ProxyServer
from ryvion_node.proxy.settings import Settings
from ryvion_node.proxy.vault import MemoryVault
from ryvion_node.proxy.wiring import NodeKeys


@pytest.fixture
def store(tmp_path: Path) -> KeyStore:
    return KeyStore(tmp_path / "home" / "keys.json")


async def test_keys_are_admitted_by_scope_and_place_until_they_are_revoked(store: KeyStore) -> None:
    keys = NodeKeys(store, "control_secret")
    key, token = store.create("laptop", "buyer", "CA,US")
    admitted = await keys.authenticate(token)
    assert admitted is not None
    assert (admitted.id, admitted.scope, admitted.jurisdictions) == (key.id, "buyer", ("CA", "US"))
    store.revoke(key.id)
    assert await keys.authenticate(token) is None


async def test_the_control_token_is_the_operator(store: KeyStore) -> None:
    keys = NodeKeys(store, "control_secret")
    control = await keys.authenticate("control_secret")
    assert control is not None
    assert (control.scope, control.jurisdictions) == ("operator", ())
    for wrong in ("", "control_secre", "control_secret ", "ünïcode", "x" * 10_000):
        assert await keys.authenticate(wrong) is None


async def test_a_key_file_that_became_unreadable_lets_nobody_in_and_ends_nothing(
    store: KeyStore, tmp_path: Path
) -> None:
    _, token = store.create("laptop", "buyer")
    path = tmp_path / "home" / "keys.json"
    market = FakeMarket({"echo": says("x")})
    keys = NodeKeys(store, "control_secret")
    server = ProxyServer(market, keys, FakeReceipts(market), Settings(port=0), MemoryVault())
    async with trio.open_nursery() as nursery:
        url: str = await nursery.start(server.run)
        assert (await _models(url, token)).status == 200
        path.write_text("{")
        assert (await _models(url, token)).status == 500
        path.unlink()
        assert (await _models(url, token)).status == 401
        nursery.cancel_scope.cancel()


async def _models(url: str, token: str) -> Reply:
    authority = url.removeprefix("http://")
    host, port = authority.split(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        client = Client(stream, authority)
        await client.send("GET", "/v1/models", authorization=f"Bearer {token}")
        return await client.reply()
