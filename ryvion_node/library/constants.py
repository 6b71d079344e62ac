"""Limits of the library, each with its reason."""

from __future__ import annotations

from typing import Final

MAX_MODELS: Final = 1000
"""Entries of the manifest: it is read whole for every look-up."""
MAX_MANIFEST_BYTES: Final = 1024 * 1024

METADATA_TIMEOUT_S: Final = 15.0
"""For the source to say what it has."""
SILENCE_TIMEOUT_S: Final = 30.0
"""A transfer that brings nothing for so long counts as broken."""
MAX_FRUITLESS_TRIES: Final = 5
"""Tries in a row that bring no byte; then the owner is asked to come back later. What came is kept."""
RETRY_DELAY_S: Final = 1.0
READ_BYTES: Final = 256 * 1024
"""Of a transfer at once: so much is lost at most when it breaks."""
HEADER_PIECE_BYTES: Final = 8 * 1024 * 1024
"""Asked for at once while only a header is fetched: most vocabularies fit into one, 256k tokens into two."""
SPARE_DISK_BYTES: Final = 256 * 1024 * 1024
"""Left free beside a download, for the ledger and the logs."""
