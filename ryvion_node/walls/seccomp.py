"""A system-call filter for a child: no network, no other program, no hand on other processes (Linux).

Whoever takes a child over through a damaged file has the owner's user id, so what counts is what a process of
that user could do elsewhere: connect, run a shell, read the node's memory, or end it. See seccomp(2) and
https://www.kernel.org/doc/html/latest/userspace-api/seccomp_filter.html.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_GET_SECCOMP: Final = 21
_SET_MODE_FILTER: Final = 1
_ALL_THREADS: Final = 1
_ALLOW: Final = 0x7FFF0000
_ERROR: Final = 0x00050000
_FOREIGN_CALLS: Final = 0x40000000
"""From here on x86-64 numbers its second, 32-bit set of calls."""
_CLONE_THREAD: Final = 0x00010000

# Classic BPF: load a word, jump if equal / at least / any bit set, return.
_LOAD: Final = 0x20
_EQUAL: Final = 0x15
_AT_LEAST: Final = 0x35
_ANY_BIT: Final = 0x45
_RETURN: Final = 0x06
_NUMBER_AT: Final = 0
_MACHINE_AT: Final = 4
_FIRST_ARGUMENT_AT: Final = 16


@dataclass(frozen=True, slots=True)
class _Machine:
    """Numbers of one architecture."""

    audit: int
    seccomp: int
    socket: int
    clone: int
    clone3: int
    on_itself: tuple[int, ...]
    """kill, tgkill, rt_sigqueueinfo, rt_tgsigqueueinfo, prlimit64: what a process may do to itself only. Libraries abort
    and read their limits so; a limit of 0 ends the node as well as a signal does."""
    denied: tuple[int, ...]
    """fork, vfork, execve, execveat, ptrace, process_vm_readv, process_vm_writev, pidfd_getfd, pidfd_send_signal, tkill,
    bpf; and io_uring_setup, because a ring opens sockets past this filter."""


_MACHINES: Final = {
    "x86_64": _Machine(
        audit=0xC000003E,
        seccomp=317,
        socket=41,
        clone=56,
        clone3=435,
        on_itself=(62, 234, 129, 297, 302),
        denied=(57, 58, 59, 322, 101, 310, 311, 438, 424, 200, 321, 425),
    ),
    "aarch64": _Machine(
        audit=0xC00000B7,
        seccomp=277,
        socket=198,
        clone=220,
        clone3=435,
        on_itself=(129, 131, 138, 240, 261),
        denied=(221, 281, 117, 270, 271, 438, 424, 130, 280, 425),
    ),
}

Instruction = tuple[int, int, int, int]
"""Code, steps when true, steps when false, number."""


class _Filter(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8), ("k", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("filter", ctypes.POINTER(_Filter)))


def is_offered() -> bool:
    """Can this kernel filter calls, on a machine whose calls we know?"""
    return _machine() is not None and int(ctypes.CDLL(None).prctl(_GET_SECCOMP, 0, 0, 0, 0)) >= 0


def filter_calls(*, local_sockets: bool) -> bool:
    """Put the filter on all threads for good; False where there is none. Raises OSError.

    `local_sockets`: GPU drivers talk to their services over AF_UNIX; every other family is denied in any case.
    """
    machine = _machine()
    if machine is None:
        return False
    code = _program(machine, os.getpid(), local_sockets=local_sockets)
    instructions = (_Filter * len(code))(*(_Filter(*instruction) for instruction in code))
    program = _Program(len(code), instructions)
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.syscall(machine.seccomp, _SET_MODE_FILTER, _ALL_THREADS, ctypes.byref(program))
    if done == 0:
        return True
    failed = ctypes.get_errno()
    if failed in (errno.ENOSYS, errno.EINVAL, errno.EPERM):
        # The kernel was built without it, or a container keeps it back.
        return False
    raise OSError(failed, "the system-call filter could not be set")


def _machine() -> _Machine | None:
    if sys.platform != "linux" or sys.maxsize < 2**32:
        return None
    return _MACHINES.get(platform.machine())


def _program(machine: _Machine, pid: int, *, local_sockets: bool) -> Sequence[Instruction]:
    denied = (_RETURN, 0, 0, _ERROR | errno.EPERM)
    allowed = (_RETURN, 0, 0, _ALLOW)
    code: list[Instruction] = [
        (_LOAD, 0, 0, _MACHINE_AT),
        (_EQUAL, 1, 0, machine.audit),
        denied,
        (_LOAD, 0, 0, _NUMBER_AT),
        (_AT_LEAST, 0, 1, _FOREIGN_CALLS),
        denied,
    ]
    for number in machine.denied:
        code += [(_EQUAL, 0, 1, number), denied]
    for number in machine.on_itself:
        code += [(_EQUAL, 0, 5, number), (_LOAD, 0, 0, _FIRST_ARGUMENT_AT)]
        # 0 is itself for a limit; for a signal it is its process group, which it has alone.
        code += [(_EQUAL, 1, 0, 0), (_EQUAL, 0, 1, pid), allowed, denied]
    # Its flags lie in memory, where a filter cannot look; the C library then takes clone instead.
    code += [(_EQUAL, 0, 1, machine.clone3), (_RETURN, 0, 0, _ERROR | errno.ENOSYS)]
    # A thread, but no process.
    code += [
        (_EQUAL, 0, 4, machine.clone),
        (_LOAD, 0, 0, _FIRST_ARGUMENT_AT),
        (_ANY_BIT, 0, 1, _CLONE_THREAD),
        allowed,
        denied,
    ]
    family = int(socket.AF_UNIX) if local_sockets else 0xFFFFFFFF
    code += [(_EQUAL, 0, 4, machine.socket), (_LOAD, 0, 0, _FIRST_ARGUMENT_AT), (_EQUAL, 0, 1, family), allowed, denied]
    return [*code, allowed]
