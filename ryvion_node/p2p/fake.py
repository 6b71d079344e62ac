"""An in-memory network for tests: streams, gossip, death and partition without sockets.

Deterministic under trio's MockClock; the same contract tests run on it and on libp2p.

    async with FakeInternet().running(alice_key, bob_key) as (alice, bob): ...

A node is on the net while its `run` runs, exactly as with the real one, so a daemon can be wired with either.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

import trio

from ryvion_node.log import log_event
from ryvion_node.p2p.constants import (
    GOSSIP_QUEUE_MESSAGES,
    MAX_ADDRESSES_PER_PEER,
    MAX_GOSSIP_BYTES,
    OPEN_STREAM_S,
    RECEIVE_MAX_BYTES,
    SEND_STALL_S,
    STREAM_BUFFER_BYTES,
)
from ryvion_node.p2p.interface import (
    Network,
    NetworkSnapshot,
    PeerUnreachable,
    Receiver,
    Stream,
    StreamBroken,
    StreamHandler,
    Validator,
)
from ryvion_node.p2p.peer_id import peer_id_of
from ryvion_node.p2p.rate_limit import RateLimit
from ryvion_protocol.schema import NodeKey

if TYPE_CHECKING:
    from trio_typing import TaskStatus

log = logging.getLogger("ryvion.p2p.fake")


class FakeInternet:
    """All fake nodes of a test. `everyone_linked`: any two may talk; else only by bootstrap or learned address."""

    def __init__(self, *, everyone_linked: bool = True, delay_s: float = 0.0) -> None:
        self.everyone_linked = everyone_linked
        self.delay_s = delay_s
        """One way, for stream bytes and for each gossip hop; may be changed at any time."""
        self.nodes: dict[NodeKey, FakeNetwork] = {}
        self.next_message_id = count().__next__
        self._next_port = count(20_000).__next__
        self._group: dict[NodeKey, int] = {}

    def node(self, key: NodeKey, bootstrap: Sequence[NodeKey] = ()) -> FakeNetwork:
        """A node (anew, after a kill) that is on the net while its `run` runs, linked to its `bootstrap` nodes."""
        node = FakeNetwork(self, key, self._next_port(), bootstrap)
        self.nodes[key] = node
        return node

    @asynccontextmanager
    async def running(self, *keys: NodeKey) -> AsyncIterator[tuple[FakeNetwork, ...]]:
        """Nodes for these keys, running until the block ends."""
        async with trio.open_nursery() as nursery:
            nodes = tuple(self.node(key) for key in keys)
            for node in nodes:
                await nursery.start(node.run)
            yield nodes
            nursery.cancel_scope.cancel()

    def kill(self, key: NodeKey) -> None:
        """Like kill -9: the node's handlers stop without a word and its streams break at the other end."""
        self.nodes[key].die()

    def partition(self, *groups: Collection[NodeKey]) -> None:
        """Cut the net between the groups (nodes not named form one more); streams across the cut break at once."""
        self._group = {key: index for index, group in enumerate(groups, start=1) for key in group}
        for node in self.nodes.values():
            node.break_streams(partial(self._is_cut, node.key))

    def heal(self) -> None:
        """End the partition."""
        self._group = {}

    def has_path(self, one: NodeKey, other: NodeKey) -> bool:
        """Are both nodes running, in the same part of the net?"""
        both_run = all(key in self.nodes and self.nodes[key].is_running for key in (one, other))
        return both_run and not self._is_cut(one, other)

    def neighbours(self, node: FakeNetwork) -> list[FakeNetwork]:
        """The nodes that share a connection with `node` now."""
        return [
            other
            for other in self.nodes.values()
            if other is not node
            and self.has_path(node.key, other.key)
            and (self.everyone_linked or other.key in node.links or node.key in other.links)
        ]

    def _is_cut(self, one: NodeKey, other: NodeKey) -> bool:
        return self._group.get(one, 0) != self._group.get(other, 0)


@dataclass(frozen=True, slots=True)
class _Gossip:
    """One message on its way to one node."""

    id: int
    topic: str
    author: NodeKey
    data: bytes
    due_s: float


