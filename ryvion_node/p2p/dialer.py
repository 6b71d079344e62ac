"""Reaching peers: one connection per peer, dialled with deadlines; bootstrap peers are dialled for ever."""

from __future__ import annotations

import logging
import random

import trio
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from ryvion_node.log import log_event
from ryvion_node.p2p.address_book import AddressBook
from ryvion_node.p2p.constants import DIAL_STAGGER_S, OPEN_STREAM_S, REDIAL_FIRST_S, REDIAL_MAX_S
from ryvion_node.p2p.interface import PeerUnreachable
from ryvion_node.p2p.libp2p_host import GuardedSwarm
from ryvion_node.p2p.libp2p_yamux import WatchedYamux
from ryvion_node.p2p.peer_id import TcpAddress, peer_id_bytes, peer_id_of
from ryvion_protocol.schema import NodeKey

log = logging.getLogger("ryvion.p2p.dialer")


class Dialer:
    """Finds or makes the connection to a peer."""

    def __init__(self, swarm: GuardedSwarm, book: AddressBook) -> None:
        self._swarm = swarm
        self._book = book
        self._dialling: dict[NodeKey, trio.Event] = {}
        """Peers being dialled, each with the event that ends it."""

    async def connection(self, peer: NodeKey) -> WatchedYamux:
        """The live connection to a peer, dialled if there is none; raises PeerUnreachable within OPEN_STREAM_S."""
        peer_id = ID(peer_id_bytes(peer))
        live = self._swarm.live_connection(peer_id)
        if live is not None:
            return live
        with trio.move_on_after(OPEN_STREAM_S):
            await self._dial_once(peer, self._book.addresses(peer))
        live = self._swarm.live_connection(peer_id)
        if live is None:
            raise PeerUnreachable(f"no answer from {peer_id_of(peer)} at any of its addresses")
        return live

    async def keep(self, address: TcpAddress) -> None:
        """Stay connected to a bootstrap peer, which heals the mesh after it restarts or the net was parted."""
        if address.peer is None:
            raise ValueError("a bootstrap address names its peer")
        peer_id = ID(peer_id_bytes(address.peer))
        delay_s = REDIAL_FIRST_S
        while True:
            live = self._swarm.live_connection(peer_id)
            if live is not None:
                delay_s = REDIAL_FIRST_S
                await live.event_closed.wait()
                log_event(log, "bootstrap_lost", address=address)
                continue
            with trio.move_on_after(OPEN_STREAM_S):
                await self._dial_once(address.peer, (address,))
            if self._swarm.live_connection(peer_id) is None:
                await trio.sleep(delay_s * random.uniform(0.75, 1.25))
                delay_s = min(2 * delay_s, REDIAL_MAX_S)

    async def _dial_once(self, peer: NodeKey, addresses: tuple[TcpAddress, ...]) -> None:
        """Dial, or wait for the one who is dialling already."""
        if peer in self._dialling:
            await self._dialling[peer].wait()
            return
        over = self._dialling[peer] = trio.Event()
        try:
            await self._race(peer, addresses)
        finally:
            del self._dialling[peer]
            over.set()

    async def _race(self, peer: NodeKey, addresses: tuple[TcpAddress, ...]) -> None:
        """Try the addresses one after another, each with a short head start; the first connection wins."""
        async with trio.open_nursery() as nursery:
            for address in addresses:
                failed = trio.Event()
                nursery.start_soon(self._attempt, peer, address, failed, nursery.cancel_scope)
                with trio.move_on_after(DIAL_STAGGER_S):
                    await failed.wait()

    async def _attempt(self, peer: NodeKey, address: TcpAddress, failed: trio.Event, race: trio.CancelScope) -> None:
        peer_id = ID(peer_id_bytes(peer))
        try:
            await self._swarm.dial_addr(Multiaddr(address.dial_part), peer_id)
        except Exception as exc:  # noqa: BLE001 - whatever a stranger's answer provokes: this address is no good
            log_event(log, "dial_failed", address=address, reason=exc.__cause__ or exc)
            # The library remembers failures and would refuse the next attempt.
            self._swarm.unblock_peer(peer_id)
            failed.set()
        else:
            log_event(log, "connected", address=address)
            race.cancel()
