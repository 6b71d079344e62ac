"""Draws docs/demo.svg, the picture in the README: runs the demo and keeps what it writes.

Request 2 and the stopping of the nodes are left out, so that the picture stays readable.
Usage: .venv/bin/python scripts/demo_picture.py
"""

from __future__ import annotations

import io
import re
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from ryvion_node.cli.demo.command import DEFAULT_MODEL, DEFAULT_PROMPTS
from ryvion_node.cli.demo.events import DemoEvent, NodeStopped, RequestSent, TextReceived
from ryvion_node.cli.demo.render import Renderer
from ryvion_node.cli.demo.scenario import Scenario

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "demo.svg"
WIDTH = 118


def main() -> None:
    """Run, draw, and fail when the demo did."""
    with tempfile.TemporaryDirectory(prefix="ryvion-demo-") as folder:
        scenario = Scenario(Path(folder), DEFAULT_MODEL, DEFAULT_PROMPTS)
        events: list[DemoEvent] = []
        try:
            events.extend(scenario.run())
        finally:
            events.extend(scenario.stop())
    if scenario.problems:
        sys.exit("; ".join(scenario.problems))
    PICTURE.write_text(draw(events), "utf-8")
    print(f"{PICTURE.name} written")


def draw(events: list[DemoEvent]) -> str:
    """The picture, with the reader's own monospaced font: nothing in it is fetched from elsewhere."""
    console = Console(record=True, width=WIDTH, force_terminal=True, highlight=False, file=io.StringIO())
    renderer = Renderer(console)
    number = 0
    for event in gathered(events):
        if isinstance(event, RequestSent):
            number = event.number
        if number != 2 and not isinstance(event, NodeStopped):
            renderer.show(event)
    svg = console.export_svg(title="make demo")
    return re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL).replace("Fira Code", "ui-monospace")


def gathered(events: list[DemoEvent]) -> Iterator[DemoEvent]:
    """The pieces of each answer as one, broken into lines as a terminal would: a picture does not wrap."""
    text = ""
    for event in events:
        if isinstance(event, TextReceived):
            text += event.text
            continue
        if text:
            lines = textwrap.wrap(text, WIDTH - 14)
            yield TextReceived(("\n" + " " * 12).join(lines), 0)
            text = ""
        yield event


if __name__ == "__main__":
    main()
