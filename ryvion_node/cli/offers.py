"""`ryvion-node offers`: the offers that the running node has heard and that still hold."""

from __future__ import annotations

from typing import Any

import click

from ryvion_node.cli.control_client import call_node
from ryvion_node.cli.options import home_option, json_option
from ryvion_node.cli.output import price_text, print_json, print_table, short_key, speed_text
from ryvion_node.paths import Paths

COLUMNS = ("Model", "Node", "Where", "Runs on", "In", "Out", "Speed", "Slots", "Context")


@click.command(epilog="\b\nExamples:\n  ryvion-node offers\n  ryvion-node offers --model ryvion-tiny --json")
@home_option
@json_option
@click.option("--model", help="Only offers of this model.")
def offers(paths: Paths, as_json: bool, model: str | None) -> None:
    """Show what is for sale, as the node that runs here hears it: newest first, one line per model and node.

    Prices are credits per million tokens, In for the prompt and Out for the answer. Slots are free of total.
    """
    heard = [_narrowed(offer, model) for offer in fetch_offers(paths)]
    heard = [offer for offer in heard if offer["models"]]
    if as_json:
        print_json({"offers": heard})
        return
    rows = [_row(offer, entry) for offer in heard for entry in offer["models"]]
    if not rows:
        click.echo(
            "No offers heard yet. A node that just started hears them within a minute of meeting a peer.", err=True
        )
        return
    print_table(f"{len(rows)} offers", COLUMNS, rows, right=("In", "Out", "Speed", "Slots", "Context"))


def fetch_offers(paths: Paths) -> list[dict[str, Any]]:
    """The book of the running node, as JSON."""
    answer = call_node(paths, "GET", "/api/v1/offers")
    assert isinstance(answer, dict)
    return list(answer["offers"])


def _narrowed(offer: dict[str, Any], model: str | None) -> dict[str, Any]:
    return offer | {"models": [entry for entry in offer["models"] if model in (None, entry["name"])]}


def _row(offer: dict[str, Any], model: dict[str, Any]) -> tuple[str, ...]:
    place = f"{offer['jurisdiction']} {offer['location']}".strip()
    return (
        model["name"],
        short_key(offer["node_key"]),
        place,
        offer["hardware"]["name"] or offer["hardware"]["backend"],
        price_text(model["price_in"]),
        price_text(model["price_out"]),
        speed_text(model["millitokens_per_s"]),
        f"{model['slots_free']}/{model['slots_total']}",
        str(model["context_tokens"]),
    )
