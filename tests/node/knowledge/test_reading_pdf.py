"""PDF files: honest, locked, scanned, damaged, and made to do harm."""

from __future__ import annotations

import zlib

import pytest
from fpdf import FPDF
from fpdf.enums import EncryptionMethod
from reading_support import check, refusal, shown

from ryvion_node.knowledge import constants as limits
from ryvion_node.knowledge.reading.document import read_document
from ryvion_node.knowledge.reading.errors import UnreadableDocument

PAGES = ("The bridge is forty metres long.", "", "It was built in 1900 for carri-\nages. The ﬁrst was red.")


def pdf(*pages: str, lock: EncryptionMethod | None = None, user_password: str = "") -> bytes:
    """One page for each text."""
    made = FPDF()
    if lock is not None:
        made.set_encryption("owner", user_password, encryption_method=lock)
    made.set_font("Helvetica", size=12)
    for text in pages:
        made.add_page()
        made.multi_cell(0, text=text.replace("ﬁ", "fi"))
    return bytes(made.output())


def objects(*bodies: str | bytes, xref: bool = True) -> bytes:
    """A PDF of these objects, numbered from 1; the first is its catalogue."""
    out = bytearray(b"%PDF-1.4\n")
    places = []
    for number, body in enumerate(bodies, start=1):
        places.append(len(out))
        out += f"{number} 0 obj\n".encode() + (body if isinstance(body, bytes) else body.encode()) + b"\nendobj\n"
    start = len(out) if xref else 7
    out += f"xref\n0 {len(bodies) + 1}\n0000000000 65535 f \n".encode()
    out += b"".join(f"{place:010} 00000 n \n".encode() for place in places)
    out += f"trailer\n<< /Size {len(bodies) + 1} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF".encode()
    return bytes(out)


def stream(content: bytes, extra: str = "") -> bytes:
    return f"<< /Length {len(content)} {extra} >>\nstream\n".encode() + content + b"\nendstream"


def one_page(content: bytes, extra: str = "") -> bytes:
    """A page that is drawn by `content`."""
    return objects(
        "<< /Type /Catalog /Pages 2 0 R >>",
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 200] /Contents 4 0 R /Resources << /Font << /F 5 0 R >> /XObject << /X 4 0 R >> >> >>",
        stream(content, extra),
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    )


HELLO = b"BT /F 12 Tf 10 10 Td (Hello there) Tj ET"


def test_pages_are_known() -> None:
    document = read_document(pdf(*PAGES), "a.pdf")
    check(document)
    assert document.pages == 3
    assert [(block.page, document.text[block.start : block.end]) for block in document.blocks] == [
        (1, PAGES[0]),
        (3, "It was built in 1900 for carriages. The first was red."),
    ]
    assert document.warnings == ("page 2 has no text: pictures are not read",)


def test_bookmarks_are_headings() -> None:
    made = FPDF()
    made.set_font("Helvetica", size=12)
    made.add_page()
    made.start_section("Bridges", 0)
    made.multi_cell(0, text="1. Bridges\nOver rivers.", new_x="LMARGIN")
    made.start_section("Parts", 1)
    made.multi_cell(0, text="Parts\nAn arch.", new_x="LMARGIN")
    made.add_page()
    made.start_section("Picture", 1)
    made.multi_cell(0, text="On the second page.")
    document = read_document(bytes(made.output()), "a.pdf")
    check(document)
    assert shown(document) == [
        ("heading", "1. Bridges", ()),
        ("prose", "Over rivers.", ("Bridges",)),
        ("heading", "Parts", ("Bridges",)),
        ("prose", "An arch.", ("Bridges", "Parts")),
        ("prose", "On the second page.", ("Bridges", "Picture")),
    ]


def test_the_name_does_not_matter() -> None:
    assert read_document(b"\n" * 100 + pdf("Words."), "a.txt").text == "Words."


