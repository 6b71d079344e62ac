"""Limits and timers of the local endpoint, each with its reason."""

from __future__ import annotations

from typing import Final

from ryvion_protocol.constants import MAX_REQUEST_BYTES

MAX_BODY_BYTES: Final = 1024 * 1024
"""One request's JSON: the 256 KiB of prompt that a job carries, tripled when every character is escaped, and room."""
MAX_HEADER_BYTES: Final = 32 * 1024
"""Request line and headers: browsers send the cookies of everything else on localhost too."""
MAX_PROMPT_BYTES: Final = MAX_REQUEST_BYTES - 32 * 1024
"""UTF-8 of all messages together: what fits a JobRequest beside its framing, stop texts and source hashes."""
MAX_NAME_BYTES: Final = 64
"""A message's `name`, a call's `id`: the wire's Label."""
MAX_TOOLS_BYTES: Final = 128 * 1024
"""UTF-8 of all tools together: half of what a job carries, so that a conversation still fits beside them."""
MAX_SCHEMA_DEPTH: Final = 64
"""Brackets in brackets in an answer's schema, as deep as executors compile them."""
MAX_PARAMETERS_DEPTH: Final = 32
"""The same of a tool's parameters, which templates show to the model; ones that people write have about ten."""
MAX_STOP_BYTES: Final = 256
"""One stop text, as on the wire."""
MAX_COMPLETION_TOKENS: Final = 2**31 - 1
"""Far above any context; the executor's context is the real limit."""

MAX_NAMES_COMPARED: Final = 64
"""Of a body, that nobody here knows, with the names that we know: more than clients send, few enough to take no time."""
MAX_IN_FLIGHT: Final = 64
"""Choices of completions under way at once: 64 streams at 30 frames/s fill one core of the peer-to-peer link."""
MAX_CHOICES: Final = 32
"""Of one answer, each a job: half of those, so that no request keeps all others out."""
MAX_CONNECTIONS: Final = 512
"""Open sockets; more are closed unread, so that a leaking client cannot use up the node's file descriptors."""

BODY_DEADLINE_S: Final = 30.0
"""Reading one request body; on loopback it takes milliseconds."""
LINGER_S: Final = 2.0
"""After an answer to a request whose body was not read: how long the rest is read and dropped, so that the client
sees the answer and not a reset connection."""
LINGER_BYTES: Final = 8 * 1024 * 1024
"""And how much of it at most."""
IDLE_CONNECTION_S: Final = 75.0
"""A silent connection between requests; longer than the clients' own 5-60 s, so that they close it, not we under them."""
SEND_STALL_S: Final = 60.0
"""A client that reads nothing for so long is gone: its job is given up."""
SHUTDOWN_SEND_S: Final = 1.0
"""What a write under way may still take when the node stops."""
KEEP_ALIVE_S: Final = 15.0
"""A comment line after so much silence in a stream; Node's fetch gives up after 300 s, proxies on the way earlier."""

MAX_RETRY_AFTER_MS: Final = 60_000
"""Clients follow no longer advice than this."""
DEFAULT_RETRY_AFTER_MS: Final = 1_000
"""When the market does not know better."""
MAX_ROUTE_BODY_BYTES: Final = 32 * 1024
"""A route request is a few short fields, and lists of nodes that have at most 9 KB."""

MAX_KNOWLEDGE_BODY_BYTES: Final = 64 * 1024
"""What makes a knowledge base, or searches one: a name, a question, at most 1,000 documents to look in."""
MAX_UPLOAD_BYTES: Final = 256 * 1024 * 1024
"""One request's files; each is let go of before the next is read."""
MAX_UPLOADS: Final = 2
"""Read at once, others wait: each holds a file of at most 64 MiB in memory, three times while it is written."""
UPLOAD_S: Final = 600.0
"""For one upload, so that a slow one does not keep others waiting for ever; 256 MiB at 4 Mbit/s take as long."""
MAX_PARTS: Final = 1000
"""Of one upload."""
GROUNDING_PASSAGES: Final = 5
"""What an answer is grounded in at most: more make small models worse, and every one is paid for as prompt."""

MAX_BUCKETS: Final = 4096
"""Keys whose requests per minute are counted: more than there may be keys."""
BUSY_RETRY_MS: Final = 1_000
"""When a key has as many answers under way as it may: about as long as one takes to move on."""

MAX_IDEMPOTENCY_KEY_CHARACTERS: Final = 255
"""As elsewhere; a UUID has 36."""
ANSWER_LIFETIME_MS: Final = 24 * 3_600_000
"""How long an Idempotency-Key is remembered: what clients know from other services."""
MAX_STORED_ANSWER_BYTES: Final = 16 * 1024 * 1024
"""One answer before packing: a stream of 32,000 tokens, a chunk each."""
MAX_SEALED_BYTES: Final = MAX_STORED_ANSWER_BYTES + 64 * 1024
"""And as a file, should packing not shrink it."""
MAX_ANSWERS_BYTES: Final = 256 * 1024 * 1024
"""All answers on disk; beyond it the oldest go. Their claims stay, so that none is bought twice."""
MAX_CLAIMS: Final = 50_000
"""Keys remembered at once, in a file of one block each: 200 MB. Further ones are refused until some expire."""
VAULT_SWEEP_S: Final = 600.0
"""Between two looks for what expired while nothing was written."""
