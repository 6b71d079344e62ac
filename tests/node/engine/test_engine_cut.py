"""A GGUF cut to its header counts tokens as the whole file does; damage is found before anything is written."""

from __future__ import annotations

import io
import random
import struct
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from ryvion_node.engine.counter import VocabCounter
from ryvion_node.engine.gguf import GgufError, read_header
from ryvion_node.engine.gguf_cut import cut_file, cut_header
from ryvion_node.engine.interface import Turn
from tests.node.engine.engine_support import TERNARY, TINY
from tests.node.engine.test_engine_files import ENTRIES, entry, header, text

VOCABULARY = [*ENTRIES, entry("tokenizer.ggml.model", 8, text("gpt2"))]
WHOLE, CUT = b"w" * 32, b"c" * 32


def sample_texts(count: int) -> list[str]:
    """Words, other scripts, control-token look-alikes and single bytes of every kind, the same in every run."""
    chance = random.Random(7)
    parts = ["the", " capital of", "\n\n", "  ", "日本", "🦉", "é", "\u0301", "<|end|>", "<|assistant|>", "0", "3.14", "\t", "def f(x):", "\x00", "ß"]  # fmt: skip
    made = ["".join(chance.choices(parts, k=chance.randint(1, 40))) for _ in range(count)]
    wild = ["".join(chr(chance.randint(1, 0xD7FF)) for _ in range(chance.randint(1, 60))) for _ in range(count)]
    return ["", *made, *wild]


@pytest.mark.parametrize("model", [TINY, TERNARY], ids=lambda path: path.name)
async def test_the_cut_file_counts_as_the_whole_one(model: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(cut_file(model))
    counter = VocabCounter({WHOLE: model, CUT: cut})
    texts = sample_texts(150)
    async with trio.open_nursery() as nursery:
        await nursery.start(counter.run)
        for part in texts:
            assert await counter.count_texts(WHOLE, [part]) == await counter.count_texts(CUT, [part]), repr(part)
        for first, second in zip(texts[::2], texts[1::2], strict=False):
            turns = (Turn("system", first), Turn("user", second), Turn("assistant", "Yes."), Turn("user", first[:9]))
            assert await counter.count_prompt(WHOLE, turns) == await counter.count_prompt(CUT, turns), repr(turns)
        nursery.cancel_scope.cancel()


def test_nothing_but_metadata_is_left() -> None:
    cut = cut_file(TINY)
    assert len(cut) < 64 * 1024 < TINY.stat().st_size
    assert TINY.read_bytes().startswith(cut[24:], 24)
    assert struct.unpack_from("<IQ", cut, 4) == (3, 0)


def test_the_header_still_reads_the_same(tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(cut_file(TINY))
    whole, cut = read_header(TINY), read_header(path)
    assert (cut.name, cut.architecture, cut.context_tokens, cut.tensors) == (
        whole.name,
        whole.architecture,
        whole.context_tokens,
        0,
    )


def test_the_beginning_of_a_file_is_enough() -> None:
    cut = cut_file(TINY)
    assert cut_header(io.BytesIO(TINY.read_bytes()[: len(cut)]), "a beginning") == cut


def test_cutting_a_cut_file_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(cut_file(TINY))
    assert cut_file(path) == path.read_bytes()


def test_a_part_of_a_split_model_stands_alone_afterwards() -> None:
    split = entry("split.count", 2, struct.pack("<H", 3))
    assert cut_header(io.BytesIO(header([split, *VOCABULARY])), "x") == cut_header(io.BytesIO(header(VOCABULARY)), "x")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "truncated"),
        (b"<html>not found</html>", "wrong magic"),
        (header(), "no vocabulary"),
        (header(VOCABULARY, version=1), "version 1"),
        (header(VOCABULARY, count=2**40), "metadata entries"),
        (header(VOCABULARY)[:-1], "truncated"),
        (header([entry("k", 8, struct.pack("<Q", 2**62))]), "string of"),
        (header([entry("k", 9, struct.pack("<IQ", 4, 2**62))]), "array of"),
    ],
)
def test_damage_is_named(data: bytes, reason: str) -> None:
    with pytest.raises(GgufError, match=reason) as caught:
        cut_header(io.BytesIO(data), "remote.gguf")
    assert "remote.gguf" in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(GgufError, match="no such file"):
        cut_file(tmp_path / "none.gguf")


@given(st.integers(0, len(header(VOCABULARY)) - 1), st.integers(0, 255))
@settings(max_examples=200)
def test_any_changed_byte_gives_a_cut_or_an_error(place: int, value: int) -> None:
    data = bytearray(header(VOCABULARY))
    data[place] = value
    try:
        cut = cut_header(io.BytesIO(bytes(data)), "x")
    except GgufError:
        return
    assert len(cut) <= len(data)
