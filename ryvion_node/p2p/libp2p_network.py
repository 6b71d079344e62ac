"""The real network: libp2p over TCP with Noise and Yamux, gossipsub v1.1.

Importing this module takes seconds (libp2p does); the daemon imports it late, and nothing else does.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import trio
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol
from libp2p.exceptions import BaseLibp2pError
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr

from ryvion_node.errors import EXIT_CONFIG, OperatorError
from ryvion_node.log import log_event
from ryvion_node.p2p.address_book import AddressBook
from ryvion_node.p2p.constants import DEFAULT_LISTEN, MAX_GOSSIP_BYTES, OPEN_STREAM_S
from ryvion_node.p2p.dialer import Dialer
from ryvion_node.p2p.interface import (
    Network,
    NetworkSnapshot,
    PeerUnreachable,
    Receiver,
    Stream,
    StreamHandler,
    Validator,
)
from ryvion_node.p2p.libp2p_host import build_host, lean
from ryvion_node.p2p.libp2p_logging import quiet_libp2p
from ryvion_node.p2p.libp2p_pubsub import GuardedGossip, GuardedPubsub
from ryvion_node.p2p.libp2p_stream import Libp2pStream, proposal_of
from ryvion_node.p2p.libp2p_yamux import LeanYamuxStream
from ryvion_node.p2p.listening import CannotListen, check_free, dialable
from ryvion_node.p2p.peer_id import BadAddress, TcpAddress, key_of_bytes, parse_address, peer_id_of
from ryvion_protocol.schema import NodeKey

if TYPE_CHECKING:
    from trio_typing import TaskStatus

log = logging.getLogger("ryvion.p2p.network")


class BadListenAddress(OperatorError):
    """{address!r} is no address to listen on: {reason}.

    Use the form /ip4/127.0.0.1/tcp/7987 (this machine only) or /ip4/0.0.0.0/tcp/7987 (every interface)."""

    exit_code = EXIT_CONFIG


class BadBootstrapAddress(OperatorError):
    """{address!r} is no bootstrap address: {reason}.

    Use the form /ip4/203.0.113.7/tcp/7987/p2p/12D3KooW..., which the other node prints when it starts."""

    exit_code = EXIT_CONFIG


class Libp2pNetwork(Network):
    """A node on the real network while `run` runs; `serve` may be called before."""

    def __init__(self, seed: bytes, listen: Sequence[str] = (DEFAULT_LISTEN,), bootstrap: Sequence[str] = ()) -> None:
        """`seed`: the node's 32-byte Ed25519 seed; `listen`, `bootstrap`: multiaddrs. Raises OperatorError."""
        quiet_libp2p()
        self._listen = tuple(map(_parse_listen, listen))
        self._bootstrap = tuple(map(_parse_bootstrap, bootstrap))
        self._host, self._swarm = build_host(seed)
        self._key = key_of_bytes(self._host.get_id().to_bytes())
        self._gossip = GuardedGossip()
        self._pubsub = GuardedPubsub(self._host, self._gossip)
        self._book = AddressBook()
        self._dialer = Dialer(self._swarm, self._book)

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen, gossip and keep the bootstrap peers until cancelled; raises PortTaken or CannotListen at the start."""
        check_free(self._listen)
        async with trio.open_nursery() as nursery:
            services: trio.CancelScope = await nursery.start(self._run_services)
            for bootstrap in self._bootstrap:
                if bootstrap.peer != self._key:
                    nursery.start_soon(self._dialer.keep, bootstrap)
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                await self._pubsub.drain()
                await self._swarm.hang_up()
                services.cancel()

    async def _run_services(self, *, task_status: TaskStatus[trio.CancelScope]) -> None:
        """Run the library's services; shielded, because connections must be closed before its tasks are cancelled."""
        addresses = [Multiaddr(address.dial_part) for address in self._listen]
        with trio.CancelScope(shield=True) as services:
            async with (
                self._host.run(addresses),
                background_trio_service(self._pubsub),
                background_trio_service(self._gossip),
            ):
                for address in addresses:
                    if str(address) not in self._swarm.listeners:
                        raise CannotListen(address=address, reason="the system refused it")
                await self._pubsub.wait_until_ready()
                task_status.started(services)
                await trio.sleep_forever()

    async def open_stream(self, peer: NodeKey, protocol: str) -> Stream:
        if peer == self._key:
            raise PeerUnreachable("a node has no stream to itself")
        try:
            with trio.fail_after(OPEN_STREAM_S):
                connection = await self._dialer.connection(peer)
                muxed = await connection.open_stream()
        except (trio.TooSlowError, BaseLibp2pError) as exc:
            raise PeerUnreachable(f"no stream to {peer_id_of(peer)}: {exc}") from exc
        return Libp2pStream(muxed, proposal=proposal_of(protocol))

    def serve(self, protocol: str, handler: StreamHandler) -> None:
        async def handle(muxed: LeanYamuxStream, agreement: bytes) -> None:
            stream = Libp2pStream(muxed, agreement=agreement)
            try:
                await handler(stream)
                await stream.close()
            except Exception as exc:  # noqa: BLE001 - nothing a peer provokes may end the node
                failure = type(exc).__name__
                log_event(log, "stream_handler_failed", level=logging.WARNING, protocol=protocol, error=failure)
            finally:
                # After a close this does nothing; else the peer must not take the end for an orderly one.
                await stream.reset()

        async def handle_negotiated(inbound: INetStream) -> None:
            await handle(lean(inbound), b"")

        self._swarm.direct_handlers[proposal_of(protocol)] = handle
        self._host.set_stream_handler(TProtocol(protocol), handle_negotiated)

    async def publish(self, topic: str, data: bytes) -> None:
        if len(data) > MAX_GOSSIP_BYTES:
            raise ValueError(f"a gossip message of {len(data)} bytes: the limit is {MAX_GOSSIP_BYTES}")
        await self._pubsub.publish(topic, data)

    async def subscribe(self, topic: str, validate: Validator, receive: Receiver) -> None:
        await self._pubsub.join(topic, validate, receive)

    def learn_addresses(self, peer: NodeKey, addresses: Sequence[str]) -> None:
        if peer != self._key:
            self._book.learn(peer, addresses)

    def snapshot(self) -> NetworkSnapshot:
        bound = [parse_address(str(a)) for listener in self._swarm.listeners.values() for a in listener.get_addrs()]
        listening = [
            str(TcpAddress(address.family, address.host, address.port, self._key))
            for each in bound
            for address in dialable(each)
        ]
        peers = [key_of_bytes(peer_id.to_bytes()) for peer_id in self._swarm.connections]
        return NetworkSnapshot(self._key, peer_id_of(self._key), tuple(listening), tuple(peers))


def _parse_listen(text: str) -> TcpAddress:
    try:
        address = parse_address(text)
    except BadAddress as exc:
        raise BadListenAddress(address=text, reason=exc) from exc
    return TcpAddress(address.family, address.host, address.port, None)


def _parse_bootstrap(text: str) -> TcpAddress:
    try:
        address = parse_address(text)
    except BadAddress as exc:
        raise BadBootstrapAddress(address=text, reason=exc) from exc
    if address.peer is None or address.port == 0:
        raise BadBootstrapAddress(address=text, reason="it needs a port and the node's peer id")
    return address
