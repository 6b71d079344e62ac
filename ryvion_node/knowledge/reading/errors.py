"""Why a file could not be read."""

from __future__ import annotations


class UnreadableDocument(Exception):
    """The message is for the owner of the file and names the mend; it quotes nothing of the content."""
