"""`ryvion-node demo`: run the scenario, show its events, and always stop the nodes."""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final, NoReturn

import click

from ryvion_node.errors import EXIT_UNAVAILABLE, OperatorError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ryvion_node.cli.demo.events import DemoEvent
    from ryvion_node.cli.demo.scenario import Scenario

DEFAULT_MODEL = "ryvion-tiny"
DEFAULT_PROMPTS = (
    "Explain a peer-to-peer compute marketplace.",
    "What does a receipt prove?",
    "How does ryvion choose a node?",
)
"""One for each request; documented ones, so the bundled models know their answers."""

EPILOG = """\b
Examples:
  ryvion-node demo
  ryvion-node demo --prompt "Who are you?"
  ryvion-node demo --keep           leave it running and use it with your own client
  ryvion-node demo --json | jq .    one event per line; ryvion_node/cli/demo/events.py names them

With --json each line has the key "event": node_starting, node_ready, offer_heard, request_sent, bid, winner,
text_received, receipt_received, checked, settled, request_refused, receipt_verified, network_kept, node_stopped,
finished.
"""


class ExtrasMissing(OperatorError):
    """The demo runs models and drives them with the OpenAI client; this installation lacks {missing}.
    Install them with: pip install 'ryvion-node[executor,demo]'
    """

    exit_code = EXIT_UNAVAILABLE


@click.command(epilog=EPILOG)
@click.option("--json", "as_json", is_flag=True, help="Print each event as a line of JSON.")
@click.option("--keep", is_flag=True, help="Leave the network running until Ctrl-C; print its endpoint and a key.")
@click.option("--model", default=DEFAULT_MODEL, show_default=True, help="A bundled model.")
@click.option("--prompt", help="What is asked, each time. Default: three questions that the bundled models know.")
def demo(as_json: bool, keep: bool, model: str, prompt: str | None) -> None:
    """Watch a whole market do its job on this machine.

    Starts four nodes as separate processes: a bootstrap node, a cheap seller in DE, a dear one in CA, and a
    requester with an OpenAI-compatible endpoint. Then it buys an answer from whoever is best, buys one that may only
    come from CA, asks for one in a country where nobody sells, and verifies a receipt offline. Everything is on
    loopback, in a temporary folder, and stopped at the end. Exits 0 when all of it went as it should.
    """
    _require_extras()
    from ryvion_node.cli.demo.scenario import Scenario

    show = _json_printer() if as_json else _renderer()
    with tempfile.TemporaryDirectory(prefix="ryvion-demo-") as folder, _signals_end_it():
        prompts = DEFAULT_PROMPTS if prompt is None else (prompt, prompt, prompt)
        ok = _play(Scenario(Path(folder), model, prompts), show, keep=keep)
    if not ok:
        sys.exit(1)


def _play(scenario: Scenario, show: Callable[[DemoEvent], None], *, keep: bool) -> bool:
    """Run, keep if asked to, and stop; on failure the logs' ends go to stderr."""
    try:
        for event in scenario.run():
            show(event)
        if keep:
            show(scenario.keep())
            signal.pause()
    except _Ended as exc:
        if not (keep and exc.signal_number == signal.SIGINT):
            scenario.problems.append(f"stopped by {signal.Signals(exc.signal_number).name}")
    except OperatorError as exc:
        scenario.problems.append(str(exc))
    finally:
        _ignore_signals()
        for event in scenario.stop():
            show(event)
    if scenario.problems:
        for node in scenario.nodes:
            click.echo(f"--- end of the log of {node.plan.name} ---\n{node.log_tail()}", err=True)
    return not scenario.problems


def _require_extras() -> None:
    modules = {"llama_cpp": "llama-cpp-python", "openai": "openai"}
    missing = [package for module, package in modules.items() if find_spec(module) is None]
    if missing:
        raise ExtrasMissing(missing=" and ".join(missing))


def _json_printer() -> Callable[[DemoEvent], None]:
    from ryvion_node.cli.demo.events import json_line

    return lambda event: click.echo(json_line(event))


def _renderer() -> Callable[[DemoEvent], None]:
    from ryvion_node.cli.demo.render import Renderer

    return Renderer().show


_ENDING_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _ignore_signals() -> None:
    """Stopping is bounded in time; a Ctrl-C must not cut it short and leave nodes behind."""
    for number in _ENDING_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


class _Ended(BaseException):
    """A signal asks the demo to end."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number


@contextmanager
def _signals_end_it() -> Iterator[None]:
    """Ctrl-C, a closed terminal and SIGTERM all end the demo in order, so that no node is left behind."""

    def end(number: int, _frame: FrameType | None) -> NoReturn:
        _ignore_signals()
        raise _Ended(number)

    before = {number: signal.signal(number, end) for number in _ENDING_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
