"""Keeping the library's own logging off the terminal.

It logs warnings without a handler, and through module functions of `logging`, which install a handler on stderr
when there is none: a screen drawn there would be spoilt, and every log line of the node doubled.
"""

from __future__ import annotations

import logging
from pathlib import PurePath

_LIBRARIES = ("libp2p", "multiaddr", "noise")
_DIALS = "libp2p.transport.tcp.tcp"
"""Writes an error for each address that does not answer, which is everyday life and which `dialer` logs."""


def quiet_libp2p() -> None:
    """Drop the library's records below ERROR, and all that it writes to the root logger. May be called twice."""
    for name in _LIBRARIES:
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger(_DIALS).setLevel(logging.CRITICAL)
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(logging.NullHandler())
    if _is_not_from_library not in root.filters:
        root.addFilter(_is_not_from_library)


def _is_not_from_library(record: logging.LogRecord) -> bool:
    """A filter of the root logger sees only what is logged straight to it."""
    return not set(_LIBRARIES).intersection(PurePath(record.pathname).parts)
