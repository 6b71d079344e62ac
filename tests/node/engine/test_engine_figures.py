"""What is remembered of models between runs of the node."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from ryvion_node.engine.constants import MAX_FIGURES
from ryvion_node.engine.figures import FigureBook, Figures
from ryvion_node.engine.interface import ModelSpec

FIGURES = Figures("Q8_0", "chat", 0, 512, 50_000, 500_000, 1200)
SPEC = ModelSpec("small", Path("/models/small.gguf"), slots=4)
DIGEST = b"\1" * 32


@pytest.fixture
def store(home: Path) -> Path:
    return home / "speeds.json"


def test_figures_outlive_the_node_in_a_private_file(store: Path) -> None:
    FigureBook(store).put(SPEC, DIGEST, FIGURES)
    assert FigureBook(store).get(SPEC, DIGEST) == FIGURES
    assert stat.S_IMODE(store.stat().st_mode) == 0o600
    assert FigureBook().get(SPEC, DIGEST) is None


@pytest.mark.parametrize(
    "changes",
    [{"slots": 5}, {"context_tokens": 100}, {"gpu_layers": 0}, {"threads": 2}, {"template_digest": b"t" * 32}],
    ids=lambda changes: next(iter(changes)),
)
def test_other_settings_are_other_figures(store: Path, changes: dict[str, object]) -> None:
    book = FigureBook(store)
    book.put(SPEC, DIGEST, FIGURES)
    assert book.get(replace(SPEC, **changes), DIGEST) is None  # type: ignore[arg-type]
    assert book.get(SPEC, b"\2" * 32) is None
    assert book.get(replace(SPEC, name="other", path=Path("/elsewhere")), DIGEST) == FIGURES


def test_two_nodes_may_share_a_file(store: Path) -> None:
    one, other = FigureBook(store), FigureBook(store)
    one.put(SPEC, DIGEST, FIGURES)
    other.put(SPEC, b"\2" * 32, FIGURES)
    assert FigureBook(store).get(SPEC, DIGEST) == FigureBook(store).get(SPEC, b"\2" * 32) == FIGURES


def test_the_oldest_are_forgotten() -> None:
    book = FigureBook()
    for number in range(MAX_FIGURES + 1):
        book.put(SPEC, number.to_bytes(32), FIGURES)
    assert book.get(SPEC, (0).to_bytes(32)) is None
    assert book.get(SPEC, MAX_FIGURES.to_bytes(32)) == FIGURES


GOOD = {"quantisation": "Q8_0", "kind": "chat", "dimensions": 0, "context_tokens": 1, "millitokens_per_s": 1}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"version": 2, "figures": {}}',
        '{"version": 1, "figures": []}',
        '{"version": 1, "figures": {"a": 1}}',
        json.dumps({"version": 1, "figures": {"a": GOOD}}),
        json.dumps({"version": 1, "figures": {"a": GOOD | {"prompt_millitokens_per_s": "1", "load_ms": 1}}}),
        json.dumps({"version": 1, "figures": {"a": GOOD | {"prompt_millitokens_per_s": True, "load_ms": 1}}}),
        "[" * 100_000,
    ],
)
def test_a_damaged_file_is_an_empty_one(store: Path, content: str) -> None:
    store.write_text(content)
    store.chmod(0o600)
    book = FigureBook(store)
    book.put(SPEC, DIGEST, FIGURES)
    assert FigureBook(store).get(SPEC, DIGEST) == FIGURES


def test_a_file_that_others_may_write_is_not_believed(store: Path) -> None:
    FigureBook(store).put(SPEC, DIGEST, FIGURES)
    store.chmod(0o666)
    assert FigureBook(store).get(SPEC, DIGEST) is None
