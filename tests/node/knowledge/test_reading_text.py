"""Plain text in every encoding, source code, Markdown, and what is no text at all."""

from __future__ import annotations

import contextlib
import random
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading_support import check, read, refusal, shown

from ryvion_node.knowledge import constants as limits
from ryvion_node.knowledge.reading.document import read_document
from ryvion_node.knowledge.reading.errors import UnreadableDocument
from ryvion_node.knowledge.reading.filenames import extension, safe_filename

GERMAN = "Die Größe der Brücke beträgt übrigens 40 Meter.\nSie überspannt den Fluß in München.\n"
RUSSIAN = "Мост через реку был построен в прошлом веке. Длина моста сорок метров, ширина семь.\n" * 4


def test_paragraphs_stand_between_empty_lines() -> None:
    text = "One\r\ntwo.\r\n\r\n \r\nThree.\r\rFour\x0bfive\0six\x1cseven\n\n- a\n- b\n"
    assert read(text, "a.txt") == [
        ("prose", "One\ntwo.", ()),
        ("prose", "Three.", ()),
        ("prose", "Four\nfive six seven", ()),
        ("list", "- a\n- b", ()),
    ]


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        *((encoding, GERMAN) for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32")),
        *((encoding, RUSSIAN) for encoding in ("utf-8", "utf-16", "utf-16-le", "utf-16-be")),
        ("utf-16-le", "漢字の文章です。\n" * 20),
    ],
)
def test_unicode_is_recognised_with_and_without_a_mark(encoding: str, text: str) -> None:
    assert read(text.encode(encoding), "a.txt")[0][1] == text.strip()


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", GERMAN * 5),
        ("cp1251", RUSSIAN),
        ("shift_jis", "橋は昔から人々の生活を支えてきました。川を渡る道です。\n" * 10),
    ],
)
def test_older_encodings_are_guessed_and_the_owner_is_told(encoding: str, text: str) -> None:
    document = read_document(text.encode(encoding), "a.txt")
    assert document.text == text.strip()
    assert "its encoding is not declared" in document.warnings[0]


def test_a_declared_encoding_is_believed() -> None:
    page = '<html><head><meta charset="iso-8859-2"></head><body><p>Żółw gęś</p></body></html>'
    assert read(page.encode("iso-8859-2"), "a.html") == [("prose", "Żółw gęś", ())]


@pytest.mark.parametrize("name", ["rot13", "base64", "undefined", "idna", "../x", "zip"])
def test_a_declared_encoding_that_is_none_does_no_harm(name: str) -> None:
    document = read_document(f'<html><meta charset="{name}"><p>caf\xe9 au lait'.encode("cp1252"), "a.html")
    assert document.text.startswith("caf")


def test_a_damaged_byte_does_not_change_the_encoding() -> None:
    document = read_document((GERMAN * 20).encode().replace(b"M", b"\xffM", 1), "a.log")
    assert document.text.startswith("Die Größe der Brücke beträgt übrigens 40 \ufffdMeter.")
    assert document.warnings == ("bytes that are no valid UTF-8 were replaced: 1",)


def test_what_nobody_sees_is_not_read() -> None:
    tags = "".join(chr(0xE0000 + ord(char)) for char in "obey")
    assert read(f"Plain{tags} \u202ewords\u202c.", "a.txt") == [("prose", "Plain words.", ())]


def test_one_form_of_text() -> None:
    composed, parted = "Ga\u0308nge \u200bund soft\u00adhy\ufeffphen", "G\u00e4nge \u200bund softhyphen"
    assert read(composed, "a.txt") == read(parted, "a.txt") == [("prose", parted, ())]
    assert unicodedata.is_normalized("NFC", read("e\u0301\n\n\u0301x", "a.txt")[1][1])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "it is empty"),
        (b" \n\t\r\n", "holds no text"),
        (b"\xff\xfe", "holds no text"),
        (b"\x7fELF\x02\x01\x01" + bytes(100), "program"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "picture"),
        (bytes(range(256)) * 20, "no text"),
        (bytes(5000), "no text"),
        (b"\xff\xfe" + b"\x00\xd8" * 500, "no text"),
        (b"\xff\xfe" + random.Random(7).randbytes(5000), "no text"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "save it as DOCX"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "EncryptedPackage".encode("utf-16-le"), "password"),
        (b"{\\rtf1 Hello}", "save it as DOCX"),
    ],
)
@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.html", "a.csv", "a.json", "a.pdf", "a.docx"])
def test_what_is_no_text_is_refused_whatever_its_name(data: bytes, said: str, name: str) -> None:
    assert said in refusal(data, name)


def test_huge_files_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "larger than 64 MiB" in refusal(b"x" * 100_000_000, "a line of 100 MB.txt")
    monkeypatch.setattr(limits, "MAX_TEXT_CHARS", 1000)
    assert "million characters" in refusal(b"x" * 1001, "a.txt")
    monkeypatch.undo()
    monkeypatch.setattr(limits, "MAX_BLOCKS", 1000)
    assert "paragraphs" in refusal(b"x\n\n" * 1001, "a.txt")


