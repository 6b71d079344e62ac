"""Doctor's look at the engines of others that this node sells from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ryvion_node.cli.doctor.finding import Finding, fail, ok, warn
from ryvion_node.errors import OperatorError

if TYPE_CHECKING:
    from ryvion_node.config import NodeConfig
    from ryvion_node.engine.remote.spec import RemoteSpec

ANSWER_TIMEOUT_S = 5.0


def examine_engines(config: NodeConfig) -> Iterator[Finding]:
    """Does each server answer, take the key, and have the model?"""
    if not config.executor.remote_models:
        return
    from ryvion_node.library.remotes import remote_specs

    try:
        specs = remote_specs(config, {})
    except OperatorError as exc:
        yield fail("other engine", str(exc), "docs/engines.md says how it is written")
        return
    for spec in specs:
        yield _look(spec)


def _look(spec: RemoteSpec) -> Finding:
    import trio

    from ryvion_node.engine.remote.connections import ServerLost, ServerSlow
    from ryvion_node.engine.remote.http import HttpServer
    from ryvion_node.engine.remote.key import load_key
    from ryvion_node.engine.remote.probe import Unusable, find_model
    from ryvion_node.engine.remote.spec import parse_url

    try:
        key = load_key(spec)
    except OperatorError as exc:
        return fail("other engine", str(exc), "the message says what to do")
    server = HttpServer(parse_url(spec.url), key, connect_s=ANSWER_TIMEOUT_S, answer_s=ANSWER_TIMEOUT_S)
    try:
        listed = trio.run(find_model, server, spec)
    except Unusable as exc:
        return fail("other engine", f"{spec.name}: {exc}", "correct its [[executor.remote_models]] table")
    except (ServerLost, ServerSlow) as exc:
        return warn(
            "other engine", f"{spec.name}: {exc}", "start the engine, or correct the URL; it is offered once it answers"
        )
    return ok("other engine", f"{spec.name}: {server.address} serves it as {listed.served_as}")
