"""DOCX files: honest, damaged, and made to do harm."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile

import pytest
from docx.document import Document
from docx.oxml import parse_xml
from docx.oxml.ns import nsdecls
from reading_support import docx_file, read, refusal, with_member

from ryvion_node.knowledge import constants as limits

MAIN = "word/document.xml"


def report(document: Document) -> None:
    document.add_heading("Bridges", 0)
    document.add_paragraph("Over rivers.")
    document.add_heading("Parts", 1)
    document.add_paragraph("arch", style="List Bullet")
    document.add_paragraph("pier", style="List Bullet")
    paragraph = document.add_paragraph("One")
    paragraph.add_run().add_break()
    paragraph.add_run("two\tthree")
    table = document.add_table(2, 2)
    for number, cell in enumerate(cell for row in table.rows for cell in row.cells):
        cell.text = f"cell {number}\nmore"
    table.cell(1, 1).add_table(1, 1).cell(0, 0).text = "inner"
    document.add_heading("Deep", 3)
    document.add_paragraph("End.")


def small(document: Document) -> None:
    document.add_paragraph("Words.")


def test_structure_is_kept() -> None:
    parts = ("Bridges", "Parts")
    assert read(docx_file(report), "a.docx") == [
        ("heading", "Bridges", ()),
        ("prose", "Over rivers.", ("Bridges",)),
        ("heading", "Parts", ("Bridges",)),
        ("list", "- arch\n- pier", parts),
        ("prose", "One\ntwo\tthree", parts),
        ("table", "cell 0 more | cell 1 more\ncell 2 more | cell 3 more inner", parts),
        ("heading", "Deep", parts),
        ("prose", "End.", (*parts, "Deep")),
    ]


def test_content_controls_links_and_tracked_changes_are_read_as_seen() -> None:
    word = nsdecls("w")

    def write(document: Document) -> None:
        body = document.element.body
        run = "<w:r><w:t>{}</w:t></w:r>"
        control = f"<w:sdt {word}><w:sdtContent><w:p>{run.format('in a control')}</w:p></w:sdtContent></w:sdt>"
        deleted = "<w:del><w:r><w:delText>deleted</w:delText></w:r></w:del>"
        inserted = f"<w:ins>{run.format('inserted')}</w:ins><w:hyperlink>{run.format(' link')}</w:hyperlink>"
        body.insert(0, parse_xml(control))
        hidden = "<w:r><w:rPr><w:vanish/></w:rPr><w:t>hidden</w:t></w:r>"
        body.insert(1, parse_xml(f"<w:p {word}>{deleted}{inserted}{hidden}</w:p>"))

    assert read(docx_file(write), "a.docx") == [("prose", "in a control", ()), ("prose", "inserted link", ())]


def test_the_name_does_not_matter() -> None:
    assert read(docx_file(small), "a.txt") == [("prose", "Words.", ())]


def test_a_styles_own_headings_count() -> None:
    def write(document: Document) -> None:
        style = document.styles.add_style("Chapter", 1)
        style.base_style = document.styles["Heading 2"]
        document.add_paragraph("Mine", style="Chapter")
        document.add_paragraph("Text.")

    assert read(docx_file(write), "a.docx") == [("heading", "Mine", ()), ("prose", "Text.", ("Mine",))]


BOMB_BYTES = 30 << 20


@pytest.fixture
def bomb(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Small when it is packed; unpacked it holds more than a DOCX may here."""
    monkeypatch.setattr(limits, "MAX_UNPACKED_BYTES", BOMB_BYTES - 1)
    packed = with_member(docx_file(small), MAIN, lambda _xml: b" " * BOMB_BYTES)
    assert len(packed) < 100_000
    return packed


def test_an_honest_bomb_ends_at_its_directory(bomb: bytes) -> None:
    assert "it unpacks to more than" in refusal(bomb, "a.docx")


def test_a_bomb_that_lies_about_its_size_never_unpacks(bomb: bytes) -> None:
    tracemalloc.start()
    try:
        lie = bomb.replace(struct.pack("<I", BOMB_BYTES), struct.pack("<I", 1000))
        assert "damaged DOCX" in refusal(lie, "a.docx")
        assert tracemalloc.get_traced_memory()[1] < BOMB_BYTES // 4
    finally:
        tracemalloc.stop()


def test_pictures_are_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_UNPACKED_BYTES", 1 << 20)
    heavy = io.BytesIO(docx_file(small))
    with zipfile.ZipFile(heavy, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/media/image1.png", bytes(2 << 20))
    assert read(heavy.getvalue(), "a.docx") == [("prose", "Words.", ())]


@pytest.mark.parametrize(
    "declared",
    [
        b'<!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
        b'<!DOCTYPE d [<!ENTITY a "aaaaaaaaaa"><!ENTITY x "&a;&a;&a;&a;&a;">]>',
        b'<!DOCTYPE d SYSTEM "http://127.0.0.1:9/d.dtd">',
    ],
)
def test_entities_are_refused(declared: bytes) -> None:
    def change(xml: bytes) -> bytes:
        head, rest = xml.split(b"?>", 1)
        return head + b"?>" + declared + rest.replace(b"Words.", b"&x;")

    assert "XML entities" in refusal(with_member(docx_file(small), MAIN, change), "a.docx")
    # In UTF-16 the declaration is not seen, yet nothing is resolved.
    utf16 = with_member(
        docx_file(small), MAIN, lambda xml: change(xml).decode().replace("UTF-8", "UTF-16").encode("utf-16")
    )
    assert refusal(utf16, "a.docx").startswith(("it holds no text", "it is a damaged DOCX"))


def nested(xml: bytes) -> bytes:
    return xml.replace(b"<w:body>", b"<w:body>" + b"<w:sdt>" * 100_000)


@pytest.mark.parametrize(
    "hostile",
    [
        docx_file(small)[:-100],
        docx_file(small)[:2000],
        b"PK\x03\x04" + bytes(500),
        with_member(docx_file(small), MAIN, nested),
        with_member(docx_file(small), MAIN, lambda _xml: b"<a/>"),
        with_member(docx_file(small), MAIN, lambda xml: xml[:-30]),
        with_member(docx_file(small), "[Content_Types].xml", lambda _xml: b""),
        with_member(docx_file(small), "_rels/.rels", lambda xml: xml.replace(b"word/document.xml", b"../../x")),
        with_member(docx_file(small), "word/styles.xml", lambda _xml: b"<w:styles>"),
        with_member(docx_file(small), MAIN, lambda xml: xml, packed=zipfile.ZIP_LZMA),
    ],
)
def test_damaged_files_end_in_words(hostile: bytes) -> None:
    assert "damaged" in refusal(hostile, "a.docx")


@pytest.mark.parametrize(
    ("member", "said"),
    [
        ("xl/workbook.xml", "save each sheet as CSV"),
        ("ppt/presentation.xml", "save it as PDF"),
        ("content.xml", "OpenDocument"),
        ("../../etc/passwd", "unpack it"),
    ],
)
def test_other_archives_are_named(member: str, said: str) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(member, "x")
    assert said in refusal(out.getvalue(), "a.docx")


def test_two_files_of_one_name_are_refused() -> None:
    out = io.BytesIO(docx_file(small))
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(out, "a") as archive:
        archive.writestr(MAIN, "<a/>")
    assert "damaged DOCX" in refusal(out.getvalue(), "a.docx")
