"""Chunks hold every word of a document, in spans that can be made again."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ryvion_node.knowledge.chunking import ChunkSizes, cut
from ryvion_node.knowledge.interface import Block, BlockKind, DocumentText

KINDS: tuple[BlockKind, ...] = ("heading", "prose", "list", "table", "code")
LETTERS = st.sampled_from("ab. \n!é\u0301漢。👩\u200d👩🏽🇩🇪\t,Z")
PATHS = st.lists(st.sampled_from(["One", "Two", "Three"]), max_size=3).map(tuple)


def document(*blocks: tuple[BlockKind, str, tuple[str, ...]], pages: bool = False) -> DocumentText:
    """Blocks with an empty line between them, each on a page of its own if any."""
    text, made = "", []
    for number, (kind, block, headings) in enumerate(blocks):
        text += "\n\n" if made else ""
        made.append(Block(kind, len(text), len(text) + len(block), headings, number + 1 if pages else None))
        text += block
    return DocumentText(text, tuple(made), len(blocks) if pages else None)


BLOCKS = st.tuples(st.sampled_from(KINDS), st.text(LETTERS, min_size=1, max_size=200).filter(str.strip), PATHS)
DOCUMENTS = st.lists(BLOCKS, max_size=12).map(lambda blocks: document(*blocks))
SIZES = st.integers(16, 120).flatmap(lambda most: st.builds(ChunkSizes, st.just(most), st.integers(0, most // 2)))


@settings(max_examples=200, deadline=None)
@given(DOCUMENTS, SIZES)
def test_every_word_is_in_a_chunk_and_every_chunk_is_its_span(text: DocumentText, sizes: ChunkSizes) -> None:
    chunks = cut(text, sizes)
    assert chunks == cut(text, sizes)
    covered = bytearray(len(text.text))
    for number, chunk in enumerate(chunks):
        assert chunk.number == number
        assert chunk.text == text.text[chunk.start : chunk.end]
        assert chunk.text.strip()
        assert len(chunk.text) <= sizes.most
        covered[chunk.start : chunk.end] = b"\1" * len(chunk.text)
    for block in text.blocks:
        assert all(covered[at] or text.text[at].isspace() for at in range(block.start, block.end))
    for earlier, later in pairwise(chunks):
        assert earlier.start < later.start
        assert earlier.end < later.end
        assert earlier.end - later.start <= sizes.overlap


@settings(deadline=None)
@given(DOCUMENTS, SIZES)
def test_no_chunk_goes_across_a_top_heading(text: DocumentText, sizes: ChunkSizes) -> None:
    tops = [block.start for block in text.blocks if block.kind == "heading" and len(block.headings) < 2]
    for chunk in cut(text, sizes):
        inside = [top for top in tops if chunk.start < top < chunk.end]
        kinds = [block.kind for block in text.blocks if block.start < chunk.end and block.end > chunk.start]
        body = next((number for number, kind in enumerate(kinds) if kind != "heading"), len(kinds))
        assert not inside or len(inside) <= body, "only headings without a text between them stay together"


@settings(deadline=None)
@given(st.text(st.sampled_from("e\u0301👩\u200d🏽🇩🇪\u0928\u093f"), min_size=40, max_size=400))
def test_no_character_is_cut(line: str) -> None:
    from ryvion_node.knowledge.chunking import _belongs_together

    chunks = cut(document(("prose", line, ())), ChunkSizes(64, 0))
    for chunk in chunks[:-1]:
        near = line[max(0, chunk.end - 32) : chunk.end + 1]
        assert not _belongs_together(line, chunk.end) or all(
            _belongs_together(near, at) for at in range(1, len(near) - 1)
        )


def test_chunks_end_with_sentences_and_repeat_whole_ones() -> None:
    sentences = [f"Sentence number {number} says something about bridges." for number in range(40)]
    chunks = cut(document(("prose", " ".join(sentences), ())), ChunkSizes(300, 60))
    for chunk in chunks:
        assert chunk.text.startswith("Sentence number")
        assert chunk.text.endswith("bridges.")
    assert all(later.start < earlier.end for earlier, later in pairwise(chunks))


def test_a_block_that_fits_is_not_cut() -> None:
    blocks: list[tuple[BlockKind, str, tuple[str, ...]]] = [
        ("prose", "word " * count, ()) for count in (30, 50, 55, 20, 58)
    ]
    blocks = [(kind, text.strip(), path) for kind, text, path in blocks]
    chunks = cut(document(*blocks), ChunkSizes(300, 0))
    assert [chunk.text for chunk in chunks] == [text for _kind, text, _path in blocks]


def test_headings_stay_with_their_text_and_are_known_beside_it() -> None:
    text = document(
        ("heading", "Manual", ()),
        ("heading", "Pumps", ("Manual",)),
        ("prose", "Pumps move water. " * 20, ("Manual", "Pumps")),
        ("heading", "Care", ("Manual", "Pumps")),
        ("prose", "Oil them. " * 8, ("Manual", "Pumps", "Care")),
        ("heading", "Valves", ("Manual",)),
        ("prose", "Valves close.", ("Manual", "Valves")),
        pages=True,
    )
    chunks = cut(text, ChunkSizes(400, 50))
    assert [chunk.text.split("\n")[0] for chunk in chunks] == ["Manual", "Care", "Valves"]
    assert [chunk.headings for chunk in chunks] == [
        ("Manual", "Pumps"),
        ("Manual", "Pumps", "Care"),
        ("Manual", "Valves"),
    ]
    assert [chunk.page for chunk in chunks] == [1, 4, 6]


def test_rows_are_not_repeated_and_lines_of_code_are() -> None:
    lines = "\n".join(f"    line {number} = {number}" for number in range(100))
    for kind, repeats in (("table", False), ("code", True)):
        chunks = cut(document((kind, lines, ())), ChunkSizes(300, 60))
        assert any(later.start < earlier.end for earlier, later in pairwise(chunks)) == repeats
        for chunk in chunks:
            assert chunk.text.startswith("    line")
            assert lines[chunk.end : chunk.end + 1] in ("\n", "")


@pytest.mark.parametrize("sizes", [(15, 0), (100, 51), (100, -1)])
def test_impossible_sizes_are_refused(sizes: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="at least 16 characters and overlap by half"):
        ChunkSizes(*sizes)


@pytest.mark.parametrize("line", ["x", ".", "e\u0301", ". ", "👩\u200d"])
def test_an_endless_line_is_cut_in_linear_time(line: str) -> None:
    """Some 20 times slower, this test would run into its time limit."""
    text = "start " + line * (1_000_000 // len(line)) + " end"
    chunks = cut(document(("prose", text, ())))
    assert chunks[0].text.startswith("start")
    assert chunks[-1].text.endswith("end")
    assert max(len(chunk.text) for chunk in chunks) <= 800
