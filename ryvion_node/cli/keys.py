"""`ryvion-node keys`: who may use the local endpoint, and for how much."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from ryvion_node.cli.limits import UNLIMITED, given_limits, limit_options
from ryvion_node.cli.options import home_option, json_option
from ryvion_node.cli.output import credits_text, print_json, print_table, time_text
from ryvion_node.cli.preferences import given_preferences, preference_options, preferences_text
from ryvion_node.paths import Paths
from ryvion_node.preferences import KNOWLEDGE_ASSURANCES

if TYPE_CHECKING:
    from ryvion_node.keys import ApiKey, Scope
    from ryvion_node.ledger.spending import Spending
    from ryvion_node.preferences import KnowledgeAssurance

SCOPES = ("buyer", "read-only", "write-only", "operator")
COLUMNS = ("Id", "Name", "Scope", "Only in", "Last hour", "Today", "In total", "Requests", "Created")


assurance_option = click.option(
    "--knowledge-assurance",
    type=click.Choice(KNOWLEDGE_ASSURANCES),
    help="Nodes that get passages of knowledge bases: signed (any), count-checked (as with --min-assurance), or never.",
)


@click.group()
def keys() -> None:
    """Create, list, limit and revoke keys for the local endpoint.

    OpenAI clients send a key with every request. The node stores only its hash, and notices changes while it runs.
    """


@keys.command(
    epilog="\b\nExamples:\n  ryvion-node keys create laptop\n  ryvion-node keys create dashboard --scope read-only\n  ryvion-node keys create agent --budget-day 2 --budget-total 50\n  ryvion-node keys create bulk --sort price --max-price 0.01 --quantisation Q8_0\n  export OPENAI_API_KEY=$(ryvion-node keys create ci --jurisdiction EU)"
)
@click.argument("name", default="default")
@click.option("--scope", type=click.Choice(SCOPES), default="buyer", show_default=True, help="What the key may do.")
@click.option("--jurisdiction", metavar="XX", help="Buy only there: codes such as CA,DE, or a group such as EU.")
@limit_options(with_defaults=True)
@preference_options
@assurance_option
@home_option
@json_option
def create(
    name: str,
    scope: Scope,
    jurisdiction: str | None,
    knowledge_assurance: KnowledgeAssurance | None,
    paths: Paths,
    as_json: bool,
    **options: Any,
) -> None:
    """Make a key and print it, alone on stdout. It is shown this once.

    NAME is for you, to tell keys apart. Scopes: buyer lists models, buys, and reads receipts; read-only does all of
    that but buy; write-only does not read receipts; operator may do everything. Every limit also takes the word
    `unlimited`.

    --sort to --min-assurance say whom the key buys from. A request may narrow that, never widen it.
    --knowledge-assurance says who may get passages of your knowledge bases on top of that.
    """
    from ryvion_node.jurisdictions import JurisdictionUnknown
    from ryvion_node.keys import KeyLimits, KeyStore
    from ryvion_node.preferences_object import PreferencesObject

    limits = KeyLimits(**given_limits(options))
    preferences = PreferencesObject.model_validate(given_preferences(options)).values()
    try:
        key, token = KeyStore(paths.keys_file).create(
            name, scope, jurisdiction, limits, preferences, knowledge_assurance or "signed"
        )
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
        _print_keys(f"{len(found)} keys; credits that their jobs cost, and limits", found, spending)


@keys.command(
    "set",
    epilog="\b\nExamples:\n  ryvion-node keys set key-1f0c9a2e --budget-day 5\n  ryvion-node keys set key-1f0c9a2e --velocity unlimited\n  ryvion-node keys set key-1f0c9a2e --sort latency --deny 12D3KooW... --quantisation unset",
)
@click.argument("key_id", metavar="ID")
@limit_options(with_defaults=False)
@preference_options
@assurance_option
@home_option
@json_option
def set_command(
    key_id: str, knowledge_assurance: KnowledgeAssurance | None, paths: Paths, as_json: bool, **options: Any
) -> None:
    """Change limits of a key, or whom it buys from; what is not given stays. It holds from the next request on.

    Every limit, and --max-price, also takes the word `unlimited`. What the key has spent already counts. --allow,
    --deny, --digest and --quantisation replace the list that was there, or end it with the word `unset`.
    """
    from ryvion_node.keys import KeyStore

    limits, preferences = given_limits(options), given_preferences(options)
    if not limits and not preferences and knowledge_assurance is None:
        raise click.UsageError("Give at least one thing to change, such as --budget-day 5.")
    key = KeyStore(paths.keys_file).change(key_id, limits, preferences, knowledge_assurance)
    spending = _spending(paths, (key,))
    if as_json:
        print_json(_key_json(key) | _spending_json(key, spending[key.id]))
    else:
        _print_keys(f"{key.id} ({key.name})", (key,), spending)


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


def _print_keys(title: str, found: tuple[ApiKey, ...], spending: dict[str, Spending]) -> None:
    """A table, and under it whom keys buy from that may not buy from everybody alike."""
    from ryvion_node.preferences_object import preferences_object

    print_table(title, COLUMNS, [_row(key, spending[key.id]) for key in found])
    for key in found:
        if text := preferences_text(preferences_object(key.preferences)):
            click.echo(f"{key.id} buys: {text}")
        if key.knowledge_assurance != "signed":
            click.echo(f"{key.id} sends passages of knowledge bases to nodes: {key.knowledge_assurance}")


def _key_json(key: ApiKey) -> dict[str, object]:
    from ryvion_node.preferences_object import preferences_object

    limits = asdict(key.limits)
    money = ("budget_day", "budget_total", "velocity")
    return {
        "id": key.id,
        "name": key.name,
        "scope": key.scope,
        "jurisdictions": list(key.jurisdictions),
        "created_ms": key.created_ms,
        "limits": {f"{name}_microcredits" if name in money else name: value for name, value in limits.items()},
        "preferences": preferences_object(key.preferences),
        "knowledge_assurance": key.knowledge_assurance,
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
