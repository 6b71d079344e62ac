"""Limits of the engine, each with its reason."""

from __future__ import annotations

from typing import Final

MAX_FRAME_BYTES: Final = 16 * 1024 * 1024
"""Between node and worker. The largest is a text to count: a 128k-token answer is about 1 MB."""

CREDIT_TOKENS: Final = 256
"""Tokens a job may be ahead of its reader before its sequence pauses."""
CREDIT_RETURN_TOKENS: Final = 32
"""Credit is handed back in lots, so that a fast reader costs few frames."""

DEFAULT_CONTEXT_TOKENS: Final = 8192
"""Context per job when the manifest says nothing: the model's own, at most this (its cache is memory)."""
MAX_SLOTS: Final = 64
"""Parallel sequences of one context; llama.cpp allows 256."""
MAX_STOP_STRINGS: Final = 16
"""More than the OpenAI API's four, few enough to search after each token."""
MAX_STOP_CHARS: Final = 1024
"""Longer stop strings would hold text back for long."""
MAX_TEMPLATE_CHARS: Final = 256 * 1024
"""Chat templates in the wild reach 40 kB."""
MAX_RENDERED_CHARS: Final = 1024 * 1024
"""Of the template's own text in one prompt; the contents are capped by the request frame."""
TEMPLATE_S: Final = 5.0
"""For rendering one prompt. The largest that fits a request takes a tenth of a second; other jobs wait meanwhile."""
MAX_MARKED_CHARS: Final = 2 * 1024 * 1024
"""Of all that stands for tools and calls while a template is rendered, and of the prompt that comes out: eight times
what a request may hold, since templates repeat tools."""
MAX_MARKS: Final = 200_000
"""Texts kept apart in one prompt: a request of 256 KiB has fewer, 128 tools have about 2,000."""
MAX_JSON_DEPTH: Final = 32
"""Of tool parameters and arguments; more kills parsers, none of the field comes near."""
MAX_HELD_CHARS: Final = 8192
"""Of what may still become a tool call; a call shows itself within a hundred."""
MAX_CALLS: Final = 128
"""Tool calls in one answer, as many as the job stream carries (spec 04)."""

STEP_TARGET_S: Final = 0.09
"""Prompt chunks are sized for this, so that a step ends within 100 ms."""
CPU_BATCH_TOKENS: Final = 256
"""Rows per step on a CPU: more gains nothing there, and compute buffers grow with it."""
GPU_BATCH_TOKENS: Final = 512
GATHER_S: Final = 2.5
"""Jobs that come together wait so long for each other's prompts: 16 prompts of 62 tokens take 1.9 s on 2 cores."""
GATHER_PROMPT_S: Final = 0.25
"""A prompt that takes longer is long: nobody waits for it."""
MIN_CHUNK_TOKENS: Final = 8
"""Smallest prompt chunk: below it a CPU reads the weights almost once per token."""
CALIBRATION_S: Final = 0.8
"""Time for measuring step times at start, beyond the one pass of each kind that is always made."""

MAX_POOLING: Final = 3
"""llama.cpp's pooling types that give a vector: 1 mean, 2 first token, 3 last token; 4 ranks."""
DEFAULT_EMBEDDING_CONTEXT_TOKENS: Final = 2048
"""Of an embedding model when the manifest says nothing: a text is read in one step, and that step's buffers grow with
the square of it."""
EMBED_STEP_TEXTS: Final = 64
"""Texts per step; each is a sequence, of which llama.cpp allows 256."""
MAX_EMBED_TEXTS: Final = 2048
"""Texts of one request, as in the OpenAI API."""
MAX_EMBED_BYTES: Final = 8 * 1024 * 1024
"""Of all texts of one request: half of what a frame to the worker may hold."""
EMBED_LOT_TEXTS: Final = 256
EMBED_LOT_BYTES: Final = 1024 * 1024
"""What the worker gets at once: the answer fits a frame, and tokenising it holds other requests up for a second or two."""
MAX_DIMENSIONS: Final = 8192
"""Of a vector: a lot of them fits a frame; the largest models of the field have 4,096."""

PIECES_EVERY_S: Final = 0.02
"""Tokens after a job's first are sent to the node this often, and a quarter of it later for each job that runs:
executors send buyers a frame no sooner."""
PIECES_MOST_JOBS: Final = 3
"""So many times that at most: 60 ms, half of what an executor gathers for many jobs."""

DRIFT_FACTOR: Final = 1.2
"""A speed that is off by more is offered anew; less is noise."""
DRIFT_WEIGHT: Final = 0.02
"""Of a new token's time in the running one: about the last fifty tokens count."""
DRIFT_STEPS: Final = 100
"""Tokens of a job alone before its speed is believed."""
DRIFT_SAY_EVERY_S: Final = 15.0
"""Offers change at most every 10 s."""

