"""A node's folder, a hub with one model, and the catalogue's entry for it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from ryvion_node.library.fetch import Fetched, Fetcher, Stage
from ryvion_node.library.hub import Hub
from ryvion_node.models.catalogue import CatalogueModel, catalogue
from ryvion_node.paths import Paths, resolve_paths
from tests.node.library.fake_hub import FakeHub, fake_hub

SOURCE, FILE = "somebody/some-model-gguf", "some-model.Q8_0.gguf"
ENTRY = CatalogueModel(
    name="some-model",
    aliases=("some",),
    source=SOURCE,
    file=FILE,
    kind="chat",
    quantisation="Q8_0",
    context_tokens=1024,
    licence="MIT",
    digest=None,
    path=None,
    prompts=None,
)


def bundled_bytes() -> bytes:
    """A real model, as if another hub published it."""
    path = catalogue().bundled()[0].path
    assert path is not None
    return path.read_bytes()


@dataclass(slots=True)
class World:
    """The hub, the node, and what the owner does."""

    hub: FakeHub
    paths: Paths
    waits_s: list[float]
    steps: list[tuple[Stage, int, int]]

    @property
    def content(self) -> bytes:
        return self.hub.files[f"{SOURCE}/{FILE}"]

    @content.setter
    def content(self, content: bytes) -> None:
        self.hub.files[f"{SOURCE}/{FILE}"] = content

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def target(self) -> Path:
        return self.paths.models_folder / FILE

    @property
    def leftovers(self) -> list[Path]:
        return list(self.paths.models_folder.glob(".*.part"))

    def entry(self, digest: str = "") -> CatalogueModel:
        return replace(ENTRY, digest=bytes.fromhex(digest) if digest else None)

    def fetcher(self) -> Fetcher:
        """As each call of the command line makes one."""
        return Fetcher(self.paths, Hub(self.hub.endpoint, sleep=self.waits_s.append))

    def pull(self, digest: str = "") -> Fetched:
        return self.fetcher().model(self.entry(digest), lambda *step: self.steps.append(step))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with fake_hub() as hub:
        world = World(hub, resolve_paths(tmp_path / "home"), [], [])
        world.content = bundled_bytes()
        yield world
