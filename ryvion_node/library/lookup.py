"""One look-up for models by name: those that come with the node, and those that its owner pulled or added."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ryvion_node.config import ModelSection, NodeConfig
from ryvion_node.engine.constants import MAX_TEMPLATE_CHARS
from ryvion_node.engine.files import DigestCache
from ryvion_node.engine.gguf import GgufError
from ryvion_node.engine.interface import ModelSpec
from ryvion_node.errors import EXIT_CONFIG, EXIT_USAGE, OperatorError
from ryvion_node.library.manifest import Manifest
from ryvion_node.log import log_event
from ryvion_node.models.catalogue import catalogue
from ryvion_node.paths import Paths

log = logging.getLogger("ryvion.library")


class NotAtHand(OperatorError):
    """There is no {what} here. These are at hand: {names}. {fetch}For any other give its file:
    NAME=/path/to/model.gguf, or `path` in the configuration.
    """

    exit_code = EXIT_USAGE


class TemplateNotUsable(OperatorError):
    """The chat template {path} cannot be used: {reason}. Correct `template` in the configuration, or leave it away to
    use the model's own.
    """

    exit_code = EXIT_CONFIG


@dataclass(frozen=True, slots=True)
class AtHand:
    """A whole model with its file."""

    name: str
    path: Path
    digest: bytes
    """SHA-256 that the file must have."""


class Library:
    """What one node has, as it was when this was made."""

    def __init__(self, paths: Paths) -> None:
        """Raises ManifestCorrupt or TooOpen."""
        self._manifest = Manifest(paths)
        self._owned = {model.name: model for model in self._manifest.models()}
        self._digests = DigestCache(paths.digests_file)

    def names(self) -> tuple[str, ...]:
        """Of every whole model that is here."""
        bundled = [known.name for known in catalogue().bundled()]
        return (*bundled, *(model.name for model in self._owned.values() if model.kind == "model"))

    def find(self, name: str) -> AtHand | None:
        """The model of this name, or of this alias in the catalogue."""
        entry = catalogue().find(name)
        if entry is not None and entry.path is not None and entry.digest is not None:
            return AtHand(entry.name, entry.path, entry.digest)
        owned = self._owned.get(name) or self._owned.get(entry.name if entry is not None else name)
        if owned is None or owned.kind != "model":
            return None
        return AtHand(owned.name, self._manifest.file_of(owned), bytes.fromhex(owned.sha256))

    def specs(self, config: NodeConfig) -> tuple[ModelSpec, ...]:
        """The models to serve, as the engine takes them; raises NotAtHand or TemplateNotUsable."""
        return tuple(self._spec(model) for model in config.executor.models)

    def tokenizers(self, config: NodeConfig) -> dict[bytes, Path]:
        """Model digest -> a GGUF with its tokenizer: whatever is bundled, served, pulled or added. May read whole files."""
        found = dict(self._headers())
        for path in (*self._whole_files(), *(spec.path for spec in self.specs(config))):
            with suppress(GgufError):  # the engine or `models verify` says what is wrong with it
                found[self._digests.digest(path)] = path
        return found | {known.digest: known.path for known in catalogue().bundled() if known.digest and known.path}

    def _whole_files(self) -> Iterator[Path]:
        return (self._manifest.file_of(model) for model in self._owned.values() if model.kind == "model")

    def _headers(self) -> Iterator[tuple[bytes, Path]]:
        """A header names the digest of its whole model only by what the manifest says, so it must be the one listed."""
        for model in self._owned.values():
            if model.kind == "tokenizer":
                path = self._manifest.file_of(model)
                try:
                    unchanged = self._digests.digest(path).hex() == model.file_sha256
                except GgufError:
                    unchanged = False
                if unchanged:
                    yield bytes.fromhex(model.sha256), path
                else:
                    log_event(log, "tokenizer_not_used", digest=model.sha256, reason="its file changed or is gone")

    def _spec(self, model: ModelSection) -> ModelSpec:
        known = None if model.path is not None else self.find(model.bundled or model.name)
        path = model.path if known is None else known.path
        if path is None:
            raise self._not_at_hand(model.bundled or model.name)
        return ModelSpec(
            name=model.name,
            path=path,
            digest=model.digest or (None if known is None else known.digest),
            context_tokens=model.context_tokens,
            slots=model.slots,
            gpu_layers=model.gpu_layers,
            threads=model.threads,
            template=model.template,
            template_digest=None if model.template is None else _template_digest(model.template),
            load=model.load,
            idle_unload_s=model.idle_unload_s,
            walls=model.walls,
        )

    def _not_at_hand(self, name: str) -> NotAtHand:
        entry = catalogue().find(name)
        fetch = "" if entry is None else f"`ryvion-node models pull {entry.name}` fetches this one. "
        owned = self._owned.get(name)
        what = f"file of the model {name}" if owned is None else f"more than the tokenizer of {name}, to count with,"
        return NotAtHand(what=what, names=", ".join(self.names()), fetch=fetch)


def _template_digest(path: Path) -> bytes:
    """SHA-256 of a template as it is now: the worker takes no other until the node is started again."""
    try:
        with path.open("rb") as file:
            data = file.read(4 * MAX_TEMPLATE_CHARS + 1)
    except OSError as exc:
        raise TemplateNotUsable(path=path, reason=(exc.strerror or str(exc)).lower()) from exc
    if len(data) > 4 * MAX_TEMPLATE_CHARS:
        raise TemplateNotUsable(path=path, reason=f"it is larger than {4 * MAX_TEMPLATE_CHARS} bytes")
    return hashlib.sha256(data).digest()
