"""Limits and timers of the executor's side, each with its reason."""

from __future__ import annotations

from typing import Final

STANDBY_S: Final = 90.0
"""A stream may wait this long for its QuoteRequest: requesters keep one open to answer the next client sooner."""
ORDER_GRACE_S: Final = 1.0
"""On top of the quote's validity, for a JobOffer that was under way when it ended."""
REQUEST_TIMEOUT_S: Final = 10.0
"""From JobOffer to the whole JobRequest (at most 256 KiB)."""
ACCEPTANCE_TIMEOUT_S: Final = 15.0
"""How long a finished job waits for the requester's verdict; it is recorded when it comes, not needed. No slot waits
with it, and a requester may first have to start its meter."""
MAX_CHAINS: Final = 4096
"""Requesters whose last envelope is remembered, about 1 MB; that of others is read from the ledger again."""

MAX_HOLDS_PER_PEER: Final = 8
"""Quotes one requester may hold open at once, and always one less than there is room for: nobody reserves a whole
node without ordering."""
HELD_RETRY_MS: Final = 500
"""When to ask again with that many quotes open: within this time most auctions end."""

FRAME_BASE_S: Final = 0.020
FRAME_PER_JOB_S: Final = 0.010
FRAME_MAX_S: Final = 0.120
"""Tokens are sent at ticks that are base + per_job * running jobs apart, at most max: 30 ms for one job, 100 for eight.
A frame costs both nodes about 0.1 ms of CPU and a wake-up, which is what a machine that also computes feels most."""
EMBED_LOT_TEXTS: Final = 64
"""Texts handed to an embedding engine at once: one step of it."""
EMBED_LOT_S: Final = 0.5
"""And what they may take by the engine's measured speed, so that vectors keep coming and a Cancel is soon seen."""
EMBED_BYTES_PER_TOKEN: Final = 3
"""Of ordinary text, to tell how long it takes before it was counted."""
MAX_FRAME_TEXT_BYTES: Final = 32 * 1024
"""Of text, reasoning and tool calls together in one frame."""
MAX_FRAME_LOGPROB_BYTES: Final = 28 * 1024
"""Of tokens and log-probabilities: both parts fit a Delta of 64 KiB, and one token with 20 alternatives needs 6 KiB."""

PAUSED_RETRY_MS: Final = 60_000
"""When to ask a paused executor again: owners pause for minutes, not seconds."""
SENSOR_EVERY_S: Final = 2.0
"""Between looks at what the owner does with the machine: soon enough to make room, and no load by itself."""

OFFER_REFRESH_MIN_S: Final = 30.0
OFFER_REFRESH_MAX_S: Final = 45.0
OFFER_CHANGE_S: Final = 10.5
"""A changed offer is announced this long after the last one (peers refuse more than one per 10 s)."""
OFFER_FIRST_S: Final = 1.0
"""The first announcement: gossipsub needs one heartbeat to build its mesh."""

BUSY_RETRY_MS: Final = 2000
"""When a requester may come again to an engine that others fill: about the time of a short answer."""
TYPICAL_JOB_TOKENS: Final = 128
"""Used to estimate how long a job ahead in the queue takes."""
