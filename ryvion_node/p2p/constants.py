"""Limits and timers of the network layer, each with its reason."""

from __future__ import annotations

from typing import Final

DEFAULT_LISTEN: Final = "/ip4/127.0.0.1/tcp/7987"
"""Loopback only until the owner says otherwise: a fresh node is not open to the world."""

# Streams.
RECEIVE_MAX_BYTES: Final = 64 * 1024
"""Most that one `receive` returns; one full Delta frame."""
STREAM_BUFFER_BYTES: Final = 256 * 1024
"""What a sender may have under way unread; the initial Yamux window."""
SEND_STALL_S: Final = 5.0
"""A peer that takes nothing for this long is gone, or holds our memory for no reason."""
OPEN_STREAM_S: Final = 5.0
"""Dial, handshake and protocol negotiation together; loopback needs 10 ms, a far link under 1 s."""
CLOSE_S: Final = 2.0
"""Saying goodbye is a courtesy; a peer that does not listen is forgotten."""
MAX_STREAMS_PER_PEER: Final = 64
"""Inbound, at once: 64 streams of 30 frames/s saturate a core, so no honest peer has more."""
MAX_NEGOTIATION_BYTES: Final = 1024
"""One multistream line, a protocol id; the library itself reads whatever length a stranger announces."""
NEGOTIATION_S: Final = 5
"""Whole seconds for protocol negotiation and for the handshakes of a new connection."""

# Connections.
MAX_CONNECTIONS: Final = 128
"""In and out; about 150 kB each, and each costs gossip and heartbeats."""
MAX_INBOUND_CONNECTIONS: Final = 96
"""Including handshakes in progress; the rest stays free for connections that we want."""
MAX_CONNECTIONS_PER_PEER: Final = 4
"""Two arise when both sides dial at once, and as many while an old one is dying."""
MAX_CONNECTION_BUFFER_BYTES: Final = 8 * 1024 * 1024
"""Received and unread on a connection: 32 whole windows, at once; a peer that overruns its windows is cut off."""
READ_AHEAD_BYTES: Final = 64 * 1024
"""What one system call takes from a connection; the largest Noise frame."""
DIAL_STAGGER_S: Final = 0.25
"""Head start of one address over the next (RFC 8305)."""
HEARTBEAT_EVERY_S: Final = 10.0
"""A connection that was silent this long is asked for a sign of life."""
HEARTBEAT_ANSWER_S: Final = 5.0
"""How long an answer may take."""
HEARTBEAT_MISSES: Final = 2
"""Unanswered in a row, then the connection is dead: silent loss is noticed within 30 s."""
REDIAL_FIRST_S: Final = 0.5
REDIAL_MAX_S: Final = 30.0
"""Back-off of the bootstrap dialler, doubling, with jitter: a restarted bootstrap node is found again within 30 s."""

# Gossip.
MAX_GOSSIP_BYTES: Final = 64 * 1024
"""Sixteen times the largest Offer; the transport loses messages of 1 MiB without a word."""
GOSSIP_QUEUE_MESSAGES: Final = 1024
"""Per peer and per topic; the library's 32 drop silently in a burst."""
DRAIN_S: Final = 0.5
"""How long a node that stops waits for its last messages, such as a Withdraw, to leave."""
AUTHOR_BURST_MESSAGES: Final = 256
"""What one author may send at once: a restart with an Offer on each of 32 topics fits many times."""
AUTHOR_MESSAGES_PER_S: Final = 4.0
"""Sustained; an honest author sends a few messages a minute, each costs every node about 3 ms."""
MAX_AUTHORS: Final = 4096
"""Authors whose rate is remembered; the least recently heard is forgotten."""

MAX_RPC_BYTES: Final = 512 * 1024
"""One gossip envelope; several messages may travel together."""
MAX_TOPIC_BYTES: Final = 128
"""Topic names are ours and short; a peer's announcements are remembered, so they are bounded."""
FORWARDER_BURST_FAULTS: Final = 16
FORWARDER_FAULTS_PER_S: Final = 0.1
"""Malformed or falsely signed messages, which no honest node forwards; a peer that sends more is disconnected."""

# Addresses.
MAX_ADDRESSES_PER_PEER: Final = 8
"""As many as an Offer carries."""
MAX_KNOWN_PEERS: Final = 4096
"""Peers whose addresses are remembered, least recently used forgotten: about 4 MB."""
MAX_ADDRESS_BYTES: Final = 256
"""As in the message schema; a longer multiaddr is never dialled."""
MAX_PEER_IDS_KEPT: Final = 8192
"""Texts of peer ids: about 2 MB. More than there may be offers, since every explained choice names each that it heard."""
