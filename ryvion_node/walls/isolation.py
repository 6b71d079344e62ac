"""What a child does to itself before it touches a file that a stranger made."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NoReturn

from ryvion_node.walls.landlock import LIST, READ, USE, allow_only, ruleset
from ryvion_node.walls.seccomp import filter_calls

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION: Final = 0x20080522
_KEPT_CAPABILITIES: Final = 1 << 1 | 1 << 2 | 1 << 14
"""Of a node that runs as root: opening files whatever their mode says (the file rules stand above that), and locking
memory, which GPU drivers do. Others would let root's worker past the walls, such as reading any process."""

_MOST_BYTES: Final = 1 << 47
"""What a process can address; a larger figure, out of a strange header, would be no limit."""
_SYSTEM: Final = ("/usr", "/lib", "/lib32", "/lib64", "/proc", "/sys", "/nix/store", "/gnu/store", "/run/opengl-driver")
_LINKER: Final = ("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/localtime")
_DRIVERS: Final = ("/etc/vulkan", "/etc/OpenCL", "/etc/glvnd", "/etc/nvidia", "/opt/rocm", "/opt/amdgpu", "/opt/intel")
_PLAIN_DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")


def isolate(parent: int, *, walls: bool, open_files: int, local_sockets: bool = True) -> None:
    """No core dump, no new privileges, no life without the parent; with `walls` no network and no other programs.

    Without `local_sockets` no socket at all.

    All of it on Linux; elsewhere the closed pipe ends us, and nothing keeps us from the network.
    """
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_NOFILE, open_files)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if walls:
            _drop_capabilities(libc)
        # It may have died before we asked to be told.
        if os.getppid() != parent:
            os._exit(0)
        if walls:
            filter_calls(local_sockets=local_sockets)


def confine(files: Iterable[Path], *, has_gpu: bool) -> None:
    """From now on this thread and those that it starts read these files and what Python and its libraries run on.

    Drivers of a GPU keep their devices and local sockets. Raises OSError.
    """
    allow_only([*((file, READ) for file in files), *_machine_rules(has_gpu=has_gpu), *_python_rules()])
    if not has_gpu:
        filter_calls(local_sockets=False)


def libraries_only() -> int | None:
    """A ruleset of what `confine` allows without files and a GPU, for many children; None where there is none."""
    return ruleset([*_machine_rules(has_gpu=False), *_python_rules()])


def limit_memory(address_space_bytes: int) -> None:
    """Beyond it allocations fail: in this process, and not by the kernel's choice of a victim."""
    _lower(resource.RLIMIT_AS, min(address_space_bytes, _MOST_BYTES))


def limit_processor(seconds: int) -> None:
    """Beyond it the kernel ends the process with SIGXCPU."""
    # At the hard limit it would be SIGKILL, which says nothing about the cause.
    _lower(resource.RLIMIT_CPU, seconds + 1)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _machine_rules(*, has_gpu: bool) -> Iterator[tuple[Path, int]]:
    for place in (*_SYSTEM, *_LINKER):
        yield Path(place), READ
    for place in ("/dev",) if has_gpu else _PLAIN_DEVICES:
        yield Path(place), USE
    if has_gpu:
        for place in _DRIVERS:
            yield Path(place), READ
        yield from ((path, READ) for path in Path("/opt").glob("rocm-*"))
    for place in os.environ.get("LD_LIBRARY_PATH", "").split(":"):
        if place.startswith("/"):
            yield Path(place), READ


def _python_rules() -> Iterator[tuple[Path, int]]:
    """The interpreter and what can be imported. Of a source tree only the packages: a node's home may lie in it."""
    root = Path(__file__).resolve().parents[2]
    for place in {sys.prefix, sys.base_prefix, sys.exec_prefix, *sys.path}:
        path = Path(place)
        if path.is_absolute() and path != Path("/") and path.resolve() != root:
            yield path, READ
    yield root, READ if root.name in ("site-packages", "dist-packages") else LIST
    yield root / "ryvion_node", READ


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    # Effective, permitted and inheritable, the first 32 of each and then the rest.
    held = (ctypes.c_uint32 * 6)()
    libc.capget(header, held)
    libc.capset(header, (ctypes.c_uint32 * 6)(held[0] & _KEPT_CAPABILITIES, held[1] & _KEPT_CAPABILITIES))


def _lower(kind: int, value: int) -> None:
    _soft, hard = resource.getrlimit(kind)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


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
