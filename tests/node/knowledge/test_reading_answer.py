"""What a reading process writes is understood whole, or not at all."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading_support import shown

from ryvion_node.knowledge import constants as limits
from ryvion_node.knowledge.interface import Block, DocumentText
from ryvion_node.knowledge.reading.answer import BadAnswer, pack_document, pack_unreadable, unpack
from ryvion_node.knowledge.reading.builder import TextBuilder
from ryvion_node.knowledge.reading.errors import UnreadableDocument

KINDS = st.sampled_from(["heading", "prose", "list", "table", "code"])
TITLES = st.lists(st.text(max_size=20), max_size=10).map(tuple)


@st.composite
def built(draw: st.DrawFn) -> DocumentText:
    """What a builder makes of anything."""
    builder = TextBuilder()
    pages = draw(st.none() | st.integers(1, 9))
    for _ in range(draw(st.integers(0, 8))):
        page = None if pages is None else draw(st.integers(1, pages))
        builder.add(draw(KINDS), draw(st.text(max_size=60)), draw(TITLES), page)
    for warning in draw(st.lists(st.text("ab 7(é", min_size=1, max_size=30).filter(str.strip), max_size=3)):
        builder.warn(warning)
    return builder.build(pages)


@settings(deadline=None)
@given(built())
def test_every_document_comes_back(document: DocumentText) -> None:
    assert unpack(pack_document(document)) == document
    assert all(len(path) <= limits.MAX_HEADINGS for _kind, _text, path in shown(document))


@settings(deadline=None)
@given(st.binary(max_size=200) | st.binary(max_size=100).map(lambda tail: b"text" + tail))
def test_any_bytes_are_refused(answer: bytes) -> None:
    with pytest.raises((BadAnswer, UnreadableDocument)):
        unpack(answer)


@settings(deadline=None)
@given(built(), st.data())
def test_a_changed_answer_is_a_sound_document_or_refused(document: DocumentText, data: st.DataObject) -> None:
    answer = bytearray(pack_document(document))
    answer[data.draw(st.integers(0, len(answer) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(BadAnswer, UnreadableDocument):
        changed = unpack(bytes(answer))
        end = 0
        for block in changed.blocks:
            assert end <= block.start < block.end <= len(changed.text)
            end = block.end
        assert all("\x1b" not in warning for warning in changed.warnings)


BLOCK = Block("prose", 0, 3, ("A",), 1)
DOCUMENT = DocumentText("abc def", (BLOCK,), 2)


@pytest.mark.parametrize(
    "wrong",
    [
        replace(DOCUMENT, blocks=(replace(BLOCK, end=8),)),
        replace(DOCUMENT, blocks=(replace(BLOCK, end=0),)),
        replace(DOCUMENT, blocks=(replace(BLOCK, page=3),)),
        replace(DOCUMENT, blocks=(BLOCK, replace(BLOCK, start=2, end=5))),
        replace(DOCUMENT, blocks=(replace(BLOCK, headings=("x" * 201,)),)),
        replace(DOCUMENT, blocks=(replace(BLOCK, headings=("",)),)),
        replace(DOCUMENT, blocks=(replace(BLOCK, headings=tuple("abcdefghi")),)),
        replace(DOCUMENT, pages=10_001),
    ],
)
def test_what_no_reader_writes_is_refused(wrong: DocumentText) -> None:
    assert unpack(pack_document(DOCUMENT)) == DOCUMENT
    with pytest.raises(BadAnswer):
        unpack(pack_document(wrong))


def test_trailing_and_missing_bytes_are_refused() -> None:
    answer = pack_document(DOCUMENT)
    for wrong in (answer + b"\0", *(answer[:size] for size in range(len(answer)))):
        with pytest.raises(BadAnswer):
            unpack(wrong)


def test_a_refusal_steers_no_terminal() -> None:
    with pytest.raises(UnreadableDocument) as caught:
        unpack(pack_unreadable("\x1b[31mred\n" + "x" * 1000))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) == limits.MAX_MESSAGE_CHARS


def test_headings_are_counted_before_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six bytes of an answer are a hundred in memory."""
    builder = TextBuilder()
    for number in range(3):
        builder.add("prose", "text", (f"heading {number}",))
    answer = pack_document(builder.build())
    monkeypatch.setattr(limits, "MAX_TITLES", 2)
    with pytest.raises(BadAnswer, match="counts"):
        unpack(answer)
    with pytest.raises(UnreadableDocument, match="more than 2 headings"):
        pack_document(builder.build())
