"""The libp2p host: TCP, Noise and Yamux only, with limits, and nothing a peer sends can end it."""

from __future__ import annotations

import logging
import socket
from collections import Counter
from collections.abc import Awaitable, Callable

import libp2p.protocol_muxer.multiselect_communicator as multiselect_communicator
import trio
from libp2p.abc import IMuxedConn, INetStream, IRawConnection
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.custom_types import StreamHandlerFn, TProtocol
from libp2p.exceptions import ParseError
from libp2p.host.basic_host import BasicHost
from libp2p.host.basic_host import _IdentifyNotifee as IdentifyNotifee
from libp2p.identity.identify_push.identify_push import ID_PUSH
from libp2p.io.abc import Reader
from libp2p.network.auto_connector import AutoConnector
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.network.exceptions import SwarmException
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStore
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_PROTOCOL
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.exceptions import MuxedStreamError
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX_PROTOCOL
from libp2p.stream_muxer.yamux.yamux import Yamux
from libp2p.transport.tcp import tcp
from libp2p.transport.tcp.tcp import TCP
from libp2p.utils.varint import read_varint_prefixed_bytes_limited
from multiaddr import Multiaddr
from trio.socket import SocketType

from ryvion_node.log import log_event
from ryvion_node.p2p.constants import (
    MAX_CONNECTIONS,
    MAX_CONNECTIONS_PER_PEER,
    MAX_INBOUND_CONNECTIONS,
    MAX_NEGOTIATION_BYTES,
    MAX_STREAMS_PER_PEER,
    NEGOTIATION_S,
)
from ryvion_node.p2p.libp2p_yamux import LeanYamuxStream, Upgrader, WatchedYamux

log = logging.getLogger("ryvion.p2p.host")

DirectHandler = Callable[[LeanYamuxStream, bytes], Awaitable[None]]
"""(stream, the agreement to send ahead of everything)"""


class GuardedSwarm(Swarm):
    """Connections and inbound streams within limits; a failing stream handler costs its stream, nothing else."""

    def __init__(self, peer_id: ID, peerstore: PeerStore, upgrader: Upgrader) -> None:
        super().__init__(
            peer_id,
            peerstore,
            upgrader,
            transports=[TCP()],
            retry_config=RetryConfig(max_retries=0),
            connection_config=ConnectionConfig(
                max_connections=MAX_CONNECTIONS,
                min_connections=0,
                low_watermark=0,
                high_watermark=MAX_CONNECTIONS,
                max_connections_per_peer=MAX_CONNECTIONS,
                inbound_upgrade_timeout=NEGOTIATION_S,
                outbound_upgrade_timeout=NEGOTIATION_S,
                inbound_stream_protocol_negotiation_timeout=NEGOTIATION_S,
                outbound_stream_protocol_negotiation_timeout=NEGOTIATION_S,
            ),
        )
        self.auto_connector = _NoAutoConnector(self)
        self._inbound_limiter = trio.CapacityLimiter(MAX_INBOUND_CONNECTIONS)
        self._inbound_streams: Counter[ID] = Counter()
        self._handle_stream: StreamHandlerFn = self.common_stream_handler
        self.direct_handlers: dict[bytes, DirectHandler] = {}
        """Handlers by the proposal that opens their streams (`proposal_of` the protocol)."""

    def live_connection(self, peer_id: ID) -> WatchedYamux | None:
        """The newest connection to a peer that still works."""
        for connection in reversed(self.connections.get(peer_id, [])):
            muxed = connection.muxed_conn
            if isinstance(muxed, WatchedYamux) and not muxed.event_shutting_down.is_set():
                return muxed
        return None

    def set_stream_handler(self, stream_handler: StreamHandlerFn) -> None:
        self._handle_stream = stream_handler
        self.common_stream_handler = self._guard_stream

    async def upgrade_inbound_raw_conn(self, raw_conn: IRawConnection, maddr: Multiaddr) -> IMuxedConn:
        """Serve an inbound connection to its end.

        The library's caller waits for the end of the whole host instead, holding one of the inbound places: a node
        would turn deaf after as many connections in its life as it may have at once.
        """
        muxed = await super().upgrade_inbound_raw_conn(raw_conn, maddr)
        if not isinstance(muxed, WatchedYamux) or len(self.get_connections(muxed.peer_id)) > MAX_CONNECTIONS_PER_PEER:
            await muxed.close()
            raise SwarmException("too many connections from one peer")
        await muxed.event_closed.wait()
        raise SwarmException("the inbound connection is over")

    async def hang_up(self) -> None:
        """Close every connection, so that the peers know at once."""
        async with trio.open_nursery() as nursery:
            for connection in self.get_connections():
                if isinstance(connection.muxed_conn, WatchedYamux):
                    nursery.start_soon(connection.muxed_conn.hang_up)

    async def _guard_stream(self, stream: INetStream) -> None:
        peer_id = stream.muxed_conn.peer_id
        self._inbound_streams[peer_id] += 1
        try:
            if self._inbound_streams[peer_id] > MAX_STREAMS_PER_PEER:
                log_event(log, "stream_refused", level=logging.WARNING, peer=peer_id, limit=MAX_STREAMS_PER_PEER)
                await _reset(stream)
            elif not await self._direct(stream):
                await self._handle_stream(stream)
        except Exception as exc:  # noqa: BLE001 - nothing a peer provokes may end the node
            log_event(log, "stream_failed", peer=peer_id, protocol=stream.get_protocol(), error=type(exc).__name__)
            await _reset(stream)
        finally:
            self._inbound_streams[peer_id] -= 1
            if not self._inbound_streams[peer_id]:
                del self._inbound_streams[peer_id]

    async def _direct(self, stream: INetStream) -> bool:
        """Serve a stream whose whole proposal, and data after it, came with its opening: no negotiation is needed."""
        muxed = lean(stream)
        for proposal, handle in self.direct_handlers.items():
            held = muxed.conn.stream_buffers.get(muxed.stream_id, b"")
            if len(held) > len(proposal) and held.startswith(proposal):
                await muxed.read(len(proposal))
                await handle(muxed, proposal)
                return True
        return False