LOAD_STALL_S: Final = 180.0
"""A worker that reports no progress for so long while it loads is killed."""
STEP_STALL_S: Final = 30.0
"""A worker that answers no ping for so long is killed: a step takes 0.1 s, on the slowest machines a few seconds."""
PING_EVERY_S: Final = 2.0
STOP_GRACE_S: Final = 2.0
"""For an orderly end before SIGKILL; the worker holds no state worth more."""
STDERR_TAIL_BYTES: Final = 4096
"""Kept of the child's stderr, for error reasons."""
MAX_REASON_CHARS: Final = 8192
"""Of a worker's reason: twice the longest path."""
MAX_FIGURE: Final = 10**12
"""Of a worker's speeds in 1/1000 token/s, and of its steps in microseconds: far beyond any machine, and an offer holds it."""
MAX_CONTEXT_TOKENS: Final = 2**32 - 1
"""As many as an offer carries, and the greatest id of a token."""
MAX_QUANTISATION_BYTES: Final = 64
"""As many as an offer carries."""

WORKER_OPEN_FILES: Final = 1024
"""Descriptors of a worker: its pipes, its model, and what GPU drivers open."""
WORKER_SLACK_BYTES: Final = 1 << 30
"""Address space of a worker beside its model: Python and its libraries map some 160 MB, grammars take the rest."""
WORKER_THREAD_BYTES: Final = 72 << 20
"""Address space that glibc reserves for one thread: a stack of 8 MB and an arena of 64 MB."""

ROOM_WAIT_S: Final = 60.0
"""A job waits so long for memory that models with running jobs hold; buyers give up about then."""
MAX_FIGURES: Final = 1000
"""Files and settings whose speed is remembered: as many as the owner may have models."""
MAX_FIGURES_BYTES: Final = 1024 * 1024

MAX_QUICK_DEATHS: Final = 3
QUICK_DEATH_S: Final = 60.0
"""A death within this time of the start counts as quick."""
RESTART_DELAYS_S: Final = (0.25, 1.0, 4.0)
"""Waits before the first, second and later restarts in a row."""

MAX_HEADER_BYTES: Final = 256 * 1024 * 1024
"""Of a GGUF's metadata: a 256k vocabulary with merges takes about 15 MB."""
MAX_HEADER_ENTRIES: Final = 65_536
MAX_HEADER_STRING_BYTES: Final = 4 * 1024 * 1024
MAX_HEADER_ARRAY_ITEMS: Final = 4 * 1024 * 1024
MAX_HEADER_ARRAY_DEPTH: Final = 4
MAX_HEADER_TENSORS: Final = 65_536
"""The largest mixtures have some 10,000."""
MAX_HEADER_LAYERS: Final = 1024
"""llama.cpp's own limit is 512."""
MAX_HEADER_NUMBER: Final = 1 << 32
"""Of any width or count in the metadata; keeps the products of a forged header small."""

SCORE_ROWS: Final = 16
"""Tokens judged between two steps: each takes up to half a millisecond."""
SCORE_BYTES: Final = 16 * 1024 * 1024
"""Of the logits of one step: on a vocabulary of 512k tokens these are 8 rows."""
GRAMMAR_PATIENCE_S: Final = 0.005
"""That one step waits for grammars at most; a job whose grammar takes longer sits out until it is there."""
MAX_GRAMMAR_BYTES: Final = 64 * 1024
"""Of a schema, expression or grammar: real ones reach some 10 kB."""
MAX_GRAMMAR_NESTING: Final = 64
"""Brackets in brackets; the compiler has limits of its own, this keeps them from being reached by recursion."""
MAX_SCHEMA_DEPTH: Final = 32
"""Schemas in schemas; each takes two brackets."""
MAX_GRAMMAR_SYMBOLS: Final = 200_000
"""Of a compiled grammar: what 64 kB of text can hold is far below, what repetitions make of it may not be."""
MAX_GRAMMAR_RULES: Final = 1000
"""Rules and alternatives of a Lark grammar: time grows with the cube of a chain of some, and the square of the rest."""
MAX_LEXER_FUEL: Final = 200_000
"""The compiler's own measure of work for the expressions in a grammar, about 4 ms; the library allows 5 times that."""
GRAMMAR_COMPILE_S: Final = 5.0
"""Then the job is refused; meanwhile no other job is tokenised. Real ones take milliseconds."""
MAX_GRAMMAR_MESSAGE_CHARS: Final = 500
"""Of the compiler's words, which quote the grammar."""
GRAMMAR_THREADS: Final = 2
"""That follow grammars beside the decode thread; they work for a millisecond per token, hostile ones for a second.
One more compiles."""
GRAMMAR_STACK_BYTES: Final = 128 * 1024 * 1024
"""Of each of them, reserved rather than used: 1,553 schemas in a chain, all that 64 kB hold, need 8 to 16 MB."""
