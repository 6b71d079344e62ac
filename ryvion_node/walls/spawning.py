"""Child processes with three pipes, under trio."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

import trio

_PASSED_ON: Final = frozenset(
    {"PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT"}
)


def child_environment(prefixes: tuple[str, ...] = ()) -> dict[str, str]:
    """What a child needs to run our code, and variables with these prefixes; tokens of the owner stay here."""
    passed = {name: value for name, value in os.environ.items() if name in _PASSED_ON or name.startswith(prefixes)}
    return passed | {
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        "PYTHONUTF8": "1",
        # Nothing is imported from the folder that the child happens to stand in.
        "PYTHONSAFEPATH": "1",
    }


def spawn(
    command: list[str], environment: dict[str, str]
) -> tuple[subprocess.Popen[bytes], trio.lowlevel.FdStream, trio.lowlevel.FdStream, trio.lowlevel.FdStream]:
    """The process and our ends of its stdin, stdout and stderr. Raises OSError.

    From this thread: Linux ties the child's life to the thread that made it, and trio's helper threads end.
    """
    pairs = [os.pipe() for _ in range(3)]
    (stdin, to_child), (from_child, stdout), (errors, stderr) = pairs
    try:
        process = subprocess.Popen(
            command,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=environment,
            cwd="/",
            # Ctrl-C in the terminal reaches the node only, which then ends us in good order.
            start_new_session=True,
        )
    except BaseException:  # whatever it was goes on its way; our ends of the pipes must not stay open
        for end in (to_child, from_child, errors):
            os.close(end)
        raise
    finally:
        for end in (stdin, stdout, stderr):
            os.close(end)
    return process, trio.lowlevel.FdStream(to_child), trio.lowlevel.FdStream(from_child), trio.lowlevel.FdStream(errors)


def kill(process: subprocess.Popen[bytes]) -> None:
    """At once, if it still runs."""
    if process.poll() is None:
        process.kill()


async def bury(
    process: subprocess.Popen[bytes], *streams: trio.abc.AsyncResource, at_once: bool, grace_s: float
) -> None:
    """Closing its stdin ends it in good order; after the grace time it is killed. Call it shielded."""
    for stream in streams:
        await stream.aclose()
    if at_once:
        kill(process)
    with trio.move_on_after(grace_s):
        await trio.to_thread.run_sync(process.wait, abandon_on_cancel=True)
    kill(process)
    process.wait()
