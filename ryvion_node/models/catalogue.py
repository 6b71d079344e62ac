"""The models that a node knows by name, out of models.toml: strict, so that a slip in the file is found at once."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final, Literal

CATALOGUE_FILE: Final = "models.toml"
MAX_CONTEXT_TOKENS: Final = 1 << 20
"""Larger than that of any model there is; catches a slip of the finger."""

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_FILE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\.gguf")
_SOURCE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_PROMPTS: Final = re.compile(r"[a-z0-9_-]{1,64}\.toml")


class CatalogueError(Exception):
    """models.toml is not as it must be. Reinstall ryvion-node, or undo the last edit of the file."""


@dataclass(frozen=True, slots=True)
class CatalogueModel:
    """One model as the catalogue describes it."""

    name: str
    aliases: tuple[str, ...]
    source: str
    """Repository that publishes the file, as owner/name; empty for a bundled one."""
    file: str
    kind: Literal["chat", "embedding"]
    quantisation: str
    context_tokens: int
    licence: str
    digest: bytes | None
    """SHA-256 of the file (32 bytes); None: nobody has checked it."""
    path: Path | None
    """Where the bundled file lies; None: the operator has to fetch it."""
    prompts: Path | None
    """The documented prompts and their answers."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All models of the file, in its order."""

    models: tuple[CatalogueModel, ...]

    def find(self, name: str) -> CatalogueModel | None:
        """The model of this name or alias."""
        return next((model for model in self.models if name == model.name or name in model.aliases), None)

    def digests(self) -> dict[str, bytes]:
        """Every name and alias whose file somebody has checked, with the SHA-256 of that file."""
        return {
            name: model.digest
            for model in self.models
            if model.digest is not None
            for name in (model.name, *model.aliases)
        }

    def bundled(self) -> tuple[CatalogueModel, ...]:
        """The models whose files come with the package."""
        return tuple(model for model in self.models if model.path is not None)


@cache
def catalogue() -> Catalogue:
    """The catalogue that comes with the package."""
    folder = Path(str(files(__package__)))
    return parse_catalogue((folder / CATALOGUE_FILE).read_text(encoding="utf-8"), folder)


def parse_catalogue(text: str, folder: Path) -> Catalogue:
    """Read models.toml; bundled files and prompts are looked for in the folder. Raises CatalogueError."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise CatalogueError(f"{CATALOGUE_FILE} is no TOML: {exc}") from exc
    entries = content.pop("model", None)
    if content or not isinstance(entries, list) or not entries:
        raise CatalogueError(f"{CATALOGUE_FILE} must hold [[model]] entries and nothing else")
    models = tuple(_model(entry, position, folder) for position, entry in enumerate(entries, 1))
    names = [name for model in models for name in (model.name, *model.aliases)]
    for name in names:
        if names.count(name) > 1:
            raise CatalogueError(f"two models are called {name!r}")
    return Catalogue(models)


def _model(entry: object, position: int, folder: Path) -> CatalogueModel:
    if not isinstance(entry, dict):
        raise CatalogueError(f"model {position} is no table")
    reader = _Reader(entry, f"model {position} ({entry.get('name', 'without a name')})")
    bundled = reader.flag("bundled")
    file = reader.matching("file", _FILE)
    digest = reader.matching("digest", _DIGEST, empty=True)
    prompts = reader.matching("prompts", _PROMPTS, empty=True)
    model = CatalogueModel(
        name=reader.matching("name", _NAME),
        aliases=reader.names("aliases"),
        source=reader.matching("source", _SOURCE, empty=bundled),
        file=file,
        kind=reader.kind(),
        quantisation=reader.text("quantisation"),
        context_tokens=reader.count("context_tokens", MAX_CONTEXT_TOKENS),
        licence=reader.text("licence"),
        digest=bytes.fromhex(digest) if digest else None,
        path=folder / file if bundled else None,
        prompts=folder / prompts if prompts else None,
    )
    reader.finish()
    if bundled and not digest:
        raise CatalogueError(f"{reader.where}: a bundled file needs its digest")
    return model


class _Reader:
    """Takes values out of a table one by one, so that what is left over is known to be a mistake."""

    def __init__(self, entry: Mapping[str, object], where: str) -> None:
        self._entry = dict(entry)
        self.where = where

    def text(self, key: str) -> str:
        value = self._take(key)
        if not isinstance(value, str) or not value.strip():
            raise CatalogueError(f"{self.where}: {key} must be a text")
        return value

    def matching(self, key: str, pattern: re.Pattern[str], *, empty: bool = False) -> str:
        value = self._take(key)
        if isinstance(value, str) and (pattern.fullmatch(value) or (empty and not value)):
            return value
        raise CatalogueError(f"{self.where}: {key} must look like {pattern.pattern}{' or be empty' if empty else ''}")

    def names(self, key: str) -> tuple[str, ...]:
        value = self._take(key)
        if isinstance(value, list) and all(isinstance(name, str) and _NAME.fullmatch(name) for name in value):
            return tuple(value)
        raise CatalogueError(f"{self.where}: {key} must be a list of model names")

    def kind(self) -> Literal["chat", "embedding"]:
        match self._take("kind"):
            case "chat":
                return "chat"
            case "embedding":
                return "embedding"
            case _:
                raise CatalogueError(f"{self.where}: kind must be chat or embedding")

    def count(self, key: str, largest: int) -> int:
        value = self._take(key)
        if type(value) is not int or not 1 <= value <= largest:
            raise CatalogueError(f"{self.where}: {key} must be a whole number from 1 to {largest}")
        return value

    def flag(self, key: str) -> bool:
        value = self._take(key)
        if not isinstance(value, bool):
            raise CatalogueError(f"{self.where}: {key} must be true or false")
        return value

    def finish(self) -> None:
        if self._entry:
            raise CatalogueError(f"{self.where}: unknown {', '.join(sorted(self._entry))}")

    def _take(self, key: str) -> object:
        if key not in self._entry:
            raise CatalogueError(f"{self.where}: {key} is missing")
        return self._entry.pop(key)
