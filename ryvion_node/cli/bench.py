"""`ryvion-node bench`: how fast this machine serves its models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ryvion_node.cli.options import home_option, json_option
from ryvion_node.cli.output import print_json, print_table
from ryvion_node.paths import Paths

if TYPE_CHECKING:
    from ryvion_node.config import NodeConfig
    from ryvion_node.engine.bench import ModelSpeed
    from ryvion_node.engine.interface import ModelSpec
    from ryvion_node.engine.llama_engine import LlamaEngine

EPILOG = """\b
Examples:
  ryvion-node bench
      The models that the configuration sells, with their slots.
  ryvion-node bench ryvion-tiny --slots 8 --json
  ryvion-node bench my-model=/data/my-model.gguf --seconds 10

Stop the node first: two that decode at once share the machine.
"""


@click.command(epilog=EPILOG)
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--slots", type=click.IntRange(1, 64), help="Jobs at once of the models named here. Default 4.")
@click.option("--threads", type=click.IntRange(1, 1024), help="CPU threads of the models named here.")
@click.option(
    "--seconds", type=click.FloatRange(0.2, 600), default=3.0, show_default=True, help="How long each load lasts."
)
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Configuration file. Default: config.toml in the node's configuration folder, when it is there.",
)
@home_option
@json_option
def bench(
    models: tuple[str, ...],
    slots: int | None,
    threads: int | None,
    seconds: float,
    config_file: Path | None,
    paths: Paths,
    as_json: bool,
) -> None:
    """Measure tokens per second, with one job and with more at once, and how fast prompts are read.

    MODEL is a name that `models list` shows, or NAME=FILE.gguf; without any, what the configuration sells is measured.
    """
    import trio

    config = _config(config_file, paths, models, slots, threads)
    speeds = trio.run(_measure, config, paths, seconds)
    if as_json:
        print_json({"models": [_as_json(speed) for speed in speeds]})
        return
    for speed in speeds:
        _show(speed)


def _config(
    config_file: Path | None, paths: Paths, models: tuple[str, ...], slots: int | None, threads: int | None
) -> NodeConfig:
    from ryvion_node.cli.up import served_model
    from ryvion_node.config import load_config

    if config_file is None and paths.config_file.exists():
        config_file = paths.config_file
    overrides: dict[str, object] = {"executor.enabled": False}
    for text in models:
        if "://" in text:
            raise click.UsageError(
                f"{text} is another engine, which has its own tools for this; name models of this node"
            )
    if models:
        changes = {"slots": slots} if slots else {}
        overrides["executor.models"] = [served_model(text, threads) | changes for text in models]
    config = load_config(config_file, overrides)
    if not config.executor.models:
        raise click.UsageError("the configuration sells no model; name one: ryvion-node bench ryvion-tiny")
    if not models and (slots or threads):
        raise click.UsageError("--slots and --threads go with models named here; else the configuration says")
    return config


async def _measure(config: NodeConfig, paths: Paths, seconds: float) -> list[ModelSpeed]:
    import trio

    from ryvion_node.engine.files import DigestCache
    from ryvion_node.engine.llama_engine import LlamaEngine
    from ryvion_node.library.lookup import Library

    speeds: list[ModelSpeed] = []
    for spec in Library(paths).specs(config):
        engine = LlamaEngine([spec], digests=DigestCache(paths.digests_file))
        async with trio.open_nursery() as nursery:
            await nursery.start(engine.run)
            await engine.settled()
            problem = await _measured(engine, spec, seconds, speeds)
            nursery.cancel_scope.cancel()
        # Out here, or the nursery would wrap it in a group.
        if problem:
            raise click.ClickException(f"{spec.name}: {problem}")
    return speeds


async def _measured(engine: LlamaEngine, spec: ModelSpec, seconds: float, speeds: list[ModelSpeed]) -> str:
    """Measure the engine's only model; returns why that was not possible, else an empty text."""
    from ryvion_node.engine.bench import measure_model
    from ryvion_node.engine.interface import EngineError

    if not engine.models():
        return engine.status()[0].reason
    click.echo(f"measuring {spec.name} with up to {spec.slots} jobs at once ...", err=True)
    problem = ""
    try:
        speeds.append(await measure_model(engine, engine.models()[0], seconds))
    except* EngineError as group:
        problem = "; ".join(str(error) for error in _leaves(group))
    return problem


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from _leaves(part)
    else:
        yield error


def _as_json(speed: ModelSpeed) -> dict[str, Any]:
    return {
        "name": speed.model.name,
        "sha256": speed.model.digest.hex(),
        "kind": speed.model.kind,
        "quantisation": speed.model.quantisation,
        "slots": speed.model.slots,
        "context_tokens": speed.model.context_tokens,
        "offered_tokens_per_s": speed.model.millitokens_per_s / 1000,
        "prompt_tokens": speed.prompt_tokens,
        "prompt_tokens_per_s": round(speed.prompt_tokens_per_s, 1),
        "loads": [
            {
                "jobs": load.jobs,
                "tokens_per_s": round(load.tokens_per_s, 1),
                "ms_per_token": round(load.ms_per_token, 2),
                "first_token_ms": round(1000 * load.first_token_s, 1),
            }
            for load in speed.loads
        ],
    }


def _show(speed: ModelSpeed) -> None:
    model = speed.model
    if not speed.loads:
        click.echo(f"{model.name} {model.quantisation}: texts are read at {speed.prompt_tokens_per_s:.0f} tokens/s.")
        return
    columns = ("Jobs at once", "Tokens/s together", "Against one", "ms per token", "First token ms")
    one = speed.loads[0].tokens_per_s or 1.0
    rows = [
        (
            str(load.jobs),
            f"{load.tokens_per_s:.1f}",
            f"{load.tokens_per_s / one:.2f}",
            f"{load.ms_per_token:.1f}",
            f"{1000 * load.first_token_s:.0f}",
        )
        for load in speed.loads
    ]
    print_table(f"{model.name} {model.quantisation}", columns, rows, right=columns)
    click.echo(
        f"A prompt of {speed.prompt_tokens} tokens was read at {speed.prompt_tokens_per_s:.0f} tokens/s. "
        f"The offer says {model.millitokens_per_s / 1000:.0f} tokens/s, as measured at start."
    )
