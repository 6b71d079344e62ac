"""What was measured of models when they were last loaded, so that one can be offered before it is loaded again."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Final

from ryvion_node.engine.claims import is_possible
from ryvion_node.engine.constants import MAX_FIGURES, MAX_FIGURES_BYTES
from ryvion_node.engine.interface import ModelSpec
from ryvion_node.engine.wire import Ready
from ryvion_node.errors import OperatorError
from ryvion_node.paths import make_private_folder, read_private_file, replace_private_file

_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one file under one set of settings."""

    quantisation: str
    kind: str
    dimensions: int
    context_tokens: int
    millitokens_per_s: int
    prompt_millitokens_per_s: int
    load_ms: int

    @classmethod
    def of(cls, ready: Ready, load_ms: int) -> Figures:
        return cls(
            ready.quantisation,
            ready.kind,
            ready.dimensions,
            ready.context_tokens,
            ready.millitokens_per_s,
            ready.prompt_millitokens_per_s,
            load_ms,
        )


class FigureBook:
    """Figures by digest and settings, in memory and optionally in a private JSON file. The newest are kept."""

    def __init__(self, store: Path | None = None) -> None:
        self._store = store
        self._known = _load(store) if store is not None else {}

    def get(self, spec: ModelSpec, digest: bytes) -> Figures | None:
        return self._known.get(_key(spec, digest))

    def put(self, spec: ModelSpec, digest: bytes, figures: Figures) -> None:
        """Blocking."""
        if self._store is not None:
            # Another node may have written to the same store meanwhile.
            self._known = _load(self._store) | self._known
        key = _key(spec, digest)
        self._known.pop(key, None)
        self._known[key] = figures
        while len(self._known) > MAX_FIGURES:
            del self._known[next(iter(self._known))]
        if self._store is not None:
            _save(self._store, self._known)


def _key(spec: ModelSpec, digest: bytes) -> str:
    """Everything that the figures depend on, but for the machine: each load measures anew."""
    settings = (spec.context_tokens, spec.slots, spec.gpu_layers, spec.threads, (spec.template_digest or b"").hex())
    return digest.hex() + "-" + hashlib.sha256(repr(settings).encode()).hexdigest()[:16]


def _load(store: Path) -> dict[str, Figures]:
    try:
        document = json.loads(read_private_file(store, MAX_FIGURES_BYTES))
        if document["version"] != _VERSION:
            return {}
        return {str(key): _figures(values) for key, values in document["figures"].items()}
    except (OperatorError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        # Only a cache: without it models are measured again.
        return {}


def _figures(values: dict[str, object]) -> Figures:
    """Raises ValueError or TypeError."""
    kinds = {field.name: str if field.type == "str" else int for field in fields(Figures)}
    if set(values) != set(kinds) or not all(type(value) is kinds[name] for name, value in values.items()):
        raise ValueError("not figures")
    figures = Figures(**values)  # type: ignore[arg-type]  # types were just compared
    if figures.load_ms < 0 or not is_possible(figures):
        raise ValueError("impossible figures")
    return figures


def _save(store: Path, known: dict[str, Figures]) -> None:
    document = {"version": _VERSION, "figures": {key: asdict(figures) for key, figures in known.items()}}
    with suppress(OperatorError):
        make_private_folder(store.parent)
        replace_private_file(store, json.dumps(document).encode())
