"""`ryvion-node models verify`: are model files what they should be?"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from ryvion_node.cli.options import home_option, json_option
from ryvion_node.cli.output import print_json
from ryvion_node.errors import EXIT_NO_INPUT, OperatorError
from ryvion_node.paths import Paths

if TYPE_CHECKING:
    from ryvion_node.library.manifest import ManifestModel
    from ryvion_node.models.catalogue import CatalogueModel

MARKS = {"ok": "ok", "unknown": "not known", "wrong": "WRONG"}


class ModelUnknown(OperatorError):
    """{name} is neither a known model nor a file. `ryvion-node models list` shows what there is."""

    exit_code = EXIT_NO_INPUT


class ModelNotHere(OperatorError):
    """{name} does not come with the node. Fetch {file} from {source} with: ryvion-node models pull {name}"""

    exit_code = EXIT_NO_INPUT


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found about one file."""

    file: str
    outcome: Literal["ok", "unknown", "wrong"]
    sha256: str
    detail: str
    size_bytes: int = 0
    memory_bytes: int = 0
    """That it takes when it is served with the default settings; 0: not known."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a file should be, and who says so."""

    name: str
    sha256: str
    who: str


@click.command(
    "verify",
    epilog="\b\nExamples:\n  ryvion-node models verify\n  ryvion-node models verify ryvion-tiny\n  ryvion-node models verify /data/phi-4-q4.gguf --json",
)
@click.argument("names", metavar="[MODEL|FILE]...", nargs=-1)
@home_option
@json_option
def verify_command(names: tuple[str, ...], paths: Paths, as_json: bool) -> None:
    """Read model files whole: is each a sound GGUF, and has it the SHA-256 that it should have?

    Without arguments: the bundled models, those that you pulled or added, and other files in the node's models folder.
    A file whose digest nobody has checked is "not known", which is no failure: its SHA-256 is printed, so that you can
    compare it with the publisher's. Exits 1 when a file is wrong.
    """
    targets = [_named(name, paths) for name in names] if names else _all(paths)
    found = [verify_file(path, expected) for path, expected in targets]
    if as_json:
        print_json({"files": [asdict(verified) for verified in found]})
    else:
        for verified in found:
            click.echo(f"{MARKS[verified.outcome]:<9} {verified.file}: {verified.detail}")
    sys.exit(1 if any(verified.outcome == "wrong" for verified in found) else 0)


def verify_file(path: Path, expected: Expected | None) -> Verified:
    """Check one file."""
    from ryvion_node.engine.files import file_digest
    from ryvion_node.engine.gguf import GgufError
    from ryvion_node.library.facts import read_facts

    try:
        facts = read_facts(path)
        digest = file_digest(path)[0].hex()
    except GgufError as exc:
        reason = str(exc).removeprefix(f"{path}: ")
        return Verified(str(path), "wrong", "", f"{reason}. Fetch or copy it again")
    outcome: Literal["ok", "unknown", "wrong"] = "ok"
    if expected is None:
        outcome, detail = "unknown", f"{facts}; SHA-256 {digest}, nobody has checked it"
    elif digest != expected.sha256:
        outcome = "wrong"
        detail = f"not the {expected.name} of {expected.who}: SHA-256 {digest}, it should be {expected.sha256}"
    else:
        detail = f"{facts}; SHA-256 as in {expected.who} for {expected.name}"
    memory = 0 if facts.memory is None else facts.memory.total_bytes
    return Verified(str(path), outcome, digest, detail, facts.size_bytes, memory)


def _all(paths: Paths) -> list[tuple[Path, Expected | None]]:
    from ryvion_node.library.manifest import Manifest
    from ryvion_node.models.catalogue import catalogue

    manifest = Manifest(paths)
    targets = [(model.path, _by_catalogue(model)) for model in catalogue().bundled() if model.path is not None]
    targets += [(manifest.file_of(model), _by_manifest(model)) for model in manifest.models()]
    seen = {path for path, _ in targets}
    stray = sorted(file for file in paths.models_folder.glob("*.gguf") if file not in seen)
    return targets + [(file, _by_file_name(file)) for file in stray]


def _named(name: str, paths: Paths) -> tuple[Path, Expected | None]:
    """The file that a model's name or a path means; raises ModelUnknown or ModelNotHere."""
    from ryvion_node.library.manifest import Manifest
    from ryvion_node.models.catalogue import catalogue

    entry = catalogue().find(name)
    if entry is not None and entry.path is not None:
        return entry.path, _by_catalogue(entry)
    manifest = Manifest(paths)
    owned = manifest.find(name) or (None if entry is None else manifest.find(entry.name))
    if owned is not None:
        return manifest.file_of(owned), _by_manifest(owned)
    if entry is not None:
        raise ModelNotHere(name=entry.name, file=entry.file, source=entry.source)
    path = Path(name).expanduser()
    if not path.is_file():
        raise ModelUnknown(name=name)
    return path, _by_file_name(path)


def _by_catalogue(model: CatalogueModel) -> Expected | None:
    return None if model.digest is None else Expected(model.name, model.digest.hex(), "the catalogue")


def _by_manifest(model: ManifestModel) -> Expected:
    """The catalogue's word goes before what we found when the file came."""
    from ryvion_node.models.catalogue import catalogue

    entry = catalogue().find(model.name)
    by_catalogue = None if entry is None or model.kind != "model" else _by_catalogue(entry)
    return by_catalogue or Expected(model.name, model.file_sha256, "your list of models")


def _by_file_name(path: Path) -> Expected | None:
    from ryvion_node.models.catalogue import catalogue

    return next((_by_catalogue(model) for model in catalogue().models if model.file == path.name), None)
