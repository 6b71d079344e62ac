"""How the ledger fails: towards the program (LedgerError) and towards the operator."""

from __future__ import annotations

from ryvion_node.errors import (
    EXIT_DATA,
    EXIT_NO_INPUT,
    EXIT_TEMPORARY,
    EXIT_UNAVAILABLE,
    OperatorError,
)


class LedgerError(Exception):
    """Something could not be recorded."""


class LedgerUnavailable(LedgerError):
    """Nothing can be written now (disk full, I/O error, closed); the message says why. Nothing was recorded."""


class LedgerConflict(LedgerError):
    """What was to be recorded contradicts what is there; nothing was changed."""


class JobExists(LedgerConflict):
    """The job id was begun before on this side: a replayed offer."""


class JobUnknown(LedgerConflict):
    """No such job on this side."""


class ChainMoved(LedgerConflict):
    """Another envelope of this pair was committed meanwhile: build the envelope again on the new last hash."""


class LedgerMissing(OperatorError):
    """There is no ledger at {path} yet. It is made when the node first starts: ryvion-node up"""

    exit_code = EXIT_NO_INPUT


class LedgerInUse(OperatorError):
    """The ledger {path} is in use by another program ({holder}). Stop it, or give this node a folder of its own
    with --home.
    """

    exit_code = EXIT_TEMPORARY


class LedgerTooNew(OperatorError):
    """The ledger {path} was written by a newer version of the node (schema {found}, this one knows {known}).
    Upgrade ryvion-node, or give this version a folder of its own with --home.
    """

    exit_code = EXIT_UNAVAILABLE


class LedgerTooOld(OperatorError):
    """The ledger {path} was written by an older version of the node (schema {found}, this one reads {known}).
    Start the node once to bring it up to date: ryvion-node up
    """

    exit_code = EXIT_UNAVAILABLE


class LedgerCorrupt(OperatorError):
    """The ledger {path} cannot be read: {reason}. Keep the file, it may be repaired (sqlite3 {path} .recover);
    put a backup in its place, or move it away to start with an empty one.
    """

    exit_code = EXIT_DATA


class LedgerNotOpened(OperatorError):
    """The ledger {path} cannot be opened: {reason}. Check the disk's free space and the folder's rights."""

    exit_code = EXIT_UNAVAILABLE
