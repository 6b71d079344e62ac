"""Gossipsub v1.1 that survives its peers: bounded, signed, validated before it is forwarded.

The library's reading and pushing of messages is replaced: a message is checked in order of cost (shape, seen before,
signature, author's rate, validator), in the order it arrived, and no exception leaves the peer's own task.
"""

from __future__ import annotations

import logging
import time

import libp2p.pubsub.pubsub as library
import trio
from libp2p.abc import IHost, INetStream
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11, GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.pubsub.rpc_queue import RpcQueue
from libp2p.pubsub.validators import signature_validator
from libp2p.utils.varint import read_varint_prefixed_bytes_limited

from ryvion_node.log import log_event
from ryvion_node.p2p.constants import (
    DRAIN_S,
    FORWARDER_BURST_FAULTS,
    FORWARDER_FAULTS_PER_S,
    GOSSIP_QUEUE_MESSAGES,
    MAX_CONNECTIONS,
    MAX_GOSSIP_BYTES,
    MAX_RPC_BYTES,
    MAX_TOPIC_BYTES,
)
from ryvion_node.p2p.interface import Receiver, Validator
from ryvion_node.p2p.peer_id import BadAddress, key_of_bytes, peer_id_of
from ryvion_node.p2p.rate_limit import RateLimit
from ryvion_protocol.schema import NodeKey

log = logging.getLogger("ryvion.p2p.pubsub")

_SEQNO_BYTES = 8
_DRAIN_POLL_S = 0.005


class ForwarderFault(Exception):
    """A peer forwarded what no honest node forwards."""


class GuardedGossip(GossipSub):
    """The mesh; its heartbeat outlives an error, and scoring stays off (its signs are unlike the specification's)."""

    def __init__(self) -> None:
        super().__init__(
            protocols=[TProtocol(PROTOCOL_ID_V11)],
            degree=6,
            degree_low=4,
            degree_high=12,
            gossip_window=10,
            gossip_history=12,
            heartbeat_interval=1,
            adaptive_gossip_enabled=False,
            spam_protection_enabled=False,
            eclipse_protection_enabled=False,
        )

    async def heartbeat(self) -> None:
        while True:
            try:
                await super().heartbeat()
            except Exception as exc:  # noqa: BLE001 - an error in one round must not end all gossip
                _log_failure("gossip_heartbeat_failed", exc)
            await trio.sleep(self.heartbeat_interval)

    async def publish(self, msg_forwarder: ID, pubsub_msg: rpc_pb2.Message) -> None:
        await super().publish(msg_forwarder, pubsub_msg)
        # Statistics of the adaptive mode, which is off; the library would keep them for ever.
        self.recent_message_deliveries.clear()

    async def on_peer_subscribed(self, peer_id: ID, topic: str) -> None:
        try:
            await super().on_peer_subscribed(peer_id, topic)
        except Exception as exc:  # noqa: BLE001 - runs as a task of the service, which it would end
            _log_failure("gossip_subscription_failed", exc, topic)

    async def flush_pending_messages(self, peer_id: ID) -> None:
        try:
            await super().flush_pending_messages(peer_id)
        except Exception as exc:  # noqa: BLE001 - runs as a task of the service, which it would end
            _log_failure("gossip_flush_failed", exc)


