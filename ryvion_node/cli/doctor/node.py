"""Doctor's look at this node's own things: configuration, key, ledger, knowledge bases, ports, peers."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ryvion_node.cli.doctor.finding import Finding, fail, ok, warn
from ryvion_node.cli.output import counted
from ryvion_node.errors import OperatorError
from ryvion_node.paths import FileMissing, Paths, make_private_folder, read_private_file

if TYPE_CHECKING:
    from ryvion_node.config import NodeConfig

DIAL_TIMEOUT_S = 3.0
MAX_KEYS_BYTES = 16 * 1024 * 1024


def examine_config(paths: Paths) -> tuple[Finding, NodeConfig | None]:
    """The configuration file, when there is one."""
    from ryvion_node.config import load_config

    if not paths.config_file.exists():
        return ok("config", f"no {paths.config_file}; the defaults hold"), load_config(None)
    try:
        config = load_config(paths.config_file)
    except OperatorError as exc:
        return fail("config", str(exc), "docs/configuration.md lists every key"), None
    return ok("config", str(paths.config_file)), config


def examine_node(paths: Paths, config: NodeConfig) -> Iterator[Finding]:
    """Everything that belongs to the node."""
    from ryvion_node.ledger.database import is_held

    yield _home(paths)
    yield _identity(paths)
    yield _keys(paths)
    yield from _ledger(paths)
    yield _knowledge(paths)
    running = is_held(paths.ledger_file)
    yield ok("node", "running" if running else "not running")
    yield from _ports(config, running=running)
    yield from _bootstrap(config)


def _home(paths: Paths) -> Finding:
    if not paths.home.exists():
        return ok("home", f"{paths.home} is not there yet; the first start makes it")
    try:
        make_private_folder(paths.home)
    except OperatorError as exc:
        return fail("home", str(exc), f"chmod 700 {paths.home}")
    return ok("home", f"{paths.home} is private")


def _identity(paths: Paths) -> Finding:
    from ryvion_node.identity import load_identity
    from ryvion_node.p2p.peer_id import peer_id_of

    try:
        identity = load_identity(paths.identity_file)
    except FileMissing:
        return ok("identity", "no key yet; the first start makes it")
    except OperatorError as exc:
        return fail("identity", str(exc), f"chmod 600 {paths.identity_file}, or put a backup back")
    return ok("identity", f"peer id {peer_id_of(identity.public_key)}, key file is private")


def _keys(paths: Paths) -> Finding:
    try:
        read_private_file(paths.keys_file, MAX_KEYS_BYTES)
    except FileMissing:
        return ok("api keys", "none yet; `ryvion-node keys create` makes one")
    except OperatorError as exc:
        return fail("api keys", str(exc), f"chmod 600 {paths.keys_file}")
    return ok("api keys", f"{paths.keys_file} is private")


def _ledger(paths: Paths) -> Iterator[Finding]:
    from ryvion_node.ledger.database import sqlite_warning
    from ryvion_node.ledger.errors import LedgerMissing
    from ryvion_node.ledger.reader import read_ledger

    old_sqlite = sqlite_warning()
    if old_sqlite is not None:
        yield warn("sqlite", old_sqlite, "a newer Python brings a newer SQLite")
    try:
        with read_ledger(paths.ledger_file) as ledger:
            damage = ledger.find_damage()
    except LedgerMissing:
        yield ok("ledger", "none yet; the first start makes it")
        return
    except OperatorError as exc:
        yield fail("ledger", str(exc), "the message says what to do")
        return
    if damage is not None:
        yield fail(
            "ledger",
            f"{paths.ledger_file} is damaged: {damage}",
            "stop the node, keep the file, put a backup in its place",
        )
        return
    yield ok("ledger", f"{paths.ledger_file} is whole")


def _knowledge(paths: Paths) -> Finding:
    from ryvion_node.knowledge.errors import KnowledgeMissing
    from ryvion_node.knowledge.reader import read_knowledge

    subject, path = "knowledge bases", paths.knowledge_file
    try:
        with read_knowledge(path) as view:
            damage, bases = view.find_damage(), view.knowledge_bases()
    except KnowledgeMissing:
        return ok(subject, "none yet; a node with an endpoint keeps them")
    except OperatorError as exc:
        return fail(subject, str(exc), "the message says what to do")
    if damage is not None:
        mend = "stop the node, keep the file, put a backup in its place"
        return fail(subject, f"{path} is damaged: {damage}", mend)
    return ok(subject, f"{path} is whole and has {counted(len(bases), 'knowledge base')}")


def _ports(config: NodeConfig, *, running: bool) -> Iterator[Finding]:
    wanted = [("peer port", *_host_and_port(address), "--listen") for address in config.node.listen]
    if config.proxy.enabled:
        wanted.append(("endpoint port", config.proxy.host, config.proxy.port, "--proxy-port"))
    for subject, host, port, flag in wanted:
        problem = _bind_problem(host, port)
        if problem is None:
            yield ok(subject, f"{host}:{port} is free")
        elif running:
            yield ok(subject, f"{host}:{port} is in use; a node of this home is running")
        else:
            yield fail(
                subject, f"{host}:{port}: {problem}", f"stop the program that has it, or choose another with {flag}"
            )


def _host_and_port(multiaddr: str) -> tuple[str, int]:
    from ryvion_node.p2p.peer_id import BadAddress, parse_address

    try:
        address = parse_address(multiaddr)
    except BadAddress:
        return multiaddr, -1
    return address.host, address.port


def _bind_problem(host: str, port: int) -> str | None:
    """Why the port cannot be listened on, or None. It is let go at once."""
    if port < 0:
        return "not an address of the form /ip4/<ip>/tcp/<port>"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as exc:
        return "taken by another program" if exc.errno == errno.EADDRINUSE else (exc.strerror or str(exc)).lower()
    return None


def _bootstrap(config: NodeConfig) -> Iterator[Finding]:
    if not config.node.bootstrap:
        yield warn(
            "bootstrap",
            "no bootstrap node, so this node meets nobody by itself",
            "set [node] bootstrap, or use --bootstrap",
        )
    for multiaddr in config.node.bootstrap:
        host, port = _host_and_port(multiaddr)
        try:
            socket.create_connection((host, port), DIAL_TIMEOUT_S).close()
        except (OSError, OverflowError) as exc:
            yield warn(
                "bootstrap",
                f"{multiaddr} does not answer ({exc})",
                "check the address and your firewall; other nodes may still be met",
            )
        else:
            yield ok("bootstrap", f"{multiaddr} answers")
