"""Stops Python code that does not come to an end."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

_T = TypeVar("_T")
_raise_in_thread: Final[Any] = ctypes.pythonapi.PyThreadState_SetAsyncExc
_raise_in_thread.argtypes = (ctypes.c_ulong, ctypes.py_object)


class TookTooLong(BaseException):
    """Raised in the middle of the code; no `except Exception` of that code catches it."""


class NoThread(Exception):
    """The system has none left to watch the time with: memory is short."""


def within(seconds: float, work: Callable[[], _T]) -> _T:
    """What `work` returns. Raises TookTooLong, unless the code is stuck in one call of a C library, or NoThread."""
    thread = threading.get_ident()
    lock = threading.Lock()
    over = False

    def stop() -> None:
        with lock:
            if not over:
                _raise_in_thread(thread, TookTooLong)

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    try:
        timer.start()
    except RuntimeError as exc:
        raise NoThread(str(exc)) from exc
    try:
        return work()
    finally:
        with lock:
            over = True
        # An exception that was on its way is raised by this call at the latest, not behind it.
        timer.cancel()