class GuardedPubsub(Pubsub):
    """Topics, validators and receivers over a GuardedGossip router."""

    def __init__(self, host: IHost, router: GuardedGossip) -> None:
        super().__init__(host, router, strict_signing=True, seen_ttl=120, max_inbound_rpc_size=MAX_RPC_BYTES)
        # The library starts at whole seconds: after a quick restart new messages would look like old ones.
        self.counter = time.time_ns()
        self._readers: dict[str, tuple[Validator, Receiver]] = {}
        self._writing = 0
        """Envelopes that have left their queue and are being sent."""
        self._authors = RateLimit()
        self._forwarders = RateLimit(FORWARDER_BURST_FAULTS, FORWARDER_FAULTS_PER_S, MAX_CONNECTIONS)

    async def join(self, topic: str, validate: Validator, receive: Receiver) -> None:
        """Subscribe; `receive` is called for every valid message of others."""
        if topic in self._readers:
            raise ValueError(f"already subscribed to {topic}")
        self._readers[topic] = (validate, receive)
        await self.subscribe(topic)

    async def drain(self) -> None:
        """Wait a moment for what was published to leave; a node's last words are worth it."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + DRAIN_S):
            while self._writing or any(len(queue) for queue in self.peer_queues.values()):  # noqa: ASYNC110 - no event
                await trio.sleep(_DRAIN_POLL_S)

    async def write_msg(self, stream: INetStream, rpc_msg: rpc_pb2.RPC) -> bool:
        self._writing += 1
        try:
            return await super().write_msg(stream, rpc_msg)
        finally:
            self._writing -= 1

    async def continuously_read_stream(self, stream: INetStream) -> None:
        peer_id = stream.muxed_conn.peer_id
        try:
            while self.manager.is_running:
                rpc = rpc_pb2.RPC()
                rpc.ParseFromString(await read_varint_prefixed_bytes_limited(stream, MAX_RPC_BYTES))
                await self._take_rpc(peer_id, rpc)
        except Exception as exc:  # noqa: BLE001 - end of stream and garbage alike end this stream only
            log_event(log, "gossip_stream_ended", level=logging.DEBUG, peer=peer_id, reason=type(exc).__name__)
            await stream.reset()
            self._handle_dead_peer(peer_id)

    async def push_msg(self, msg_forwarder: ID, msg: rpc_pb2.Message) -> None:
        """Publish our own message, or judge another's and pass it on."""
        message_id = self.get_message_id(msg)
        if self.seen_messages.has(message_id):
            return
        if msg_forwarder == self.my_id:
            self.seen_messages.add(message_id)
        elif not self._accept(msg, message_id):
            return
        await self.router.publish(msg_forwarder, msg)

    async def _handle_new_peer(self, peer_id: ID) -> None:
        await super()._handle_new_peer(peer_id)
        # A topic joined while the greeting was under way is in neither the greeting nor the later announcement.
        if peer_id in self.peer_queues:
            self.peer_queues[peer_id].push(self.get_hello_packet())

    async def _take_rpc(self, peer_id: ID, rpc: rpc_pb2.RPC) -> None:
        # A signed address record comes with every message; addresses are learned from offers, so it is not checked.
        rpc.ClearField("senderRecord")
        for message in rpc.publish:
            try:
                if self._is_ours(message):
                    await self.push_msg(peer_id, message)
            except ForwarderFault as exc:
                await self._count_fault(peer_id, exc)
        if len(rpc.subscriptions) <= self.max_subscriptions_per_rpc:
            for subscription in rpc.subscriptions:
                if len(subscription.topicid) <= MAX_TOPIC_BYTES:
                    self.handle_subscription(peer_id, subscription)
        if rpc.HasField("control"):
            await self.router.handle_rpc(rpc, peer_id)

    def _is_ours(self, message: rpc_pb2.Message) -> bool:
        """Is it on a topic we read, and by somebody else? Raises ForwarderFault when it is malformed."""
        if len(message.topicIDs) != 1 or len(message.seqno) != _SEQNO_BYTES or len(message.data) > MAX_GOSSIP_BYTES:
            raise ForwarderFault("malformed message")
        return message.topicIDs[0] in self._readers and message.from_id != self.my_id.to_bytes()

    def _accept(self, message: rpc_pb2.Message, message_id: bytes) -> bool:
        try:
            author = key_of_bytes(message.from_id)
        except BadAddress as exc:
            raise ForwarderFault("the author has no Ed25519 key") from exc
        if not signature_validator(message):
            raise ForwarderFault("wrong signature")
        # From here on the id is the author's own word, so nobody can make us skip another's message.
        self.seen_messages.add(message_id)
        if not self._authors.admit(author, trio.current_time()):
            log_event(log, "author_over_rate", level=logging.DEBUG, peer=peer_id_of(author))
            return False
        validate, receive = self._readers[message.topicIDs[0]]
        return _is_valid(validate, author, message) and _deliver(receive, author, message)

    async def _count_fault(self, peer_id: ID, fault: ForwarderFault) -> None:
        log_event(log, "gossip_fault", peer=peer_id, reason=fault)
        if not self._forwarders.admit(key_of_bytes(peer_id.to_bytes()), trio.current_time()):
            await self.host.disconnect(peer_id)
            raise fault


def _is_valid(validate: Validator, author: NodeKey, message: rpc_pb2.Message) -> bool:
    try:
        return validate(author, message.data)
    except Exception as exc:  # noqa: BLE001 - a validator's failure counts as no
        _log_failure("validator_failed", exc, message.topicIDs[0])
        return False


def _deliver(receive: Receiver, author: NodeKey, message: rpc_pb2.Message) -> bool:
    try:
        receive(author, message.data)
    except Exception as exc:  # noqa: BLE001 - our own reader's failure is no reason to end the node, or to not forward
        _log_failure("receiver_failed", exc, message.topicIDs[0])
    return True


def _log_failure(event: str, exc: Exception, topic: str | None = None) -> None:
    """Name the kind of error only: its text may quote a message."""
    log_event(log, event, level=logging.WARNING, topic=topic, error=type(exc).__name__)


class _LongRpcQueue(RpcQueue):
    """The library's 32 places are lost in a burst, silently."""

    def __init__(self) -> None:
        super().__init__(max_size=GOSSIP_QUEUE_MESSAGES)


library.RpcQueue = _LongRpcQueue  # type: ignore[assignment,attr-defined]
