"""The whole network as the rest of the node sees it: streams to peers, and gossip on topics.

`libp2p_network.py` is the real one, `fake.py` an in-memory one with the same contract tests.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ryvion_protocol.schema import NodeKey


class PeerUnreachable(Exception):
    """No stream to the peer could be opened: unknown address, refused, or no answer in time."""


class StreamBroken(Exception):
    """The stream was reset, stalled, or the peer vanished; what was received so far is all there is."""


class Stream(Protocol):
    """A reliable, ordered byte stream to one authenticated peer. One reader task and one writer task at a time."""

    @property
    def peer(self) -> NodeKey:
        """The public key the connection was authenticated with."""
        ...

    async def send(self, data: bytes) -> None:
        """Write all of `data`; raises StreamBroken, also when the peer takes nothing for 5 s."""
        ...

    async def receive(self) -> bytes:
        """Return the next bytes (at most 64 KiB), or b"" once the peer closed its end; raises StreamBroken."""
        ...

    async def close(self) -> None:
        """Close both ends and forget the stream. Never raises, takes at most 2 s, may be called twice."""
        ...


StreamHandler = Callable[[Stream], Awaitable[None]]
Validator = Callable[[NodeKey, bytes], bool]
"""(author, data) -> forward and accept it? Synchronous; an exception counts as no."""
Receiver = Callable[[NodeKey, bytes], None]
"""(author, data): called once for every message that passed validation, our own excluded. Must not block."""


@dataclass(frozen=True, slots=True)
class NetworkSnapshot:
    """What the network looks like now; `listening` are dialable multiaddrs with our peer id at the end."""

    node_key: NodeKey
    peer_id: str
    listening: tuple[str, ...]
    peers: tuple[NodeKey, ...]


class Network(Protocol):
    """Everything the node asks of the network."""

    async def open_stream(self, peer: NodeKey, protocol: str) -> Stream:
        """Dial if needed and open a stream; raises PeerUnreachable within 5 s.

        Costs no round trip: a peer that does not speak `protocol` shows when the first `receive` raises StreamBroken.
        """
        ...

    def serve(self, protocol: str, handler: StreamHandler) -> None:
        """Run `handler` in its own task for every inbound stream; the stream is closed when it returns or raises."""
        ...

    async def publish(self, topic: str, data: bytes) -> None:
        """Gossip `data` (at most 64 KiB) to everyone subscribed; returns once it is queued."""
        ...

    async def subscribe(self, topic: str, validate: Validator, receive: Receiver) -> None:
        """Join a topic: forward and receive what `validate` lets through."""
        ...

    def learn_addresses(self, peer: NodeKey, addresses: Sequence[str]) -> None:
        """Remember where a peer says it can be dialled; bounded, hints only, nothing is dialled now."""
        ...

    def snapshot(self) -> NetworkSnapshot: ...
