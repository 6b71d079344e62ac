"""Limits and timers of the wire protocol, each with its reason."""

from __future__ import annotations

from typing import Final

NETWORK_ID: Final = "ryvion-main"
"""Names the market a node belongs to; a message for another network is refused."""

PROTOCOL_VERSION: Final = 1
MARKET_PROTOCOL: Final = "/ryvion/market/1.2.0"
"""libp2p protocol id of the job stream (spec 04)."""
OFFERS_PROTOCOL: Final = "/ryvion/offers/1.1.0"
"""libp2p protocol id of book sync, and the head of the gossip topic (spec 03)."""

# Fixed by Ed25519 and SHA-256.
SEED_BYTES: Final = 32
KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
HASH_BYTES: Final = 32
MAX_CACHED_KEYS: Final = 4096
"""Keys whose validity is remembered: more than the peers of a busy node, and about 0.5 MB."""

# Sizes. A frame is a u32be length and that many payload bytes.
FRAME_HEADER_BYTES: Final = 4
MAX_CONTROL_BYTES: Final = 16 * 1024
"""Everything but requests and answers: a quote or a receipt is well under 2 KiB."""
MAX_REQUEST_BYTES: Final = 256 * 1024
"""A JobRequest or EmbedRequest: a 128k-token prompt of English text is about 500 kB, one of 64k fits."""
MAX_DELTA_BYTES: Final = 64 * 1024
"""One Delta or Vectors: 120 ms of tokens at thousands of tokens/s stays far below."""
MAX_OFFER_BYTES: Final = 8 * 1024
"""An Offer is gossiped to everyone; 8 KiB hold 32 models with names of usual length and all features."""

# Counts inside messages.
MAX_MODELS_PER_OFFER: Final = 32
MAX_ADDRESSES_PER_OFFER: Final = 8
MAX_MESSAGES_PER_REQUEST: Final = 2048
MAX_STOP_STRINGS: Final = 4
MAX_TOKENS_PER_DELTA: Final = 4096
MAX_CHUNK_HASHES: Final = 64
MAX_JURISDICTIONS: Final = 64
"""A group such as EU is expanded by the requester; the largest in use has 30 members."""
MAX_FEATURES: Final = 32
"""Twice what is known today."""
MAX_TOOLS: Final = 128
"""As many as the OpenAI API takes."""
MAX_TOOL_CALLS: Final = 128
MAX_GRAMMAR_BYTES: Final = 64 * 1024
"""Larger schemas and grammars are not met in practice, and compiling one costs the executor time."""
MAX_LOGIT_BIAS: Final = 300
"""As many as the OpenAI API takes."""
MAX_TOP_LOGPROBS: Final = 20
MAX_TEXTS_PER_REQUEST: Final = 2048
"""Texts of one embedding job, as many as the OpenAI API takes."""
MAX_DIMENSIONS: Final = 8192
"""Of a vector: the largest models in use have 4,096."""
MAX_VECTOR_BYTES: Final = 60 * 1024
"""Of the numbers in one Vectors message: 15 vectors of 1,024 numbers."""
MAX_SYNC_OFFERS: Final = 512
"""Offers handed to a newcomer in one book sync: 4 MiB at most, and gossip brings the rest within 45 s."""
MAX_NESTING: Final = 6
"""Arrays in arrays; the deepest message (Delta > logprobs > token > top > alternative) needs five."""
MAX_VALUES: Final = 32 * 1024
"""Values in one body, arrays among them: a quarter MiB of the smallest ones would stop the reader for 0.1 s."""

# Time. The receiver's own clock decides, within this skew.
MAX_CLOCK_SKEW_MS: Final = 120_000
OFFER_LIFETIME_MS: Final = 120_000
"""Longest validity of an Offer; it is refreshed every 30-45 s."""
OFFER_MIN_INTERVAL_MS: Final = 10_000
"""At most one Offer per peer in this time is accepted, so that nobody floods the book."""
QUOTE_LIFETIME_MS: Final = 10_000
"""How long a Quote holds a slot; a quote round takes well under a second."""
JOB_OFFER_LIFETIME_MS: Final = 600_000
"""A job must be over by then."""

MAX_METERING_UNITS: Final = 2**53 - 1
"""Largest integer that every JSON reader keeps exactly."""
PRICE_UNIT_TOKENS: Final = 1_000_000
"""Prices are micro-credits per this many tokens."""
MAX_COUNT_SLACK: Final = 1
"""Tokens by which a text may have more than its UTF-8 bytes: some tokenizers put a space in front of each."""
MAX_TEXT_MARKS: Final = 3
"""Tokens by which an embedded text may have more than its UTF-8 bytes: a space in front, and a mark at each end."""
MAX_PRICE: Final = 10**12
"""One credit per token: far above any sane price, and the dearest possible job still costs less than 2^53."""
