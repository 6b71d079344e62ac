"""What the child does to itself before it touches a model file."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import NoReturn

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38


def isolate(parent: int) -> None:
    """No core dump, no new privileges, and no life without the parent (Linux; elsewhere the closed pipe ends us)."""
    os.environ["GGML_NO_BACKTRACE"] = "1"
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        # It may have died before we asked to be told.
        if os.getppid() != parent:
            os._exit(0)


def take_stdout() -> int:
    """A private descriptor for frames; whatever a library prints goes to stderr from now on."""
    frames = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return frames


def die(exc: BaseException) -> NoReturn:
    """End the process; says what failed and where, not with which values: those could be a prompt."""
    last = traceback.extract_tb(exc.__traceback__)[-1:]
    where = f"{Path(last[0].filename).name}:{last[0].lineno}" if last else "?"
    os.write(2, f"{type(exc).__name__} at {where}\n".encode())
    os._exit(70)


def die_on_thread_errors() -> None:
    """An error in any thread ends the process: half a worker would hang its jobs."""

    def hook(args: threading.ExceptHookArgs) -> None:
        die(args.exc_value or RuntimeError())

    threading.excepthook = hook
