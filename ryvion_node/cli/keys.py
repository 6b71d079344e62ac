"""`ryvion-node keys`: who may use the local endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ryvion_node.cli.options import home_option, json_option
from ryvion_node.cli.output import print_json, print_table, time_text
from ryvion_node.paths import Paths

if TYPE_CHECKING:
    from ryvion_node.keys import ApiKey, Scope

SCOPES = ("buyer", "read-only", "write-only", "operator")
COLUMNS = ("Id", "Name", "Scope", "Only in", "Created")


@click.group()
def keys() -> None:
    """Create, list and revoke keys for the local endpoint.

    OpenAI clients send a key with every request. The node stores only its hash, and notices changes while it runs.
    """


@keys.command(
    epilog="\b\nExamples:\n  ryvion-node keys create laptop\n  ryvion-node keys create dashboard --scope read-only\n  export OPENAI_API_KEY=$(ryvion-node keys create ci --jurisdiction EU)"
)
@click.argument("name", default="default")
@click.option("--scope", type=click.Choice(SCOPES), default="buyer", show_default=True, help="What the key may do.")
@click.option(
    "--jurisdiction", default="", metavar="XX", help="Buy only there: codes such as CA,DE, or a group such as EU."
)
@home_option
@json_option
def create(name: str, scope: Scope, jurisdiction: str, paths: Paths, as_json: bool) -> None:
    """Make a key and print it, alone on stdout. It is shown this once.

    NAME is for you, to tell keys apart. Scopes: buyer lists models, buys, and reads receipts; read-only does all of
    that but buy; write-only does not read receipts; operator may do everything.
    """
    from ryvion_node.jurisdictions import JurisdictionUnknown
    from ryvion_node.keys import KeyStore

    try:
        key, token = KeyStore(paths.keys_file).create(name, scope, jurisdiction)
    except JurisdictionUnknown as exc:
        raise click.BadParameter(str(exc), param_hint="--jurisdiction") from exc
    if as_json:
        print_json({**_key_json(key), "token": token})
        return
    click.echo(token)
    click.echo(f"{key.id} ({key.name}): keep the key, it is not shown again", err=True)


@keys.command("list", epilog="\b\nExamples:\n  ryvion-node keys list\n  ryvion-node keys list --json")
@home_option
@json_option
def list_command(paths: Paths, as_json: bool) -> None:
    """List the keys there are; the keys themselves are not stored."""
    from ryvion_node.keys import KeyStore

    found = KeyStore(paths.keys_file).list_keys()
    if as_json:
        print_json({"keys": [_key_json(key) for key in found]})
    elif not found:
        click.echo("No keys yet. Make one with: ryvion-node keys create", err=True)
    else:
        print_table(f"{len(found)} keys", COLUMNS, [_row(key) for key in found])


@keys.command(epilog="\b\nExample:\n  ryvion-node keys revoke key-1f0c9a2e")
@click.argument("key_id", metavar="ID")
@home_option
@json_option
def revoke(key_id: str, paths: Paths, as_json: bool) -> None:
    """Forget a key: the next request with it is refused. `keys list` shows the ids."""
    from ryvion_node.keys import KeyStore

    key = KeyStore(paths.keys_file).revoke(key_id)
    if as_json:
        print_json({"revoked": _key_json(key)})
    else:
        click.echo(f"revoked {key.id} ({key.name})")


def _key_json(key: ApiKey) -> dict[str, object]:
    return {
        "id": key.id,
        "name": key.name,
        "scope": key.scope,
        "jurisdictions": list(key.jurisdictions),
        "created_ms": key.created_ms,
    }


def _row(key: ApiKey) -> tuple[str, ...]:
    return key.id, key.name, key.scope, ", ".join(key.jurisdictions) or "anywhere", time_text(key.created_ms)
