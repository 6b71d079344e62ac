"""`ryvion-node keys`: who may use the local endpoint, and for how much."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from ryvion_node.cli.limits import UNLIMITED, GivenLimit, given_limits, limit_options
from ryvion_node.cli.options import home_option, json_option
from ryvion_node.cli.output import credits_text, print_json, print_table, time_text
from ryvion_node.paths import Paths

if TYPE_CHECKING:
    from ryvion_node.keys import ApiKey, Scope
    from ryvion_node.ledger.spending import Spending

SCOPES = ("buyer", "read-only", "write-only", "operator")
COLUMNS = ("Id", "Name", "Scope", "Only in", "Last hour", "Today", "In total", "Requests", "Created")


@click.group()
def keys() -> None:
    """Create, list, limit and revoke keys for the local endpoint.

    OpenAI clients send a key with every request. The node stores only its hash, and notices changes while it runs.
    """


@keys.command(
    epilog="\b\nExamples:\n  ryvion-node keys create laptop\n  ryvion-node keys create dashboard --scope read-only\n  ryvion-node keys create agent --budget-day 2 --budget-total 50\n  export OPENAI_API_KEY=$(ryvion-node keys create ci --jurisdiction EU)"
)
@click.argument("name", default="default")
@click.option("--scope", type=click.Choice(SCOPES), default="buyer", show_default=True, help="What the key may do.")
@click.option(
    "--jurisdiction", default="", metavar="XX", help="Buy only there: codes such as CA,DE, or a group such as EU."
)
@limit_options(with_defaults=True)
@home_option
@json_option
def create(
    name: str, scope: Scope, jurisdiction: str, paths: Paths, as_json: bool, **limits: GivenLimit | None
) -> None:
    """Make a key and print it, alone on stdout. It is shown this once.

    NAME is for you, to tell keys apart. Scopes: buyer lists models, buys, and reads receipts; read-only does all of
    that but buy; write-only does not read receipts; operator may do everything. Every limit also takes the word
    `unlimited`.
    """
    from ryvion_node.jurisdictions import JurisdictionUnknown
    from ryvion_node.keys import KeyLimits, KeyStore

    try:
        key, token = KeyStore(paths.keys_file).create(name, scope, jurisdiction, KeyLimits(**given_limits(limits)))
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
    """List the keys there are, with what they have spent of what they may; the keys themselves are not stored."""
    from ryvion_node.keys import KeyStore

    found = KeyStore(paths.keys_file).list_keys()
    spending = _spending(paths, found)
    if as_json:
        print_json({"keys": [_key_json(key) | _spending_json(key, spending[key.id]) for key in found]})
    elif not found:
        click.echo("No keys yet. Make one with: ryvion-node keys create", err=True)
    else:
        title = f"{len(found)} keys; credits that their jobs cost, and limits"
        print_table(title, COLUMNS, [_row(key, spending[key.id]) for key in found])


@keys.command(
    "set",
    epilog="\b\nExamples:\n  ryvion-node keys set key-1f0c9a2e --budget-day 5\n  ryvion-node keys set key-1f0c9a2e --velocity unlimited",
)
@click.argument("key_id", metavar="ID")
@limit_options(with_defaults=False)
@home_option
@json_option
def set_command(key_id: str, paths: Paths, as_json: bool, **limits: GivenLimit | None) -> None:
    """Change limits of a key; those not given stay. It holds from the next request on.

    Every limit also takes the word `unlimited`. What the key has spent already counts.
    """
    from ryvion_node.keys import KeyStore

    changes = given_limits(limits)
    if not changes:
        raise click.UsageError("Give at least one limit to change, such as --budget-day 5.")
    key = KeyStore(paths.keys_file).change(key_id, changes)
    spent = _spending(paths, (key,))[key.id]
    if as_json:
        print_json(_key_json(key) | _spending_json(key, spent))
    else:
        print_table(f"{key.id} ({key.name})", COLUMNS, [_row(key, spent)])


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


def _spending(paths: Paths, found: tuple[ApiKey, ...]) -> dict[str, Spending]:
    """What each key has spent; nothing before the node's first start, or before it has brought its ledger up to date."""
    from ryvion_node.ledger.errors import LedgerMissing, LedgerTooOld
    from ryvion_node.ledger.reader import read_ledger
    from ryvion_node.ledger.spending import Spending

    now_ms = time.time_ns() // 1_000_000
    try:
        with read_ledger(paths.ledger_file) as ledger:
            return {key.id: ledger.spending(key.id, now_ms) for key in found}
    except (LedgerMissing, LedgerTooOld):
        return {key.id: Spending() for key in found}


def _key_json(key: ApiKey) -> dict[str, object]:
    limits = asdict(key.limits)
    money = ("budget_day", "budget_total", "velocity")
    return {
        "id": key.id,
        "name": key.name,
        "scope": key.scope,
        "jurisdictions": list(key.jurisdictions),
        "created_ms": key.created_ms,
        "limits": {f"{name}_microcredits" if name in money else name: value for name, value in limits.items()},
    }


def _spending_json(key: ApiKey, spent: Spending) -> dict[str, object]:
    from ryvion_node.ledger.spending import left

    return {"spent_microcredits": asdict(spent), "left_microcredits": left(key.limits.allowance, spent)}


def _row(key: ApiKey, spent: Spending) -> tuple[str, ...]:
    limits = key.limits
    return (
        key.id,
        key.name,
        key.scope,
        ", ".join(key.jurisdictions) or "anywhere",
        _of(spent.hour, limits.velocity),
        _of(spent.day, limits.budget_day),
        _of(spent.total, limits.budget_total),
        f"{_count(limits.requests_per_minute)}/min, {_count(limits.jobs_at_once)} at once",
        time_text(key.created_ms),
    )


def _of(spent: int, limit: int | None) -> str:
    return credits_text(spent) if limit is None else f"{credits_text(spent)} of {credits_text(limit)}"


def _count(limit: int | None) -> str:
    return UNLIMITED if limit is None else str(limit)
