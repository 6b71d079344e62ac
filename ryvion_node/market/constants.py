"""Limits and timers of the requester's side, each with its reason."""

from __future__ import annotations

from typing import Final

MAX_BOOK_OFFERS: Final = 4096
"""About 8 MB of offers; more sellers than one requester can compare with profit."""
SYNC_BATCH_OFFERS: Final = 16
"""Handed out in one write: at most 64 KiB wait in memory for each peer that asks and does not read."""
SYNC_TIMEOUT_S: Final = 5.0
SYNC_POLL_S: Final = 0.25
"""How often new peers are looked for; a newcomer sees the market this much after its first connection."""

QUOTE_TIMEOUT_S: Final = 3.0
"""From asking an executor to its quote, dialling included."""
QUOTE_TURN_S: Final = 10.0
"""To be let ask it, while other requests of this node do; as long as clients bear before they hear that all is full."""
QUOTE_GRACE_MIN_S: Final = 0.02
QUOTE_GRACE_MAX_S: Final = 0.25
"""After the first good bid the round waits as long again as that bid took, within these bounds."""
MAX_OPEN_QUOTES: Final = 4
"""At one executor, which grants us 8 without orders: as many again may be on their way when it takes up an order."""
MAX_QUOTE_ROUNDS: Final = 4
MAX_REASONS_TOLD: Final = 8
"""In one error's text: more than a person reads, few enough for a terminal."""
MAX_ATTEMPTS: Final = 3
"""Executors tried for one order before the client gets an error."""

STARTED_TIMEOUT_S: Final = 10.0
"""From JobOffer to Started on an executor with a free slot."""
TOKEN_TIMEOUT_S: Final = 30.0
"""Silence in the middle of an answer after which the executor counts as lost."""
JOB_GRACE_S: Final = 10.0
"""On top of the order's lifetime, since the executor's begins when the order reaches it."""
MAX_FIRST_TOKEN_S: Final = 300.0
"""A bid that promises its first token later than this is refused: it would leave half of the order's lifetime."""
SLOW_FIRST_TOKEN_S: Final = 10.0
"""A bid that promises its first token later wins by balance only where none is quicker: a seller who asks nothing and
stalls would keep every order waiting for minutes."""
FIRST_TOKEN_GRACE_S: Final = 30.0
"""On top of a long promise; of a short one it may take twice as long."""
MAX_BYTES_PER_TOKEN: Final = 1024
"""Of text; far above any vocabulary's longest token, so that an executor that sends without end is cut off."""
MAX_ANSWER_BYTES: Final = 32 * 1024 * 1024
"""Of one answer's text, however many tokens were ordered: more than a million tokens, few enough to hold in memory."""
SETTLE_TIMEOUT_S: Final = 5.0
"""From the last delta, or our Cancel, to the audit envelope."""

EXPECTED_COMPLETION_TOKENS: Final = 256
"""Length of a typical answer: bids are compared at min(this, max_completion_tokens)."""
DEFAULT_MAX_COMPLETION_TOKENS: Final = 4096
MESSAGE_OVERHEAD_TOKENS: Final = 16
"""What a chat template adds to a message or a tool call at most, for bounds without the tokenizer."""
TOOLS_OVERHEAD_TOKENS: Final = 512
"""What it adds to explain tool calls; the longest in use have about 300."""
TOOL_OVERHEAD_TOKENS: Final = 64
"""And to each tool: keys, and white space that a token per byte of the schema does not make up for."""
COOLDOWN_S: Final = 30.0
"""An executor that broke a job, or answered nothing when nobody else did, is asked last for this long."""
MAX_COOLDOWNS: Final = 4096
MAX_DECISIONS: Final = 500
"""Explained choices that can be asked for by job: up to 20 KB each."""
MAX_CANDIDATES_KEPT: Final = 64
"""In one of these; all that a large market may have would be 1 MB."""
MAX_BACKGROUND_SETTLEMENTS: Final = 64
"""Cancelled jobs whose receipts are still awaited; beyond this their streams are just closed."""
DEFAULT_RETRY_MS: Final = 2_000
"""When nobody took a job and none said when to come again: a typical answer's time."""
MIN_RETRY_MS: Final = 100
"""No executor's word makes clients come again sooner: a round of quotes takes about that."""
HELD_RETRY_MS: Final = 2_000
"""When what is left of a key's allowance is held by running jobs: a typical answer's time."""
NOT_RECORDED_RETRY_MS: Final = 60_000
"""When this node cannot write down what it sends: somebody has to look after its disk."""

WARMUP_POLL_S: Final = 0.25
WARMUP_TIMEOUT_S: Final = 10.0
MAX_WARM_SELLERS: Final = 16
"""Connections opened before anybody orders: more than are asked for one quote, few enough to cost nothing."""
MAX_WARM_METERS: Final = 2
"""A meter is a process of about 60 MB; those of further models start with their first order."""
