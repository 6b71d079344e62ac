"""Limits on what a server behind the node can send, and how long it is waited for, each with its reason."""

from __future__ import annotations

from typing import Final

from ryvion_protocol.constants import MAX_TOOL_CALLS

MAX_KEY_BYTES: Final = 8 * 1024
"""Of a key file: the longest keys in use are tokens of about 2 kB."""
MAX_URL_CHARS: Final = 2048

MAX_REMOTE_SLOTS: Final = 1024
"""Jobs of ours at once on one server: a connection each, and vLLM takes 256 by default."""

MAX_KEPT_CONNECTIONS: Final = 64
KEEP_CONNECTION_S: Final = 4.0
"""Connections without a request, of one server, and how long they are kept: most servers close theirs after 5 s."""
MAX_HEADERS_BYTES: Final = 64 * 1024
"""Of a reply's status line and headers."""
READ_BYTES: Final = 32 * 1024
"""Taken from the socket at once; nothing more is read before the reader of the job has taken it."""
MAX_JSON_BYTES: Final = 16 * 1024 * 1024
"""Of a whole reply: the token ids of a 128k prompt with their texts are about 4 MB."""
MAX_REQUEST_BYTES: Final = 16 * 1024 * 1024
"""Of what we send: a job request of 256 kB grows in JSON by at most six."""
GATHER_BASE_S: Final = 0.004
GATHER_PER_JOB_S: Final = 0.002
GATHER_MAX_S: Final = 0.050
"""An answer is read at most every base + per_job * running jobs, no less often than max: 6 ms for one job, 20 for eight.
Frames to buyers leave less often than that; a read with its wake-up costs the CPU of some ten chunks."""
MAX_LINE_BYTES: Final = 1024 * 1024
"""Of one line of a stream: a chunk with 20 alternatives for each of 64 tokens is about 200 kB."""
STREAM_BASE_BYTES: Final = 1024 * 1024
STREAM_BYTES_PER_TOKEN: Final = 16 * 1024
"""A stream ends in error beyond base + per_token * max_tokens: a chunk is 300 bytes, with 20 alternatives 4 kB."""
ANSWER_BASE_BYTES: Final = 4096
ANSWER_BYTES_PER_TOKEN: Final = 256
"""So with the answer's own text: the longest token of a vocabulary in use is 256 spaces."""
MAX_CALLS: Final = MAX_TOOL_CALLS
"""In one answer; the protocol carries no more."""
MAX_CALL_ID_BYTES: Final = 64
"""Longer ids of tool calls are replaced by our own; the protocol carries 64 bytes."""
MAX_CALL_NAME_CHARS: Final = 64
MAX_PIECE_BYTES: Final = 256
"""Of a token in log-probabilities; the protocol carries no more."""
MAX_LOGPROB: Final = 100_000
"""Engines write -9999 for impossible tokens; numbers beyond this are a fault."""
MAX_MODELS_LISTED: Final = 10_000
"""Entries of a server's model list that are looked through."""

MAX_SCHEMA_CHARS: Final = 64 * 1024
MAX_SCHEMA_DEPTH: Final = 32
"""A schema or expression beyond these is refused before a server sees it: deep nesting kills several of them."""

PROBE_TOKENS: Final = 32
"""Generated to measure speed: short enough for a CPU, long enough to outweigh the first token."""
PROBE_PROMPT_WORDS: Final = 160
"""In the prompt that measures prompt speed, where the context is long enough."""
TRIAL_CALL_TOKENS: Final = 64
"""To see whether a tool is called when it must be: its name comes first."""
REMEASURE_S: Final = 600.0
"""A server that was away is measured again when its figures are older than this."""
MAX_SPEED_MILLITOKENS: Final = 10**9
"""A million tokens/s: a clock that did not move between two chunks says more."""
