"""The command group. It knows each subcommand by name and one line only: `--help` imports none of them."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

import click

from ryvion_node import __version__


@dataclass(frozen=True, slots=True)
class Subcommand:
    """Where a subcommand lives (`module:attribute`) and what the overview says of it."""

    target: str
    summary: str


SUBCOMMANDS: dict[str, Subcommand] = {
    "up": Subcommand("ryvion_node.cli.up:up", "Run a node: sell answers, buy them, or both."),
    "demo": Subcommand("ryvion_node.cli.demo.command:demo", "Watch a whole market do its job on this machine."),
    "offers": Subcommand("ryvion_node.cli.offers:offers", "Show what is for sale, as this node hears it."),
    "route": Subcommand("ryvion_node.cli.route:route", "Explain which node would run a job, without running it."),
    "receipts": Subcommand(
        "ryvion_node.cli.receipts:receipts", "List, show, export, prove and verify signed receipts."
    ),
    "keys": Subcommand("ryvion_node.cli.keys:keys", "Create, list and revoke keys for the local endpoint."),
    "kb": Subcommand("ryvion_node.cli.kb.command:kb", "Fill and search knowledge bases, and see what left."),
    "models": Subcommand("ryvion_node.cli.models.command:models", "List, fetch, add, check and remove models."),
    "bench": Subcommand("ryvion_node.cli.bench:bench", "Measure how fast this machine serves its models."),
    "locate": Subcommand("ryvion_node.cli.locate:locate", "Say where this node keeps its things."),
    "doctor": Subcommand("ryvion_node.cli.doctor.command:doctor", "Look for what is wrong, and say how to mend it."),
}

EPILOG = """\b
First steps:
  ryvion-node demo                       watch it work, nothing to configure
  ryvion-node keys create                a key for your OpenAI client
  ryvion-node up --proxy                 buy: endpoint on http://127.0.0.1:7986/v1
  ryvion-node up --serve ryvion-tiny --jurisdiction DE --price-out 0.20
                                         sell: other nodes send you jobs
  ryvion-node kb create notes            answers from your own documents

Results go to stdout and diagnostics to stderr; most commands take --json.
"""


class LazyGroup(click.Group):
    """A group that imports a subcommand's module only when that subcommand is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in SUBCOMMANDS:
            return None
        module_name, attribute = SUBCOMMANDS[cmd_name].target.split(":")
        command = getattr(importlib.import_module(module_name), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, subcommand.summary) for name, subcommand in SUBCOMMANDS.items()])


@click.group(
    cls=LazyGroup,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "-V", "--version", message="ryvion-node %(version)s")
def cli() -> None:
    """A node of the Ryvion compute market.

    Nodes with a GPU or a CPU to spare sell answers of language models; other nodes buy them through an endpoint
    that speaks OpenAI's API. Every answer comes with a receipt that the seller signed and the buyer checked.
    """
