"""A small model whose greedy answers never end by themselves, for the whole test run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from engine_support import TINY

from ryvion_node.engine.interface import ModelSpec
from ryvion_node.engine.worker.grammar import Grammars
from ryvion_node.engine.worker.llama import Log, Model

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One layer of random weights under the bundled tokenizer and template."""
    if str(SCRIPTS) not in sys.path:
        sys.path.append(str(SCRIPTS))
    from tiny_model.random_model import write_random_model

    path = tmp_path_factory.mktemp("models") / "small.gguf"
    write_random_model(path, 5_000_000)
    return path


@pytest.fixture
def spec(small_model: Path) -> ModelSpec:
    """The small model as the owner's manifest would name it."""
    return ModelSpec(name="small", path=small_model, context_tokens=512, slots=4, threads=1)


@pytest.fixture(scope="module")
def model() -> Model:
    """The vocabulary of the bundled model, in this process."""
    return Model(TINY, vocab_only=True, gpu_layers=0, on_progress=lambda _share: None, log=Log())


@pytest.fixture(scope="module")
def grammars(model: Model) -> Grammars:
    return Grammars(model.vocabulary)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A node's private folder."""
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    return folder
