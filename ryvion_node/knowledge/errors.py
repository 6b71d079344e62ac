"""How knowledge bases fail: towards the program (KnowledgeError) and towards the operator."""

from __future__ import annotations

from ryvion_node.errors import EXIT_DATA, EXIT_NO_INPUT, EXIT_TEMPORARY, EXIT_UNAVAILABLE, OperatorError


class KnowledgeError(Exception):
    """Something could not be kept or found; the message is for whoever asked and names the mend."""


class KnowledgeUnavailable(KnowledgeError):
    """Nothing can be read or written now (disk full, I/O error, another program writes); nothing was changed."""


class KnowledgeDamaged(KnowledgeUnavailable):
    """The file's content is damaged."""


class KnowledgeBaseUnknown(KnowledgeError):
    """There is no such knowledge base."""


class DocumentUnknown(KnowledgeError):
    """There is no such document in the knowledge base."""


class KnowledgeLimit(KnowledgeError):
    """It would pass a limit of `constants.py`."""


class BadVectors(KnowledgeError):
    """What came back from an embedding model is not what was asked for."""


class OtherDimensions(BadVectors):
    """The vectors have another length than those that the same model made before: one of the two sellers lied."""


class KnowledgeInUse(OperatorError):
    """The knowledge bases in {path} are locked by another program. Stop it and try again; two nodes may share them,
    but not while one of them brings the file up to date or a database tool holds it.
    """

    exit_code = EXIT_TEMPORARY


class KnowledgeTooNew(OperatorError):
    """The knowledge bases in {path} were written by a newer version of the node (schema {found}, this one knows
    {known}). Upgrade ryvion-node, or give this version a folder of its own with --home.
    """

    exit_code = EXIT_UNAVAILABLE


class KnowledgeTooOld(OperatorError):
    """The knowledge bases in {path} were written by an older version of the node (schema {found}, this one reads
    {known}). Start the node once to bring them up to date: ryvion-node up --proxy
    """

    exit_code = EXIT_UNAVAILABLE


class KnowledgeMissing(OperatorError):
    """There are no knowledge bases at {path} yet. A node with an endpoint keeps them: ryvion-node up --proxy"""

    exit_code = EXIT_NO_INPUT


class KnowledgeCorrupt(OperatorError):
    """The knowledge bases in {path} cannot be read: {reason}. Put a backup in the file's place, or move it away and
    add your documents again; the file also lists which passages left this machine, so keep it.
    """

    exit_code = EXIT_DATA


class KnowledgeNotOpened(OperatorError):
    """The knowledge bases in {path} cannot be opened: {reason}. Check the disk's free space and the folder's rights."""

    exit_code = EXIT_UNAVAILABLE
