"""`ryvion-node doctor`: look for what is wrong, and say how to mend it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict

import click

from ryvion_node.cli.doctor.finding import Finding
from ryvion_node.cli.options import home_option, json_option
from ryvion_node.cli.output import print_json
from ryvion_node.paths import Paths

STYLES = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command(epilog="\b\nExamples:\n  ryvion-node doctor\n  ryvion-node doctor --home ~/second-node --json")
@home_option
@json_option
def doctor(paths: Paths, as_json: bool) -> None:
    """Look for what is wrong with this computer and this node: one line each, with the mend.

    Looks at Python, compiler, engine, GPU devices, clock, configuration, key permissions, ledger, ports, bootstrap
    nodes, the models that are sold, and the engines of others that are sold from. Changes nothing; a node may run
    meanwhile. Exits 1 when anything fails; warnings do not count.
    """
    findings: list[Finding] = []
    for finding in examine(paths):
        findings.append(finding)
        if not as_json:
            _print(finding)
    failed = sum(finding.outcome == "fail" for finding in findings)
    if as_json:
        print_json({"ok": failed == 0, "findings": [asdict(finding) for finding in findings]})
    elif failed:
        click.echo(f"{failed} of {len(findings)} need mending.")
    sys.exit(1 if failed else 0)


def examine(paths: Paths) -> Iterator[Finding]:
    """Every finding, as soon as it is known."""
    from ryvion_node.cli.doctor.engines import examine_engines
    from ryvion_node.cli.doctor.machine import examine_machine
    from ryvion_node.cli.doctor.models import examine_models
    from ryvion_node.cli.doctor.node import examine_config, examine_node

    about_config, config = examine_config(paths)
    yield from examine_machine(sells=config is not None and config.executor.enabled)
    yield about_config
    if config is not None:
        yield from examine_node(paths, config)
        yield from examine_models(paths, config)
        yield from examine_engines(config)


def _print(finding: Finding) -> None:
    mark = click.style(f"{finding.outcome:<4}", fg=STYLES[finding.outcome])
    click.echo(f"{mark}  {finding.subject}: {finding.detail}")
    if finding.mend:
        click.echo(f"      mend: {finding.mend}")
