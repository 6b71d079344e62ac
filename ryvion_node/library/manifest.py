"""The owner's manifest: the models that were fetched or added, in one private file.

The command line may edit it while the node runs; the node reads it when it starts. Only the owner's commands write
names and paths into it, and nothing that a peer sends is ever looked up in it but a SHA-256.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Final, Literal, get_args

from ryvion_node.errors import EXIT_DATA, EXIT_NO_INPUT, EXIT_TEMPORARY, EXIT_USAGE, OperatorError
from ryvion_node.library.constants import MAX_MANIFEST_BYTES, MAX_MODELS
from ryvion_node.paths import (
    FileMissing,
    Paths,
    read_private_file,
    replace_private_file,
    sole_editor,
)

Kind = Literal["model", "tokenizer"]
"""A whole model, or one cut down to its header, which only counts tokens."""
DigestSource = Literal["file", "catalogue", "hub", "owner"]
"""Who says that a model has its SHA-256: we computed it, or we believe the catalogue, the hub or the owner."""

NAME_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,95}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_VERSION: Final = 1


class ManifestCorrupt(OperatorError):
    """The list of models in {path} cannot be read: {reason}. The file is left as it is: put a backup back, or move it
    away and name your models again with: ryvion-node models add FILE
    """

    exit_code = EXIT_DATA


class ModelNameInvalid(OperatorError):
    """{name} cannot be the name of a model: use 1 to 96 letters, digits and . _ : / @ + - and begin with a letter or
    a digit. Another name is given with --name.
    """

    exit_code = EXIT_USAGE


class ModelNameTaken(OperatorError):
    """There is a model called {name} already: {what}. Choose another name with --name. One that you pulled or added is
    forgotten with: ryvion-node models remove {name}
    """

    exit_code = EXIT_USAGE


class ModelNotListed(OperatorError):
    """No model called {name} was pulled or added. The names are shown by: ryvion-node models list"""

    exit_code = EXIT_NO_INPUT


class TooManyModels(OperatorError):
    """There are {count} models, as many as there may be. Remove some first: ryvion-node models remove NAME"""

    exit_code = EXIT_USAGE


class ManifestBusy(OperatorError):
    """Another program is editing the list of models in {path} just now. Try again."""

    exit_code = EXIT_TEMPORARY


@dataclass(frozen=True, slots=True)
class ManifestModel:
    """One model of the owner's."""

    name: str
    kind: Kind
    file: str
    """Name of a file in the node's models folder, which the node may delete; else an absolute path, left alone."""
    sha256: str
    """Of the whole model, in hex: the digest that offers name, also for a tokenizer."""
    sha256_from: DigestSource
    file_sha256: str
    """Of the file itself; for a whole model the same."""
    origin: str
    """Where the file came from, as owner/name@revision; empty for one that the owner added."""

    @property
    def is_ours(self) -> bool:
        """Does the file lie in the node's own folder?"""
        return not Path(self.file).is_absolute()


class Manifest:
    """The models in one file."""

    def __init__(self, paths: Paths) -> None:
        self._path = paths.manifest_file
        self._models_folder = paths.models_folder

    def models(self) -> tuple[ManifestModel, ...]:
        """All of them, oldest first; raises ManifestCorrupt or TooOpen."""
        try:
            data = read_private_file(self._path, MAX_MANIFEST_BYTES)
        except FileMissing:
            return ()
        try:
            return _parse(data)
        except (ValueError, RecursionError) as exc:
            raise ManifestCorrupt(path=self._path, reason=exc) from None

    def find(self, name: str) -> ManifestModel | None:
        """Raises ManifestCorrupt or TooOpen."""
        return next((model for model in self.models() if model.name == name), None)

    def file_of(self, model: ManifestModel) -> Path:
        """Where its file should be."""
        return self._models_folder / model.file

    def put(self, model: ManifestModel, *, replace: bool) -> None:
        """Add a model, or put it in the place of the one of its name.

        Raises ModelNameTaken, TooManyModels, ManifestBusy, ManifestCorrupt or TooOpen.
        """
        with self._editing() as models:
            taken = next((known for known in models if known.name == model.name), None)
            if taken is not None:
                if not replace:
                    raise ModelNameTaken(name=model.name, what=self.file_of(taken))
                models.remove(taken)
            if len(models) >= MAX_MODELS:
                raise TooManyModels(count=len(models))
            models.append(model)

    def remove(self, name: str) -> tuple[ManifestModel, bool]:
        """Forget a model. The second value: its file is ours, and no other entry needs it. Raises ModelNotListed."""
        with self._editing() as models:
            found = next((model for model in models if model.name == name), None)
            if found is None:
                raise ModelNotListed(name=name)
            models.remove(found)
            disposable = found.is_ours and self.file_of(found) not in {self.file_of(model) for model in models}
        return found, disposable

    @contextlib.contextmanager
    def _editing(self) -> Iterator[list[ManifestModel]]:
        """The models as a list to change; written back whole when the block ends well. One editor at a time."""
        with sole_editor(self._path, ManifestBusy):
            models = list(self.models())
            yield models
            replace_private_file(self._path, _serialise(models))


def checked_name(name: str) -> str:
    """The name, when a model may have it; raises ModelNameInvalid."""
    if not NAME_PATTERN.fullmatch(name):
        raise ModelNameInvalid(name=repr(name[:100]))
    return name


def _serialise(models: list[ManifestModel]) -> bytes:
    return (json.dumps({"version": _VERSION, "models": [asdict(model) for model in models]}, indent=2) + "\n").encode()


def _parse(data: bytes) -> tuple[ManifestModel, ...]:
    """Raises ValueError with what is wrong (JSONDecodeError and UnicodeDecodeError are such)."""
    document = json.loads(data)
    if not isinstance(document, dict) or document.get("version") != _VERSION:
        raise ValueError(f"it is no list of models of version {_VERSION}")
    entries = document.get("models")
    if not isinstance(entries, list) or len(entries) > MAX_MODELS:
        raise ValueError(f"`models` must be a list of at most {MAX_MODELS}")
    models = tuple(_parse_model(entry, number) for number, entry in enumerate(entries, start=1))
    if len({model.name for model in models}) < len(models):
        raise ValueError("two models have the same name")
    return models


def _parse_model(entry: object, number: int) -> ManifestModel:
    wanted = [field.name for field in fields(ManifestModel)]
    if (
        not isinstance(entry, dict)
        or set(entry) != set(wanted)
        or not all(isinstance(value, str) for value in entry.values())
    ):
        raise ValueError(f"model {number} must have exactly {', '.join(wanted)}, each a text")
    if not NAME_PATTERN.fullmatch(entry["name"]):
        raise ValueError(f"model {number} has a name that no model may have")
    if entry["kind"] not in get_args(Kind) or entry["sha256_from"] not in get_args(DigestSource):
        raise ValueError(f"model {number} has an unknown kind or sha256_from")
    if not _SHA256.fullmatch(entry["sha256"]) or not _SHA256.fullmatch(entry["file_sha256"]):
        raise ValueError(f"model {number} has no SHA-256 in sha256 or file_sha256")
    file = Path(entry["file"])
    if "\0" in entry["file"] or not (file.is_absolute() or (file.name == entry["file"] and file.suffix == ".gguf")):
        raise ValueError(f"model {number}: file must be an absolute path, or the name of a .gguf in the models folder")
    return ManifestModel(**entry)
