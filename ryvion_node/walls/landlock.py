"""File access rules for a child: it can read its file and what it runs on, and nothing else (Linux 5.13 and later).

See landlock(7). Rules only ever take rights away, hold for this thread and every one that it starts later, and keep
the process from looking into others, such as the node.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_CREATE_RULESET: Final = 444
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
_ASK_VERSION: Final = 1
_PATH_BENEATH: Final = 1

_EXECUTE: Final = 1 << 0
_WRITE_FILE: Final = 1 << 1
_READ_FILE: Final = 1 << 2
_READ_DIR: Final = 1 << 3
_REMOVE_FILE: Final = 1 << 5
_MAKE_FILE: Final = 1 << 8
_TRUNCATE: Final = 1 << 14
_IOCTL: Final = 1 << 15
_OF_FILES: Final = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL

READ: Final = _READ_FILE | _READ_DIR
LIST: Final = _READ_DIR
USE: Final = READ | _WRITE_FILE | _TRUNCATE | _IOCTL | _MAKE_FILE | _REMOVE_FILE
"""For devices and the shared memory of their drivers."""

_RIGHTS_BY_VERSION: Final = (0, 13, 14, 15, 15, 16)
"""How many file rights each version knows; later ones as the last."""
_ANY_TCP: Final = 0b11
_ANY_SCOPE: Final = 0b11
"""Abstract sockets of others, and signals to others."""


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def version() -> int:
    """What this kernel offers; 0: nothing."""
    if sys.platform != "linux":
        return 0
    return max(0, int(ctypes.CDLL(None).syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _ASK_VERSION)))


def allow_only(rules: Iterable[tuple[Path, int]]) -> bool:
    """Take all file access away but for these paths and what lies below; False where the kernel cannot. Raises OSError.

    Needs PR_SET_NO_NEW_PRIVS. Paths that do not exist are left out.
    """
    made = ruleset(rules)
    if made is None:
        return False
    try:
        restrict(made)
    finally:
        os.close(made)
    return True


def ruleset(rules: Iterable[tuple[Path, int]]) -> int | None:
    """A descriptor for `restrict`, which may be used many times; None where the kernel cannot. Raises OSError."""
    offered = version()
    if not offered:
        return None
    rights = (1 << _RIGHTS_BY_VERSION[min(offered, len(_RIGHTS_BY_VERSION) - 1)]) - 1
    wanted = _Ruleset(rights, _ANY_TCP if offered >= 4 else 0, _ANY_SCOPE if offered >= 6 else 0)
    size = 24 if offered >= 6 else 16 if offered >= 4 else 8
    made = _call(_CREATE_RULESET, ctypes.byref(wanted), ctypes.c_size_t(size), 0)
    try:
        for path, allowed in rules:
            _allow(made, path, allowed & rights)
    except BaseException:  # whatever it was goes on its way
        os.close(made)
        raise
    return made


def restrict(made: int) -> None:
    """Put this thread, and those that it starts from now on, under a ruleset. Raises OSError."""
    _call(_RESTRICT_SELF, made, 0)


def _allow(made: int, path: Path, allowed: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not path.is_dir():
            allowed &= _OF_FILES
        rule = _Beneath(allowed, place)
        _call(_ADD_RULE, made, _PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(place)


def _call(number: int, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    answer = int(libc.syscall(number, *arguments))
    if answer < 0:
        failed = ctypes.get_errno()
        raise OSError(failed, f"landlock: {os.strerror(failed)}")
    return answer