def lean(stream: INetStream) -> LeanYamuxStream:
    """Our own kind of stream inside the library's."""
    muxed = getattr(stream, "muxed_stream", None)
    if not isinstance(muxed, LeanYamuxStream):
        raise MuxedStreamError("not a stream of our multiplexer")
    return muxed


class _NoAutoConnector(AutoConnector):
    """Never starts: the library's would dial whom it has heard of up to half the high mark, whatever the low ones."""

    async def start(self) -> None:
        return None

    def record_disconnect(self, peer_id: ID) -> None:
        """Remember nothing, because nothing would ever forget it."""


def build_host(seed: bytes) -> tuple[BasicHost, GuardedSwarm]:
    """A host for the 32-byte Ed25519 seed; it answers identify and ping, and asks nobody for either."""
    key_pair = create_new_key_pair(seed)
    peer_id = ID.from_pubkey(key_pair.public_key)
    peerstore = PeerStore()
    peerstore.add_key_pair(peer_id, key_pair)
    noise = NoiseTransport(key_pair, noise_privkey=create_noise_key_pair().private_key)
    upgrader = Upgrader({TProtocol(NOISE_PROTOCOL): noise}, {TProtocol(YAMUX_PROTOCOL): Yamux}, NEGOTIATION_S)
    swarm = GuardedSwarm(peer_id, peerstore, upgrader)
    host = BasicHost(network=swarm, negotiate_timeout=NEGOTIATION_S, disable_identify_address_discovery=True)
    # We dial only what the address book says, so what a stranger would tell about itself is not even asked for.
    swarm.notifees = [notifee for notifee in swarm.notifees if not isinstance(notifee, IdentifyNotifee)]
    host.remove_stream_handler(ID_PUSH)
    return host, swarm


async def _reset(stream: INetStream) -> None:
    with trio.move_on_after(1.0):
        await stream.reset()


async def _read_negotiation_line(reader: Reader) -> bytes:
    """One multistream-select line without its end; replaces the library's reader, which has no limit."""
    line = await read_varint_prefixed_bytes_limited(reader, MAX_NEGOTIATION_BYTES)
    if not line.endswith(b"\n"):
        raise ParseError("a negotiation line must end in a newline")
    return line[:-1]


def _reuse_address_only(sock: SocketType) -> None:
    """The library would set SO_REUSEPORT, with which two nodes share a port and get half the calls each."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


tcp._set_reuse_flags = _reuse_address_only  # noqa: SLF001 - see above
multiselect_communicator.read_delim = _read_negotiation_line  # type: ignore[attr-defined]
