"""`ryvion-node locate`: where the node keeps its things, and who it is."""

from __future__ import annotations

from pathlib import Path

import click

from ryvion_node.cli.control_client import read_control_address
from ryvion_node.cli.options import home_option, json_option
from ryvion_node.cli.output import print_json
from ryvion_node.errors import OperatorError
from ryvion_node.paths import FileMissing, Paths


@click.command(epilog="\b\nExamples:\n  ryvion-node locate\n  ryvion-node locate --json --home ~/second-node")
@home_option
@json_option
def locate(paths: Paths, as_json: bool) -> None:
    """Say where this node keeps its key, ledger, API keys, knowledge bases and configuration, where it runs, and its peer id.

    Creates and changes nothing.
    """
    places = find_places(paths)
    if as_json:
        print_json(places)
        return
    width = max(map(len, places))
    for name, value in places.items():
        click.echo(f"{name.replace('_', ' '):<{width}}  {_shown(name, value)}")


def find_places(paths: Paths) -> dict[str, str | None]:
    """Name -> path, URL or id; None where there is none yet."""
    endpoint, log = _configured(paths)
    control = _control_url(paths)
    peer_id, node_key = _identity(paths)
    return {
        "home": str(paths.home),
        "config": str(paths.config_file),
        "identity": str(paths.identity_file),
        "ledger": str(paths.ledger_file),
        "keys": str(paths.keys_file),
        "knowledge": str(paths.knowledge_file),
        "answers": str(paths.answers_folder),
        "models": str(paths.models_folder),
        "log": log,
        "endpoint": endpoint if control is None else f"{control}/v1",
        "control": control,
        "peer_id": peer_id,
        "node_key": node_key,
    }


def _configured(paths: Paths) -> tuple[str | None, str | None]:
    """The endpoint's URL when the configuration serves one, and the log file."""
    from ryvion_node.config import load_config

    config = load_config(paths.config_file if paths.config_file.exists() else None)
    endpoint = f"http://{config.proxy.host}:{config.proxy.port}/v1" if config.proxy.enabled else None
    return endpoint, None if config.log.file is None else str(config.log.file)


def _identity(paths: Paths) -> tuple[str | None, str | None]:
    from ryvion_node.identity import load_identity
    from ryvion_node.p2p.peer_id import peer_id_of

    try:
        key = load_identity(paths.identity_file).public_key
    except FileMissing:
        return None, None
    return peer_id_of(key), key.hex()


def _control_url(paths: Paths) -> str | None:
    try:
        return read_control_address(paths).url
    except OperatorError:
        return None


def _shown(name: str, value: str | None) -> str:
    if value is None:
        return {
            "log": "standard error",
            "endpoint": "not configured (ryvion-node up --proxy)",
            "control": "no node is running",
        }.get(name, "not made yet (ryvion-node up makes it)")
    is_missing = value.startswith("/") and not Path(value).exists()
    return f"{value}  (not there yet)" if is_missing else value
