"""Limits of knowledge bases, each with its reason."""

from __future__ import annotations

from typing import Final

# Reading files.

MAX_FILE_BYTES: Final = 64 * 1024 * 1024
"""Of one document. Books are below 10 MB, scanned ones are images and hold no text."""
MAX_TEXT_CHARS: Final = 16 * 1024 * 1024
"""Of one document as text, some 8,000 pages: five times War and Peace. Beyond it one wants several documents."""
MAX_PAGES: Final = 10_000
"""Of a PDF; the largest manuals have 5,000."""
MAX_BOOKMARKS: Final = 20_000
"""Of a PDF; the largest manuals have some thousands."""
MAX_BLOCKS: Final = 200_000
"""Of one document: one for 80 characters of the longest text."""
MAX_TITLES: Final = 400_000
"""Headings of one document, themselves or what they stand under different: two for each block of a file of JSON lines."""
MAX_HEADINGS: Final = 8
"""In the path of a block; deeper ones add nothing to what a passage is about."""
MAX_HEADING_CHARS: Final = 200
"""Of one heading; longer ones are sentences that were set in large type."""
MAX_WARNINGS: Final = 20
"""Of one document; whoever has more needs another file, not more lines."""
MAX_MESSAGE_CHARS: Final = 300
"""Of a warning or an error."""
MAX_FILENAME_CHARS: Final = 200
"""A name is a label; file systems end at 255 bytes."""
MAX_COLUMNS: Final = 4_096
"""Of a CSV file; spreadsheets end at 16,384, and their names are repeated with each row."""
MAX_CELL_CHARS: Final = 1024 * 1024
"""Of a CSV file; spreadsheets end at 32,767."""
MAX_JSON_DEPTH: Final = 64
"""Levels of a JSON file; more is a data structure, not a text."""
MAX_HTML_DEPTH: Final = 256
"""Elements within elements, what libxml2 allows; browsers end at 512."""
MAX_UNPACKED_BYTES: Final = 256 * 1024 * 1024
"""Of a DOCX without its pictures; XML packs to a tenth, so this is more than the largest file unpacks to in practice."""
MAX_MEMBERS: Final = 10_000
"""Files within a DOCX; each picture is one."""

READER_MEMORY_BYTES: Final = 2 * 1024 * 1024 * 1024
"""Address space of the process that reads one document. Elements of XML take 20 times their text, a page's objects more."""
READER_CPU_S: Final = 120
"""For one document: pypdf reads some 20 pages a second."""
READER_WALL_S: Final = 300.0
"""The same on a machine that has other things to do."""
READER_OPEN_FILES: Final = 64
"""Python opens one module at a time."""
READER_START_S: Final = 30.0
"""For a process to begin: Python's start and the libraries of a format, on a machine that has other things to do."""
READER_IDLE_S: Final = 60.0
"""How long what starts those processes waits at least for the next document; it holds 15 to 40 MB."""
IDLE_READERS: Final = 2
"""Of those that wait; documents are read one after the other."""
MAX_READER_LINE_BYTES: Final = 128
"""What it is told of a document: three short words."""
READER_GRACE_S: Final = 2.0
"""For that process to end after it has answered."""
MAX_ANSWER_BYTES: Final = 96 * 1024 * 1024
"""What that process may write: the longest text at 4 bytes a character, and its blocks."""
PIPE_READ_BYTES: Final = 1 << 20
"""At once, of an answer."""

# Cutting texts.

CHUNK_CHARS: Final = 800
"""At most, in one chunk. The bundled embedding model takes 512 tokens: 1.8 characters each of English text."""
CHUNK_OVERLAP_CHARS: Final = 120
"""At most, of a chunk repeated in the next, in whole sentences: what a sentence says may hang on the one before."""
MIN_CHUNK_CHARS: Final = 16
"""Smaller ones are of no use, and an emoji may take ten."""

# The database.

MAX_DATABASE_BYTES: Final = 64 * 1024**3
"""Some ten million passages; beyond that something is wrong, and the disk is left alone."""
PAGE_BYTES: Final = 16 * 1024
"""Vectors are read in runs: measured a quarter faster than pages of 4 KiB. Ten vectors of 384 numbers fit one."""
CACHE_KIB: Final = 16 * 1024
"""Per connection. The operating system caches the file as well; 64 MiB made searches no faster."""
READERS: Final = 3
"""Connections that read at once. One search uses two, and passages of another are fetched beside it."""
BUSY_TIMEOUT_MS: Final = 30_000
"""How long a write waits for another process. The longest one makes a document of 16 million characters searchable."""
TIDY_AFTER_S: Final = 10.0
"""Without work and without deletions before deleted words and unused pages go: each time costs about the same."""
CLEANED_PAGES: Final = 256
"""Of an index of words, written anew in one transaction to get rid of deleted words: others write in between."""
RECLAIMED_PAGES: Final = 1_024
"""Given back to the file system in one transaction: 16 MiB, a tenth of a second."""

