"""`ryvion-node route`: hold the quote round for a job and explain the choice, without running the job."""

from __future__ import annotations

from typing import Any

import click

from ryvion_node.cli.control_client import call_node
from ryvion_node.cli.options import home_option, json_option
from ryvion_node.cli.output import credits_text, price_text, print_json, print_table, short_key
from ryvion_node.cli.preferences import given_preferences, preference_options
from ryvion_node.paths import Paths

COLUMNS = ("Node", "Where", "Runs on", "In", "Out", "First token", "Cost", "Score", "Outcome")
EPILOG = """\b
Examples:
  ryvion-node route ryvion-tiny
  ryvion-node route ryvion-tiny --jurisdiction EU
  ryvion-node route ryvion-tiny --jurisdiction CA,DE --max-price 0.001 --json
  ryvion-node route ryvion-tiny --sort latency --quantisation Q8_0 --feature json_schema
"""


@click.command(epilog=EPILOG)
@click.argument("model")
@click.option("--jurisdiction", metavar="XX", help="Only nodes there: codes such as CA,DE, or a group such as EU.")
@preference_options
@click.option(
    "--feature", multiple=True, metavar="NAME", help="Only executors with this feature; give it once for each."
)
@home_option
@json_option
def route(
    model: str, jurisdiction: str | None, feature: tuple[str, ...], paths: Paths, as_json: bool, **options: Any
) -> None:
    """Explain which node would run a job for MODEL, and why.

    The node that runs here asks the best peers for a quote, as for a real job, and chooses. No prompt is sent and
    nothing is spent. Exits 1 when nobody can take the job.
    """
    order: dict[str, object] = {"model": model, "ryvion": given_preferences(options)}
    if jurisdiction is not None:
        order["jurisdiction"] = jurisdiction
    if feature:
        order["features"] = list(feature)
    decision = call_node(paths, "POST", "/api/v1/route", order)
    assert isinstance(decision, dict)
    if as_json:
        print_json(decision)
    else:
        print_decision(decision)
    if decision["winner"] is None:
        raise click.exceptions.Exit(1)


def print_decision(decision: dict[str, Any]) -> None:
    """A route as a table with the explanation under it."""
    where = f" in {', '.join(decision['jurisdictions'])}" if decision["jurisdictions"] else ""
    sort = "" if decision["sort"] == "balanced" else f" by {decision['sort']}"
    title = f"{decision['model']}{where}: decided{sort} in {decision['decided_ms']} ms"
    rows = [_row(candidate) for candidate in decision["candidates"]]
    if rows:
        print_table(title, COLUMNS, rows, right=("In", "Out", "First token", "Cost", "Score"))
    else:
        click.echo(title)
    for candidate in decision["candidates"]:
        click.echo(
            f"{short_key(candidate['node_key'])} {candidate['outcome'].replace('_', ' ')}: {candidate['reason']}"
        )
    if decision["winner"] is None:
        click.echo(decision["explanation"])


def _row(candidate: dict[str, Any]) -> tuple[str, ...]:
    first_token_ms, cost, score = candidate["first_token_ms"], candidate["expected_cost"], candidate["score"]
    return (
        short_key(candidate["node_key"]),
        f"{candidate['jurisdiction']} {candidate['location']}".strip(),
        candidate["hardware"]["name"] or candidate["hardware"]["backend"],
        price_text(candidate["price_in"]),
        price_text(candidate["price_out"]),
        "-" if first_token_ms is None else f"{first_token_ms} ms",
        "-" if cost is None else credits_text(cost),
        "-" if score is None else f"{score:.2f}",
        candidate["outcome"].replace("_", " "),
    )
