"""`ryvion-node models`: the list, and the owner's own files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ryvion_node.cli.models.pull import pull_command
from ryvion_node.cli.models.verify import verify_command
from ryvion_node.cli.options import home_option, json_option
from ryvion_node.cli.output import print_json, print_table
from ryvion_node.errors import EXIT_DATA, EXIT_USAGE, OperatorError
from ryvion_node.paths import Paths

if TYPE_CHECKING:
    from ryvion_node.library.facts import FileFacts
    from ryvion_node.library.manifest import ManifestModel
    from ryvion_node.models.catalogue import CatalogueModel

COLUMNS = ("Model", "Kind", "Quantisation", "Context", "Memory", "Licence", "File")
OWN_COLUMNS = ("Model", "Kind", "Quantisation", "Size", "Memory", "SHA-256", "File")
HERE = {"model": "here", "tokenizer": "tokenizer here"}


class DigestInvalid(OperatorError):
    """{text} is no SHA-256: it has 64 hex digits, and `ryvion-node models cut` and `models verify` print it."""

    exit_code = EXIT_USAGE


class CannotCut(OperatorError):
    """Nothing was cut: {reason}."""

    exit_code = EXIT_DATA


@click.group()
def models() -> None:
    """List, fetch, add, check and remove models.

    The node comes with small models of its own, two that chat and one for embeddings. `pull` fetches others of the
    catalogue, `add` names GGUF files that you have; `ryvion-node up --serve NAME` finds all of them.
    """


models.add_command(pull_command)
models.add_command(verify_command)


@models.command("list", epilog="\b\nExamples:\n  ryvion-node models list\n  ryvion-node models list --json")
@home_option
@json_option
def list_command(paths: Paths, as_json: bool) -> None:
    """List the catalogue, the models that you pulled or added, and other GGUF files in the node's models folder.

    Memory is what a model that is here takes when it is served with the default slots and context.
    """
    from ryvion_node.library.manifest import Manifest
    from ryvion_node.models.catalogue import catalogue

    manifest = Manifest(paths)
    owned = {model.name: model for model in manifest.models()}
    known = catalogue().models
    listed = {manifest.file_of(model) for model in owned.values()}
    stray = sorted(file for file in paths.models_folder.glob("*.gguf") if file not in listed)
    if as_json:
        own = [_own_json(model, manifest.file_of(model)) for model in owned.values()]
        catalogue_models = [_model_json(model, owned.get(model.name)) for model in known]
        print_json({"models": catalogue_models, "own": own, "files": [str(file) for file in stray]})
        return
    rows = [_row(model, owned.get(model.name)) for model in known]
    print_table(f"{len(known)} models in the catalogue", COLUMNS, rows, right=("Context", "Memory"))
    if owned:
        own_rows = [_own_row(model, manifest.file_of(model)) for model in owned.values()]
        print_table(f"{len(owned)} pulled or added", OWN_COLUMNS, own_rows, right=("Size", "Memory"))
    for file in stray:
        click.echo(f"not listed: {file}")


@models.command(
    "add",
    epilog="\b\nExamples:\n  ryvion-node models add /data/phi-4-q4.gguf --name phi-4\n"
    "  ryvion-node models add phi-4.header.gguf --name phi-4 --tokenizer-of 1f0e...",
)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--name", help="Name to serve it under. Default: the file's name without .gguf.")
@click.option("--tokenizer-of", metavar="SHA256", help="Keep only what counts tokens, for the model with this SHA-256.")
@home_option
@json_option
def add_command(file: Path, name: str | None, tokenizer_of: str | None, paths: Paths, as_json: bool) -> None:
    """Add a GGUF file of your own, so that it can be served by its name.

    The file stays where it is. It is read once for its SHA-256, which is its identity from then on: a file that
    changes is not served. With --tokenizer-of the file's header is copied instead, and the node counts tokens of the
    model with that SHA-256 with it; that the two belong together is then your word.
    """
    from ryvion_node.library.adding import add_model, add_tokenizer

    added = (
        add_model(paths, file, name)
        if tokenizer_of is None
        else add_tokenizer(paths, file, name, _digest(tokenizer_of))
    )
    if as_json:
        print_json(_own_json(added.model, added.path))
        return
    what = f"{added.header.architecture} {added.header.quantisation}, context {added.header.context_tokens}"
    click.echo(f"added {added.model.name} ({what}): {added.path}")
    click.echo(f"SHA-256 {added.model.sha256}")
    if added.model.kind == "model":
        click.echo(f"serve it with: ryvion-node up --serve {added.model.name}")


@models.command("remove", epilog="\b\nExamples:\n  ryvion-node models remove phi-4")
@click.argument("name")
@home_option
@json_option
def remove_command(name: str, paths: Paths, as_json: bool) -> None:
    """Forget a model that you pulled or added.

    A file that the node fetched is deleted; a file of your own stays where it is.
    """
    from ryvion_node.library.adding import remove_model

    model, path, deleted = remove_model(paths, name)
    if as_json:
        print_json({"name": model.name, "file": str(path), "deleted": deleted})
        return
    click.echo(f"removed {model.name}; {'deleted' if deleted else 'left alone'}: {path}")


@models.command("cut", epilog="\b\nExamples:\n  ryvion-node models cut phi-4-q4.gguf phi-4.header.gguf")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
@json_option
def cut_command(file: Path, out: Path, as_json: bool) -> None:
    """Cut a GGUF down to its header: metadata and vocabulary, no weights.

    That is all a buyer needs to count tokens. The whole file's SHA-256 is printed; give both to
    `ryvion-node models add OUT --tokenizer-of SHA256` on the buyer's machine.
    """
    from ryvion_node.engine.files import file_digest
    from ryvion_node.engine.gguf import GgufError
    from ryvion_node.engine.gguf_cut import cut_file

    try:
        header = cut_file(file)
        digest = file_digest(file)[0].hex()
        if out.exists() and out.samefile(file):
            raise CannotCut(reason=f"{out} is the file itself")
        out.write_bytes(header)
    except GgufError as exc:
        raise CannotCut(reason=exc) from exc
    except OSError as exc:
        raise CannotCut(reason=f"{out} cannot be written ({exc.strerror})") from exc
    if as_json:
        print_json({"file": str(out), "bytes": len(header), "sha256_of_whole": digest})
        return
    click.echo(f"{out}: {len(header)} bytes of {file.stat().st_size}")
    click.echo(f"SHA-256 of the whole file {digest}")


def _digest(text: str) -> bytes:
    digits = text.removeprefix("sha256:").lower()
    if len(digits) != 64 or not set(digits) <= set("0123456789abcdef"):
        raise DigestInvalid(text=repr(text[:80]))
    return bytes.fromhex(digits)


def _model_json(model: CatalogueModel, own: ManifestModel | None) -> dict[str, object]:
    return {
        "name": model.name,
        "aliases": list(model.aliases),
        "source": model.source or None,
        "file": model.file,
        "path": None if model.path is None else str(model.path),
        "here": "model" if model.path is not None else None if own is None else own.kind,
        "kind": model.kind,
        "quantisation": model.quantisation,
        "context_tokens": model.context_tokens,
        "licence": model.licence,
        "sha256": None if model.digest is None else model.digest.hex(),
    } | ({} if (facts := _facts(model.path)) is None else facts.as_json())


def _own_json(model: ManifestModel, path: Path) -> dict[str, object]:
    return {
        "name": model.name,
        "kind": model.kind,
        "path": str(path),
        "sha256": model.sha256,
        "sha256_from": model.sha256_from,
        "origin": model.origin or None,
    } | ({} if (facts := _facts(path)) is None else facts.as_json())


def _row(model: CatalogueModel, own: ManifestModel | None) -> tuple[str, ...]:
    fetched = f"{model.source}: {model.file}" if own is None else HERE[own.kind]
    where = fetched if model.path is None else "bundled"
    context, facts = str(model.context_tokens), _facts(model.path)
    memory = "" if facts is None else facts.memory_text
    names = "\nor ".join((model.name, *model.aliases))
    return names, model.kind, model.quantisation, context, memory, model.licence, where


def _own_row(model: ManifestModel, path: Path) -> tuple[str, ...]:
    facts = _facts(path)
    if facts is None:
        return model.name, model.kind, "?", "?", "?", model.sha256[:12], f"{path}: see `models verify`"
    return (
        model.name,
        facts.kind,
        facts.header.quantisation,
        facts.size_text,
        facts.memory_text,
        model.sha256[:12],
        str(path),
    )


def _facts(path: Path | None) -> FileFacts | None:
    """None: it is not here, or not sound."""
    from ryvion_node.engine.gguf import GgufError
    from ryvion_node.library.facts import read_facts

    try:
        return None if path is None else read_facts(path)
    except GgufError:
        return None
