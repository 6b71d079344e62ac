"""Listening addresses: is the port free, and what do others dial when we listen on every interface?"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable

from ryvion_node.errors import EXIT_UNAVAILABLE, OperatorError
from ryvion_node.p2p.peer_id import TcpAddress

_FAMILY = {"ip4": socket.AF_INET, "ip6": socket.AF_INET6}
_ANY = {"ip4": "0.0.0.0", "ip6": "::"}
_LOOPBACK = {"ip4": "127.0.0.1", "ip6": "::1"}
_ELSEWHERE = {"ip4": "192.0.2.1", "ip6": "2001:db8::1"}
"""Documentation addresses (RFC 5737, 3849): asking for the way there sends nothing."""


class PortTaken(OperatorError):
    """Port {port} on {host} is taken by another program (perhaps another ryvion-node).

    Stop that program, or choose another port with --listen {example}, or port 0 for any free one."""

    exit_code = EXIT_UNAVAILABLE


class CannotListen(OperatorError):
    """Cannot listen on {address}: {reason}. Name an address of this machine with --listen, or /ip4/0.0.0.0/tcp/7987
    for every interface."""

    exit_code = EXIT_UNAVAILABLE


def check_free(addresses: Iterable[TcpAddress]) -> None:
    """Raise PortTaken or CannotListen, because the library would share a taken port without a word."""
    for address in addresses:
        family = _FAMILY.get(address.family)
        if family is None:
            raise CannotListen(address=address, reason="it is a name, not an IP address")
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((address.host, address.port))
        except OSError as exc:
            if exc.errno == errno.EADDRINUSE:
                example = TcpAddress(address.family, address.host, address.port + 1, None)
                raise PortTaken(port=address.port, host=address.host, example=example) from exc
            raise CannotListen(address=address, reason=exc.strerror or str(exc)) from exc


def dialable(bound: TcpAddress) -> list[TcpAddress]:
    """The addresses others can use for one that we are bound to: itself, or ours if it stands for all interfaces."""
    if bound.host != _ANY.get(bound.family):
        return [bound]
    hosts = dict.fromkeys((_outward_host(bound.family), _LOOPBACK[bound.family]))
    return [TcpAddress(bound.family, host, bound.port, None) for host in hosts if host]


def _outward_host(family: str) -> str:
    """Our address on the way to the rest of the world; empty when there is no such way."""
    try:
        with socket.socket(_FAMILY[family], socket.SOCK_DGRAM) as probe:
            probe.connect((_ELSEWHERE[family], 9))
            return str(probe.getsockname()[0])
    except OSError:
        return ""