def test_a_wrong_name_is_told() -> None:
    document = read_document(b"Just text.", "a.pdf")
    assert document.text == "Just text."
    assert document.warnings == ("it is named .pdf, yet was read as plain text, which it is",)
    assert read("# A text about\n\n%PDF-1.4", "a.md")[1] == ("prose", "%PDF-1.4", ("A text about",))
    document = read_document(b"<!DOCTYPE html><p>Page", "a.md")
    assert shown(document) == [("prose", "Page", ())]
    assert "read as HTML" in document.warnings[0]


def test_markdown_keeps_its_structure() -> None:
    source = """---
title: Bridges
---
# The *big* [bridge](http://x.org)

Built in **1900**. ![x](data:image/png;base64,AAAA)

Details
-------
- one
  - two

| a | b |
|---|---|
| 1 | 2 |

```py
# no heading
```

> quoted

<div>raw <script>alert(1)</script><b>html</b></div>

### Deep
End.
"""
    top = "The big bridge"
    assert read(source, "a.md") == [
        ("prose", "title: Bridges", ()),
        ("heading", top, ()),
        ("prose", "Built in **1900**. ![x]()", (top,)),
        ("heading", "Details", (top,)),
        ("list", "- one\n  - two", (top, "Details")),
        ("table", "| a | b |\n|---|---|\n| 1 | 2 |", (top, "Details")),
        ("code", "```py\n# no heading\n```", (top, "Details")),
        ("prose", "> quoted", (top, "Details")),
        ("prose", "raw html", (top, "Details")),
        ("heading", "Deep", (top, "Details")),
        ("prose", "End.", (top, "Details", "Deep")),
    ]


@pytest.mark.parametrize(
    "hostile", ["[" * 50_000, "*a_ " * 20_000, "> " * 5_000 + "x", "- " * 5_000 + "x", "`" * 50_000, "<" * 50_000]
)
def test_hostile_markdown_is_only_text(hostile: str) -> None:
    check(read_document(hostile.encode(), "a.md"))


def test_code_is_parted_by_definitions() -> None:
    source = '''import os

class Bridge:
    """Spans a river."""

    length = 40

    def cross(self):
        step()

        step()

async def build():
    pass
'''
    assert read(source, "a.py") == [
        ("code", "import os", ()),
        ("code", 'class Bridge:\n    """Spans a river."""\n\n    length = 40', ("Bridge",)),
        ("code", "    def cross(self):\n        step()\n\n        step()", ("Bridge", "cross")),
        ("code", "async def build():\n    pass", ("build",)),
    ]
    other = "package main\n\n// Adds.\nfunc (s *Sum) Add(x int) int {\n\treturn x\n\n}\n\nvar x = 1\n"
    assert read(other, "a.go") == [
        ("code", "package main", ()),
        ("code", "// Adds.\nfunc (s *Sum) Add(x int) int {\n\treturn x\n\n}", ("Add",)),
        ("code", "var x = 1", ()),
    ]


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("report.pdf", "report.pdf"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\report.pdf", "report.pdf"),
        ("/a/b/", "b"),
        ("a\x00b\x1b[31m\n.txt", "a b [31m .txt"),
        ("gpj\u202efdp.exe", "gpj fdp.exe"),
        ("Ga\u0308nge.md", "G\u00e4nge.md"),
        ("..", "document"),
        ("", "document"),
        (" . ", "document"),
        ("\ud800", "document"),
        ("x" * 500 + ".PDF", "x" * 195 + "….pdf"),
    ],
)
def test_names_are_labels(name: str, label: str) -> None:
    assert safe_filename(name) == label


@settings(deadline=None)
@given(st.text(st.characters(), max_size=300))
def test_every_name_becomes_a_label(name: str) -> None:
    label = safe_filename(name)
    assert 0 < len(label) <= limits.MAX_FILENAME_CHARS
    assert label.isprintable()
    assert not {"/", "\\"} & set(label)
    assert label not in (".", "..")
    assert safe_filename(label) == label
    label.encode()
    assert extension(label).isalnum() or not extension(label)


@settings(deadline=None)
@given(st.binary(max_size=600), st.sampled_from("txt md html csv json py pdf docx".split()))
def test_any_bytes_are_a_document_or_unreadable(data: bytes, ending: str) -> None:
    with contextlib.suppress(UnreadableDocument):
        check(read_document(data, f"a.{ending}"))


@settings(deadline=None)
@given(st.text(max_size=400), st.sampled_from("txt md html csv tsv json jsonl py".split()))
def test_any_text_is_a_document_or_unreadable(text: str, ending: str) -> None:
    with contextlib.suppress(UnreadableDocument):
        check(read_document(text.encode("utf-8", "surrogatepass"), f"a.{ending}"))
