"""`ryvion-node models pull`: fetch a model of the catalogue, with a progress bar."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from ryvion_node.cli.options import home_option, json_option
from ryvion_node.cli.output import print_json
from ryvion_node.errors import EXIT_NO_INPUT, OperatorError
from ryvion_node.paths import Paths

if TYPE_CHECKING:
    from ryvion_node.library.fetch import Fetched, Progress, Stage

WORDS = {"fetching": "Fetching", "checking": "Checking"}
VOUCHERS = {"catalogue": "the catalogue says so too", "hub": "the hub says so too"}


class NotInCatalogue(OperatorError):
    """{name} is not in the catalogue, which has {names}. A file that you fetch yourself is named with:
    ryvion-node models add FILE
    """

    exit_code = EXIT_NO_INPUT


@click.command(
    "pull",
    epilog="\b\nExamples:\n  ryvion-node models pull phi-4\n"
    "  ryvion-node models pull phi-4 --tokenizer-only      a few MB, enough to check what sellers of phi-4 count",
)
@click.argument("name")
@click.option("--tokenizer-only", is_flag=True, help="Fetch only what counts tokens: metadata and vocabulary.")
@home_option
@json_option
def pull_command(name: str, tokenizer_only: bool, paths: Paths, as_json: bool) -> None:
    """Fetch a model of the catalogue from its source on the model hub.

    A fetch that is interrupted goes on where it stopped. The file is kept only if it has the SHA-256 that the catalogue
    and the hub name. HF_ENDPOINT, HF_TOKEN and the proxy variables are respected.

    With --tokenizer-only the SHA-256 of the whole model is the catalogue's or the hub's word, because the rest of the
    file was never seen. A wrong vocabulary makes counts disagree with sellers; it cannot spend more than a job's limit.
    """
    from ryvion_node.models.catalogue import catalogue

    entry = catalogue().find(name)
    if entry is None:
        raise NotInCatalogue(name=name, names=", ".join(model.name for model in catalogue().models))
    from ryvion_node.library.fetch import Fetcher
    from ryvion_node.library.hub import Hub

    fetcher = Fetcher(paths, Hub())
    if tokenizer_only:
        fetched = fetcher.tokenizer(entry)
    else:
        with progress_bar() as on_progress:
            fetched = fetcher.model(entry, on_progress)
    if as_json:
        print_json(_as_json(fetched))
        return
    for line in report(fetched, tokenizer_only=tokenizer_only):
        click.echo(line)


def report(fetched: Fetched, *, tokenizer_only: bool) -> Iterator[str]:
    """What happened, and how sure it is."""
    model = fetched.model
    if tokenizer_only and model.kind == "model":
        yield f"{model.name} is here whole, which counts its tokens too: {fetched.path}"
        return
    yield f"{model.name}: {fetched.path} ({_amount(fetched.fetched_bytes)} fetched)"
    if model.kind == "tokenizer":
        who = "catalogue" if model.sha256_from == "catalogue" else "hub"
        yield f"SHA-256 of the whole model {model.sha256}: the {who} says so, the whole file was not read"
        yield "a running node counts with it after its next start"
        return
    said = ", ".join(VOUCHERS[who] for who in fetched.vouchers)
    yield f"SHA-256 {model.sha256}: {said or 'nobody else says so'}"
    if "catalogue" not in fetched.vouchers:
        yield "nobody has checked it for the catalogue: compare it with the publisher's"
    yield f"serve it with: ryvion-node up --serve {model.name}"


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A bar on stderr; nothing where that is no terminal."""
    if not sys.stderr.isatty():
        yield lambda stage, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as progress:
        tasks = {stage: progress.add_task(word, total=None, visible=False) for stage, word in WORDS.items()}
        started: set[str] = set()

        def show(stage: Stage, done: int, total: int) -> None:
            if stage not in started:
                started.add(stage)
                # What was fetched before counts as done, not as speed.
                progress.reset(tasks[stage], total=total, completed=done, visible=True)
            progress.update(tasks[stage], completed=done)

        yield show


def _amount(size_bytes: int) -> str:
    return "nothing" if size_bytes == 0 else f"{size_bytes / 1e6:.1f} MB"


def _as_json(fetched: Fetched) -> dict[str, object]:
    return {
        "name": fetched.model.name,
        "kind": fetched.model.kind,
        "path": str(fetched.path),
        "sha256": fetched.model.sha256,
        "sha256_from": fetched.model.sha256_from,
        "also_said_by": list(fetched.vouchers),
        "origin": fetched.model.origin,
        "fetched_bytes": fetched.fetched_bytes,
    }
