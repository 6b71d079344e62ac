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

# Gossip.
MAX_GOSSIP_BYTES: Final = 64 * 1024
"""Sixteen times the largest Offer; the transport loses messages of 1 MiB without a word."""
GOSSIP_QUEUE_MESSAGES: Final = 1024
"""Per peer and per topic; the library's 32 drop silently in a burst."""
AUTHOR_BURST_MESSAGES: Final = 256
"""What one author may send at once: a restart with an Offer on each of 32 topics fits many times."""
AUTHOR_MESSAGES_PER_S: Final = 4.0
"""Sustained; an honest author sends a few messages a minute, each costs every node about 3 ms."""
MAX_AUTHORS: Final = 4096
"""Authors whose rate is remembered; the least recently heard is forgotten."""

# Addresses.
MAX_ADDRESSES_PER_PEER: Final = 8
"""As many as an Offer carries."""
MAX_KNOWN_PEERS: Final = 4096
"""Peers whose addresses are remembered, least recently used forgotten: about 4 MB."""
MAX_ADDRESS_BYTES: Final = 256
"""As in the message schema; a longer multiaddr is never dialled."""