class FakeNetwork(Network):
    """One node of a FakeInternet."""

    def __init__(self, internet: FakeInternet, key: NodeKey, port: int, bootstrap: Sequence[NodeKey]) -> None:
        self.key = key
        self.links: set[NodeKey] = set(bootstrap)
        self.address = f"/ip4/127.0.0.1/tcp/{port}/p2p/{peer_id_of(key)}"
        self._internet = internet
        self._handlers: dict[str, StreamHandler] = {}
        self._topics: dict[str, tuple[Validator, Receiver]] = {}
        self._addresses: dict[NodeKey, tuple[str, ...]] = {}
        self._streams: set[FakeStream] = set()
        self._seen: set[int] = set()
        self._rates = RateLimit()
        self._inbox, self._inbox_reader = trio.open_memory_channel[_Gossip](GOSSIP_QUEUE_MESSAGES)
        self._nursery: trio.Nursery | None = None

    @property
    def is_running(self) -> bool:
        """Is the node on the net?"""
        return self._nursery is not None

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Be on the net until cancelled or killed."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                task_status.started()
                await self._deliver_gossip()
        finally:
            self.die()

    def die(self) -> None:
        """Stop at once, without a word to anybody."""
        nursery, self._nursery = self._nursery, None
        self.break_streams(lambda peer: True)
        if nursery is not None:
            nursery.cancel_scope.cancel()

    def break_streams(self, is_cut: Callable[[NodeKey], bool]) -> None:
        """Break the streams to the peers that `is_cut` names."""
        for stream in [stream for stream in self._streams if is_cut(stream.peer)]:
            stream.cut()

    async def open_stream(self, peer: NodeKey, protocol: str) -> Stream:
        await trio.lowlevel.checkpoint()
        if not self._can_dial(peer):
            raise PeerUnreachable(f"no way to {peer_id_of(peer)}")
        with trio.move_on_after(OPEN_STREAM_S):
            await trio.sleep(2 * self._internet.delay_s)
        if not self._can_dial(peer):
            raise PeerUnreachable(f"lost the way to {peer_id_of(peer)}")
        self.links.add(peer)
        ours, theirs = _stream_pair(self._internet, self.key, peer)
        self._remember(ours)
        if not self._internet.nodes[peer].accept(theirs, protocol):
            theirs.cut()
        return ours

    def accept(self, stream: FakeStream, protocol: str) -> bool:
        """Start the handler of an inbound stream; False when nobody serves the protocol here."""
        handler = self._handlers.get(protocol)
        if handler is None or self._nursery is None:
            return False
        self._remember(stream)
        self._nursery.start_soon(self._handle, handler, stream)
        return True

    def serve(self, protocol: str, handler: StreamHandler) -> None:
        self._handlers[protocol] = handler

    async def publish(self, topic: str, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if len(data) > MAX_GOSSIP_BYTES:
            raise ValueError(f"a gossip message of {len(data)} bytes: the limit is {MAX_GOSSIP_BYTES}")
        message_id = self._internet.next_message_id()
        self._seen.add(message_id)
        self._forward(_Gossip(message_id, topic, self.key, bytes(data), 0.0))

    async def subscribe(self, topic: str, validate: Validator, receive: Receiver) -> None:
        await trio.lowlevel.checkpoint()
        if topic in self._topics:
            raise ValueError(f"already subscribed to {topic}")
        self._topics[topic] = (validate, receive)

    def learn_addresses(self, peer: NodeKey, addresses: Sequence[str]) -> None:
        self._addresses[peer] = tuple(addresses)[:MAX_ADDRESSES_PER_PEER]

    def snapshot(self) -> NetworkSnapshot:
        peers = tuple(node.key for node in self._internet.neighbours(self))
        return NetworkSnapshot(self.key, peer_id_of(self.key), (self.address,), peers)

    def hear(self, gossip: _Gossip) -> None:
        """Take a message from a neighbour; dropped when the queue is full."""
        try:
            self._inbox.send_nowait(gossip)
        except trio.WouldBlock:
            return

    def _can_dial(self, peer: NodeKey) -> bool:
        other = self._internet.nodes.get(peer)
        if other is None or other is self or not self._internet.has_path(self.key, peer):
            return False
        return other in self._internet.neighbours(self) or other.address in self._addresses.get(peer, ())

    def _remember(self, stream: FakeStream) -> None:
        self._streams.add(stream)
        stream.on_forgotten = self._streams.discard

    async def _handle(self, handler: StreamHandler, stream: FakeStream) -> None:
        try:
            await handler(stream)
            await stream.close()
        except Exception as exc:  # noqa: BLE001 - nothing a peer provokes may end the node
            log_event(log, "stream_handler_failed", level=logging.WARNING, error=type(exc).__name__)
        finally:
            # After a close this does nothing; else the peer must not take the end for an orderly one.
            stream.cut()

    def _forward(self, gossip: _Gossip) -> None:
        due_s = trio.current_time() + self._internet.delay_s
        for neighbour in self._internet.neighbours(self):
            neighbour.hear(replace(gossip, due_s=due_s))

    async def _deliver_gossip(self) -> None:
        async for gossip in self._inbox_reader:
            await trio.sleep_until(gossip.due_s)
            if gossip.topic not in self._topics or gossip.id in self._seen:
                continue
            self._seen.add(gossip.id)
            validate, receive = self._topics[gossip.topic]
            if self._rates.admit(gossip.author, trio.current_time()) and _is_valid(validate, gossip):
                self._forward(gossip)
                receive(gossip.author, gossip.data)


def _is_valid(validate: Validator, gossip: _Gossip) -> bool:
    try:
        return validate(gossip.author, gossip.data)
    except Exception as exc:  # noqa: BLE001 - nothing a peer provokes may end the node
        log_event(log, "validator_failed", level=logging.WARNING, topic=gossip.topic, error=type(exc).__name__)
        return False


def _stream_pair(internet: FakeInternet, opener: NodeKey, peer: NodeKey) -> tuple[FakeStream, FakeStream]:
    there, back = _Pipe(internet), _Pipe(internet)
    return FakeStream(peer, back, there), FakeStream(opener, there, back)


class _Pipe:
    """One direction of a stream: a bounded buffer between a writer and a reader."""

    def __init__(self, internet: FakeInternet) -> None:
        self._internet = internet
        self._chunks: deque[tuple[float, bytes]] = deque()
        """(when it may be read, bytes)"""
        self._held_bytes = 0
        self._ended = False
        self._broken = False
        self._changed = trio.lowlevel.ParkingLot()

    async def write(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        left = memoryview(data)
        stalled_at_s = trio.current_time() + SEND_STALL_S
        while True:
            if self._broken or self._ended:
                raise StreamBroken("the stream is closed or was reset")
            taken = left[: STREAM_BUFFER_BYTES - self._held_bytes]
            if taken:
                self._chunks.append((trio.current_time() + self._internet.delay_s, bytes(taken)))
                self._held_bytes += len(taken)
                self._changed.unpark_all()
                left = left[len(taken) :]
                stalled_at_s = trio.current_time() + SEND_STALL_S
            if not left:
                return
            with trio.move_on_at(stalled_at_s) as waiting:
                await self._changed.park()
            if waiting.cancelled_caught:
                self.cut()
                raise StreamBroken(f"the peer took nothing for {SEND_STALL_S:.0f} s")

    async def read(self) -> bytes:
        await trio.lowlevel.checkpoint()
        while True:
            due_s = self._chunks[0][0] if self._chunks else float("inf")
            if due_s <= trio.current_time():
                return self._take()
            if self._broken:
                raise StreamBroken("the stream was reset")
            if self._ended and not self._chunks:
                return b""
            with trio.move_on_at(due_s):
                await self._changed.park()

    def end(self) -> None:
        """No more bytes follow."""
        self._ended = True
        self._changed.unpark_all()

    def cut(self) -> None:
        """Nothing more goes in; what is buffered can still be read, then reading breaks."""
        self._broken = True
        self._changed.unpark_all()

    def _take(self) -> bytes:
        due_s, chunk = self._chunks.popleft()
        taken, rest = chunk[:RECEIVE_MAX_BYTES], chunk[RECEIVE_MAX_BYTES:]
        if rest:
            self._chunks.appendleft((due_s, rest))
        self._held_bytes -= len(taken)
        self._changed.unpark_all()
        return taken


class FakeStream(Stream):
    """One end of an in-memory stream."""

    def __init__(self, peer: NodeKey, incoming: _Pipe, outgoing: _Pipe) -> None:
        self._peer = peer
        self._incoming = incoming
        self._outgoing = outgoing
        self._is_closed = False
        self.on_forgotten: Callable[[FakeStream], None] = lambda stream: None

    @property
    def peer(self) -> NodeKey:
        return self._peer

    async def send(self, data: bytes) -> None:
        await self._outgoing.write(data)

    async def receive(self) -> bytes:
        if self._is_closed:
            raise StreamBroken("the stream is closed")
        return await self._incoming.read()

    async def close(self) -> None:
        self._is_closed = True
        self._outgoing.end()
        self._incoming.cut()
        self.on_forgotten(self)
        with trio.CancelScope(shield=True):
            await trio.lowlevel.checkpoint()

    async def end_sending(self) -> None:
        """Half-close: the peer reads b"" after what was sent; we can still receive."""
        await trio.lowlevel.checkpoint()
        self._outgoing.end()

    async def reset(self) -> None:
        """Break the stream: the peer's next receive raises StreamBroken."""
        await trio.lowlevel.checkpoint()
        self.cut()

    def cut(self) -> None:
        """Break both directions at once, unless closed, as a crash or a cut line does."""
        if self._is_closed:
            return
        self._incoming.cut()
        self._outgoing.cut()
        self.on_forgotten(self)
