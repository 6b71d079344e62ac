"""The system-call filter's program, run by a small interpreter: both machines are checked on either."""

from __future__ import annotations

import errno
from collections.abc import Sequence

import pytest

from ryvion_node.walls.seccomp import _MACHINES, Instruction, _Machine, _program

ALLOWED = "allowed"
BOTH = pytest.mark.parametrize("machine", _MACHINES.values(), ids=_MACHINES)
UNIX, INET, INET6, NETLINK = 1, 2, 10, 16
THREAD_FLAGS, FORK_FLAGS = 0x3D0F00, 17
PID = 4711
EVERYBODY = -1


def decide(code: Sequence[Instruction], audit: int, number: int, argument: int = 0) -> str:
    """What the kernel does with a call: allow it, or answer with an error."""
    words = {0: number, 4: audit, 16: argument & 0xFFFFFFFF}
    at, word = 0, 0
    while True:
        operation, when_true, when_false, operand = code[at]
        at += 1
        match operation:
            case 0x20:
                word = words[operand]
            case 0x15:
                at += when_true if word == operand else when_false
            case 0x35:
                at += when_true if word >= operand else when_false
            case 0x45:
                at += when_true if word & operand else when_false
            case 0x06:
                return ALLOWED if operand == 0x7FFF0000 else errno.errorcode[operand & 0xFFFF]
            case other:
                raise AssertionError(other)


@BOTH
def test_what_is_denied_and_what_is_not(machine: _Machine) -> None:
    code = _program(machine, PID, local_sockets=True)
    for number in machine.denied:
        assert decide(code, machine.audit, number) == "EPERM"
    for family in (INET, INET6, NETLINK):
        assert decide(code, machine.audit, machine.socket, family) == "EPERM"
        # The kernel reads an int: high bits change nothing.
        assert decide(code, machine.audit, machine.socket, family | 1 << 32) == "EPERM"
    assert decide(code, machine.audit, machine.socket, UNIX) == ALLOWED
    assert decide(code, machine.audit, machine.clone, THREAD_FLAGS) == ALLOWED
    assert decide(code, machine.audit, machine.clone, FORK_FLAGS) == "EPERM"
    assert decide(code, machine.audit, machine.clone3) == "ENOSYS"
    for number in machine.on_itself:
        assert decide(code, machine.audit, number, PID) == decide(code, machine.audit, number, 0) == ALLOWED
        for other in (1, PID - 1, -PID, EVERYBODY):
            assert decide(code, machine.audit, number, other) == "EPERM"
    special = {*machine.denied, machine.socket, machine.clone, machine.clone3}
    assert all(decide(code, machine.audit, number) == ALLOWED for number in range(500) if number not in special)


@BOTH
def test_without_a_gpu_there_is_no_socket(machine: _Machine) -> None:
    code = _program(machine, PID, local_sockets=False)
    for family in range(64):
        assert decide(code, machine.audit, machine.socket, family) == "EPERM"
    assert decide(code, machine.audit, machine.clone, THREAD_FLAGS) == ALLOWED


@BOTH
@pytest.mark.parametrize("number", [0, 1, 41, 198])
def test_calls_of_another_machine_are_denied(machine: _Machine, number: int) -> None:
    """A 64-bit process may also make 32-bit calls, which have other numbers."""
    code = _program(machine, PID, local_sockets=True)
    assert decide(code, 0x40000003, number) == "EPERM"
    assert decide(code, 0x40000028, number) == "EPERM"
    assert decide(code, machine.audit, 0x40000000 | number) == "EPERM"
