"""`ryvion-node models`: what the node knows by name, and whether model files are what they should be."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from ryvion_node.cli.options import home_option, json_option
from ryvion_node.cli.output import print_json, print_table
from ryvion_node.errors import EXIT_NO_INPUT, OperatorError
from ryvion_node.paths import Paths

if TYPE_CHECKING:
    from ryvion_node.models.catalogue import CatalogueModel

COLUMNS = ("Model", "Also called", "Quantisation", "Context", "Licence", "File")
MARKS = {"ok": "ok", "unknown": "not known", "wrong": "WRONG"}


class ModelUnknown(OperatorError):
    """{name} is neither a model of the catalogue nor a file. `ryvion-node models list` shows the catalogue."""

    exit_code = EXIT_NO_INPUT


class ModelNotBundled(OperatorError):
    """{name} does not come with the node: fetch {file} from {source} on a model hub, then name the file itself."""

    exit_code = EXIT_NO_INPUT


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found about one file."""

    file: str
    outcome: Literal["ok", "unknown", "wrong"]
    sha256: str
    detail: str


@click.group()
def models() -> None:
    """List the model catalogue and check model files.

    The node comes with two small models of its own; others are GGUF files that you fetch yourself and serve with
    `ryvion-node up --serve NAME=FILE.gguf`.
    """


@models.command("list", epilog="\b\nExamples:\n  ryvion-node models list\n  ryvion-node models list --json")
@home_option
@json_option
def list_command(paths: Paths, as_json: bool) -> None:
    """List the models that the node knows by name, and the GGUF files in the node's models folder."""
    from ryvion_node.models.catalogue import catalogue

    known = catalogue().models
    own = _own_files(paths)
    if as_json:
        print_json({"models": [_model_json(model) for model in known], "files": [str(file) for file in own]})
        return
    print_table(f"{len(known)} models", COLUMNS, [_row(model) for model in known], right=("Context",))
    for file in own:
        click.echo(f"own file: {file}")


@models.command(
    "verify",
    epilog="\b\nExamples:\n  ryvion-node models verify\n  ryvion-node models verify ryvion-tiny\n  ryvion-node models verify /data/phi-4-q4.gguf --json",
)
@click.argument("names", metavar="[MODEL|FILE]...", nargs=-1)
@home_option
@json_option
def verify_command(names: tuple[str, ...], paths: Paths, as_json: bool) -> None:
    """Read model files whole: is each a sound GGUF, and has it the SHA-256 that the catalogue names?

    Without arguments: the bundled models and the files in the node's models folder. A file whose digest nobody has
    checked is "not known", which is no failure: its SHA-256 is printed, so that you can compare it with the
    publisher's. Exits 1 when a file is wrong.
    """
    from ryvion_node.models.catalogue import catalogue

    if names:
        wanted = [_named(name) for name in names]
    else:
        wanted = [(model.path, model) for model in catalogue().bundled() if model.path is not None]
        wanted += [(file, _by_file_name(file)) for file in _own_files(paths)]
    found = [verify_file(path, model) for path, model in wanted]
    if as_json:
        print_json({"files": [asdict(verified) for verified in found]})
    else:
        for verified in found:
            click.echo(f"{MARKS[verified.outcome]:<9} {verified.file}: {verified.detail}")
    sys.exit(1 if any(verified.outcome == "wrong" for verified in found) else 0)


def verify_file(path: Path, model: CatalogueModel | None) -> Verified:
    """Check one file; `model` is what the catalogue says it should be."""
    from ryvion_node.engine.files import file_digest
    from ryvion_node.engine.gguf import GgufError, read_header

    try:
        header = read_header(path)
        digest = file_digest(path)[0]
    except GgufError as exc:
        return Verified(str(path), "wrong", "", str(exc))
    kind = f"{header.architecture} {header.quantisation}, context {header.context_tokens}"
    if model is None or model.digest is None:
        return Verified(str(path), "unknown", digest.hex(), f"{kind}; SHA-256 {digest.hex()}, nobody has checked it")
    if digest != model.digest:
        detail = f"not the {model.name} of the catalogue: SHA-256 {digest.hex()}, it should be {model.digest.hex()}"
        return Verified(str(path), "wrong", digest.hex(), detail)
    return Verified(str(path), "ok", digest.hex(), f"{kind}; SHA-256 as in the catalogue for {model.name}")


def _named(name: str) -> tuple[Path, CatalogueModel | None]:
    """The file that a catalogue name or a path means; raises ModelUnknown or ModelNotBundled."""
    from ryvion_node.models.catalogue import catalogue

    model = catalogue().find(name)
    if model is None:
        path = Path(name).expanduser()
        if not path.is_file():
            raise ModelUnknown(name=name)
        return path, _by_file_name(path)
    if model.path is None:
        raise ModelNotBundled(name=model.name, file=model.file, source=model.source)
    return model.path, model


def _by_file_name(path: Path) -> CatalogueModel | None:
    from ryvion_node.models.catalogue import catalogue

    return next((model for model in catalogue().models if model.file == path.name), None)


def _own_files(paths: Paths) -> list[Path]:
    return sorted(paths.models_folder.glob("*.gguf"))


def _model_json(model: CatalogueModel) -> dict[str, object]:
    return {
        "name": model.name,
        "aliases": list(model.aliases),
        "source": model.source or None,
        "file": model.file,
        "path": None if model.path is None else str(model.path),
        "quantisation": model.quantisation,
        "context_tokens": model.context_tokens,
        "licence": model.licence,
        "sha256": None if model.digest is None else model.digest.hex(),
    }


def _row(model: CatalogueModel) -> tuple[str, ...]:
    where = "comes with the node" if model.path is not None else f"{model.source}: {model.file}"
    context = str(model.context_tokens)
    return model.name, ", ".join(model.aliases), model.quantisation, context, model.licence, where