# What may be kept.

MAX_KNOWLEDGE_BASES: Final = 256
"""Each has about fifteen index tables, and opening the file reads the names of all."""
MAX_NAME_CHARS: Final = 200
"""Of a knowledge base."""
MAX_PATH_CHARS: Final = 400
"""Of a document's name with the folders in front of it."""
MAX_DOCUMENTS: Final = 100_000
"""Of one knowledge base; a list of them is a few megabytes."""
MAX_CHUNKS: Final = 1_000_000
"""Of one knowledge base: a search of so many takes about a third of a second."""
MAX_DOCUMENT_CHUNKS: Final = 100_000
"""Of one document: four times what the longest text is cut into, unless it is all headings."""
MAX_WAITING_BYTES: Final = 2 * 1024**3
"""Of files that were added and not read yet, over all knowledge bases."""
MAX_READING_ATTEMPTS: Final = 3
"""A file during whose reading the node ended so often is not tried again."""
MAX_LISTED: Final = 1_000
"""Documents in one page of a list."""
MAX_DISCLOSED_CHUNKS: Final = 2_048
"""Of one job: as many as an embedding job has texts."""

# Making vectors.

EMBED_BATCH_TEXTS: Final = 256
"""Passages of one request to the embedding model; what is lost when the node ends in the middle."""
EMBED_BATCH_BYTES: Final = 192 * 1024
"""The same in bytes: below the frame of an embedding job (256 KiB) with its headers."""
EMBED_BATCH_S: Final = 600.0
"""For one request: a large model on a processor makes one vector in two seconds."""
READ_AHEAD_DOCUMENTS: Final = 32
"""Small files that are read before the vectors of the first are asked for, so that a folder of notes is not a job for
each: some 0.4 s, in which the first cannot be found yet."""
READ_AHEAD_BYTES: Final = 256 * 1024
"""Of such a file; larger ones take longer to read, and fill a request by themselves."""
EMBED_RETRY_FIRST_S: Final = 5.0
EMBED_RETRY_MAX_S: Final = 600.0
"""Between tries while nobody makes vectors: doubled from the first to the last."""
SWITCH_MODEL_AFTER_S: Final = 3600.0
"""How long the model of a knowledge base's vectors may be away before all of them are made anew by another: that
costs as much as the first time, and sellers come and go."""
INGEST_POLL_S: Final = 2.0
"""How soon documents are noticed that another process added, and that the process which ingested has ended."""
INGEST_REST_S: Final = 30.0
"""After the database could not be written."""

# Searching.

SHARDS: Final = 8
"""Parts of a vector index, each searched for its best: sqlite-vec needs time for each result wanted of each vector, so
that 8 times 16 cost an eighth of 128 at once."""
SHARD_CANDIDATES: Final = 16
"""Of each part, by approximate vectors. All together are ranked again by exact ones; at 100,000 vectors of 160 and 384
numbers these held every one of the true ten best."""
VECTORS_PER_BLOCK: Final = 128
"""sqlite-vec reserves room by the block, in each part: 50 kB with 384 numbers. Larger ones are no faster."""
QUANTISED_RANGE_SIGMAS: Final = 4.0
"""A component beyond so many standard deviations is cut off in the approximate vector."""
MAX_QUERY_WORDS: Final = 64
"""Distinct ones, the first; a question has ten."""
MAX_QUERY_CHARS: Final = 16 * 1024
"""What is looked at of a longer query."""
MAX_EMBEDDED_QUERY_CHARS: Final = 800
"""What is made a vector of a longer query: as much as a passage has."""
MAX_POSTINGS: Final = 30_000
"""Passages that are scored per search by words: the most frequent words of a query are left out beyond, they say
least. Scoring so many takes about 15 ms."""
KEPT_FREQUENCIES: Final = 4_096
"""Words whose frequency is remembered."""
MAX_RESULTS: Final = 50
"""Of one search; an answer is grounded in five or so."""
MAX_FILTER_DOCUMENTS: Final = 1_000
"""That a search may be limited to."""
QUERY_VECTOR_S: Final = 5.0
"""How long a search waits for its query's vector before it goes by words alone."""
KEPT_QUERY_VECTORS: Final = 256
"""Vectors of recent queries; the same question is often asked again."""
