"""The worlds that the contract is tested in: the fake, and libp2p on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, Protocol

import pytest
import trio
from nacl.signing import SigningKey

from ryvion_node.p2p.fake import FakeInternet
from ryvion_node.p2p.interface import Network
from ryvion_protocol.schema import NodeKey

_seeds = count(1)


def fresh_seed() -> bytes:
    """A seed no other test of this process has used: libp2p never re-subscribes to an id it has seen leave."""
    return next(_seeds).to_bytes(32, "big")


def key_for(seed: bytes) -> NodeKey:
    return NodeKey(bytes(SigningKey(seed).verify_key))


class World(Protocol):
    """Somewhere to start nodes."""

    name: str

    def node(self, *bootstrap: Network) -> Any:
        """A started node as an async context manager."""
        ...


class FakeWorld:
    name = "fake"

    def __init__(self) -> None:
        self.internet = FakeInternet(everyone_linked=False)

    @asynccontextmanager
    async def node(self, *bootstrap: Network) -> AsyncIterator[Network]:
        links = [other.snapshot().node_key for other in bootstrap]
        network = self.internet.node(key_for(fresh_seed()), links)
        async with trio.open_nursery() as nursery:
            await nursery.start(network.run)
            yield network
            nursery.cancel_scope.cancel()


class Libp2pWorld:
    name = "libp2p"

    @asynccontextmanager
    async def node(self, *bootstrap: Network) -> AsyncIterator[Network]:
        from ryvion_node.p2p.libp2p_network import Libp2pNetwork

        addresses = [other.snapshot().listening[0] for other in bootstrap]
        network = Libp2pNetwork(fresh_seed(), ["/ip4/127.0.0.1/tcp/0"], addresses)
        async with trio.open_nursery() as nursery:
            await nursery.start(network.run)
            yield network
            nursery.cancel_scope.cancel()


@pytest.fixture(params=[pytest.param(FakeWorld, marks=pytest.mark.virtual_time, id="fake"), Libp2pWorld])
def world(request: pytest.FixtureRequest) -> World:
    return request.param()  # type: ignore[no-any-return]


async def until(condition: Callable[[], bool], within_s: float = 10.0) -> None:
    """Wait for something that other tasks bring about."""
    with trio.fail_after(within_s):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await trio.sleep(0.02)