@pytest.mark.parametrize("lock", [EncryptionMethod.RC4, EncryptionMethod.AES_128, EncryptionMethod.AES_256])
def test_a_password_is_asked_for_in_words(lock: EncryptionMethod) -> None:
    assert "protected by a password" in refusal(pdf("Words.", lock=lock, user_password="secret"), "a.pdf")
    # Locked against printing only.
    assert read_document(pdf("Words.", lock=lock), "a.pdf").text == "Words."


def test_a_scan_is_told_as_one() -> None:
    assert "probably scanned" in refusal(pdf("", ""), "a.pdf")


def test_a_damaged_page_does_not_take_the_others_along() -> None:
    page = (
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 200] /Contents {} 0 R /Resources << /Font << /F 8 0 R >> >> >>"
    )
    damaged = objects(
        "<< /Type /Catalog /Pages 2 0 R >>",
        "<< /Type /Pages /Kids [3 0 R 4 0 R 5 0 R] /Count 3 >>",
        page.format(6),
        page.format(7),
        page.format(6),
        stream(HELLO),
        stream(HELLO, "/Filter /NoSuchFilter"),
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    )
    document = read_document(damaged, "a.pdf")
    check(document)
    assert [block.page for block in document.blocks] == [1, 3]
    assert document.warnings == ("page 2 could not be read (NotImplementedError)",)


def test_a_broken_table_of_objects_is_rebuilt() -> None:
    found = read_document(one_page(HELLO).replace(b"startxref\n", b"startxref\n9"), "a.pdf")
    assert found.text == "Hello there"


@pytest.mark.parametrize(
    "hostile",
    [
        # Pages that hold each other, or themselves.
        objects("<< /Type /Catalog /Pages 2 0 R >>", "<< /Type /Pages /Kids [2 0 R] /Count 1 >>"),
        objects(
            "<< /Type /Catalog /Pages 2 0 R >>",
            "<< /Type /Pages /Kids [3 0 R 3 0 R] /Count 999999999 >>",
            "<< /Type /Pages /Kids [2 0 R 2 0 R] /Count 999999999 >>",
        ),
        objects("<< /Type /Catalog /Pages 1 0 R >>"),
        objects("1 0 R"),
        one_page(HELLO).replace(b"/Pages 2 0 R", b"/Pages 2 0 R /Outlines << /First 4 0 R /Title (x) >>"),
        objects("<< /Type /Catalog /Pages 2 0 R >>", "<< /Type /Pages /Kids " + "[" * 5000 + "]" * 5000 + " >>"),
        objects("<< /Type /Catalog /Pages 2 0 R >>", xref=False),
        # A form that draws itself.
        one_page(b"/X Do " * 100, "/Type /XObject /Subtype /Form /Resources << /XObject << /X 4 0 R >> >>"),
        one_page(b"q " * 100_000 + HELLO),
        one_page(b"[" * 20_000),
        one_page(b"(" * 50_000),
        # Packed ten times over.
        one_page(zlib.compress(b"x"), "/Filter [" + "/FlateDecode " * 1000 + "]"),
        b"%PDF-1.7",
        b"%PDF-" + bytes(5000),
        pdf("Words.")[:-200],
        pdf("Words.")[:300],
    ],
)
def test_hostile_files_end_in_words(hostile: bytes) -> None:
    try:
        check(read_document(hostile, "a.pdf"))
    except UnreadableDocument as exc:
        said = str(exc)
    else:
        said = ""
    assert said.isprintable()


def test_a_packed_page_beyond_all_measure_is_left_out() -> None:
    bomb = zlib.compress(zlib.compress(HELLO + b" " * 80_000_000, 9), 9)
    assert len(bomb) < 1000
    assert "none of its pages" in refusal(one_page(bomb, "/Filter [/FlateDecode /FlateDecode]"), "a.pdf")


def test_too_many_pages_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_PAGES", 2)
    assert "more than 2 pages" in refusal(pdf(*PAGES), "a.pdf")
