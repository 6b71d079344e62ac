"""Adds files that the owner has to the manifest, and takes models off it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ryvion_node.engine.files import DigestCache
from ryvion_node.engine.gguf import GgufError, GgufHeader, read_header
from ryvion_node.engine.gguf_cut import cut_file
from ryvion_node.errors import EXIT_DATA, EXIT_NO_INPUT, OperatorError
from ryvion_node.library.facts import read_facts
from ryvion_node.library.fetch import keep_header
from ryvion_node.library.manifest import Manifest, ManifestModel, ModelNameTaken, checked_name
from ryvion_node.models.catalogue import catalogue
from ryvion_node.paths import Paths, make_private_folder


class NotAModelFile(OperatorError):
    """Not added: {reason}."""

    exit_code = EXIT_DATA


class NoWeights(OperatorError):
    """{path} holds no weights: it is a model cut down to its header, which can only count tokens. Add it as that with:
    ryvion-node models add {path} --tokenizer-of SHA256, where SHA256 is that of the whole model.
    """

    exit_code = EXIT_DATA


class NotTheCatalogueFile(OperatorError):
    """{path} is not the {name} of the catalogue: its SHA-256 is {found}, the catalogue says {expected}. Add it under
    another name with --name.
    """

    exit_code = EXIT_DATA


class FileIsGone(OperatorError):
    """{path} does not exist."""

    exit_code = EXIT_NO_INPUT


@dataclass(frozen=True, slots=True)
class Added:
    """What was added."""

    model: ManifestModel
    path: Path
    header: GgufHeader


def add_model(paths: Paths, file: Path, name: str | None) -> Added:
    """List a model file, which stays where it is. Reads all of it once. Raises OperatorError."""
    path, header = _sound(file)
    if not header.tensors:
        raise NoWeights(path=path)
    name = _free_name(paths, name, path)
    make_private_folder(paths.home)
    try:
        read_facts(path)  # also sees whether all of its weights are there
        digest = DigestCache(paths.digests_file).digest(path)
    except GgufError as exc:
        raise NotAModelFile(reason=exc) from exc
    _must_fit_catalogue(name, path, digest)
    hexed = digest.hex()
    model = ManifestModel(name, "model", str(path), sha256=hexed, sha256_from="file", file_sha256=hexed, origin="")
    Manifest(paths).put(model, replace=False)
    return Added(model, path, header)


def add_tokenizer(paths: Paths, file: Path, name: str | None, digest: bytes) -> Added:
    """Cut a file down to its header and keep that as the tokenizer of the model with `digest`. Raises OperatorError."""
    path, header = _sound(file)
    name = _free_name(paths, name, path)
    _must_fit_catalogue(name, path, digest)
    try:
        cut = cut_file(path)
    except GgufError as exc:
        raise NotAModelFile(reason=exc) from exc
    model, kept = keep_header(paths, name, cut, digest, "owner", "", replace=False)
    return Added(model, kept, header)


def remove_model(paths: Paths, name: str) -> tuple[ManifestModel, Path, bool]:
    """Take a model off the list, and delete its file when it lies in the node's own folder. Raises ModelNotListed.

    Returns what it was, where its file is or was, and whether that was deleted.
    """
    manifest = Manifest(paths)
    model, disposable = manifest.remove(name)
    path = manifest.file_of(model)
    if disposable:
        path.unlink(missing_ok=True)
    return model, path, disposable


def _sound(file: Path) -> tuple[Path, GgufHeader]:
    path = file.expanduser().absolute()
    if not path.is_file():
        raise FileIsGone(path=path)
    try:
        return path, read_header(path)
    except GgufError as exc:
        raise NotAModelFile(reason=exc) from exc


def _free_name(paths: Paths, name: str | None, path: Path) -> str:
    """The name to use; raises ModelNameInvalid, and ModelNameTaken before a large file is read for nothing."""
    chosen = checked_name(path.stem if name is None else name)
    entry = catalogue().find(chosen)
    if entry is not None and entry.path is not None:
        raise ModelNameTaken(name=chosen, what="it comes with the node")
    taken = Manifest(paths).find(chosen)
    if taken is not None:
        raise ModelNameTaken(name=chosen, what=Manifest(paths).file_of(taken))
    return chosen


def _must_fit_catalogue(name: str, path: Path, digest: bytes) -> None:
    entry = catalogue().find(name)
    if entry is not None and entry.digest is not None and entry.digest != digest:
        raise NotTheCatalogueFile(path=path, name=name, found=digest.hex(), expected=entry.digest.hex())
