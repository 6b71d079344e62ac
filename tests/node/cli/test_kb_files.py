"""Which files of a folder are added, what they are called, and what is left out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ryvion_node.cli.kb.files import CannotRead, SameName, read_file, select_files


def put(folder: Path, *names: str, data: bytes = b"text") -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def names(*given: Path) -> list[str]:
    return [file.name for file in select_files(given).files]


def test_files_are_called_by_their_path_from_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "docs", "b.md", "a.md", "2026/q1/report.pdf", "2025/old.txt")
    expected = ["docs/a.md", "docs/b.md", "docs/2025/old.txt", "docs/2026/q1/report.pdf"]
    assert names(tmp_path / "docs") == expected
    monkeypatch.chdir(tmp_path / "docs" / "2026")
    assert names(Path("..")) == expected
    assert names(Path()) == ["2026/q1/report.pdf"]
    assert names(Path("q1/report.pdf"), Path("../a.md")) == ["report.pdf", "a.md"]


def test_each_file_comes_once(tmp_path: Path) -> None:
    put(tmp_path / "docs", "a.md")
    assert names(tmp_path / "docs", tmp_path / "docs" / "a.md", tmp_path / "docs") == ["docs/a.md"]


def test_two_files_of_one_name_are_refused_before_anything_is_sent(tmp_path: Path) -> None:
    put(tmp_path, "one/README.md", "two/README.md")
    with pytest.raises(SameName, match=r"README\.md.*folder above"):
        select_files((tmp_path / "one" / "README.md", tmp_path / "two" / "README.md"))
    assert names(tmp_path / "one", tmp_path / "two") == ["one/README.md", "two/README.md"]


def test_what_is_no_document_is_left_out_and_counted(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    put(docs, "kept.md", "sub/kept.txt", "empty.txt")
    put(docs, ".hidden", ".git/config", "sub/.env")
    put(docs, "node_modules/x.js", "notes.md~", "~$letter.docx", "Thumbs.db")
    put(docs, "picture.png", "program", data=b"\x7fELF\0\0")
    put(docs, "utf16.txt", data="text".encode("utf-16"))
    put(docs, "scan.pdf", "letter.docx", "sheet.xlsx", data=b"PK\x03\x04\0\0")
    put(docs, "paper", data=b"%PDF-1.7\n\0")
    os.mkfifo(docs / "pipe")
    selection = select_files((docs,))
    assert {file.name for file in selection.files} == {
        f"docs/{name}"
        for name in (
            *("kept.md", "sub/kept.txt", "empty.txt", "utf16.txt"),
            *("scan.pdf", "letter.docx", "sheet.xlsx", "paper"),
        )
    }
    assert selection.left_out == {"hidden": 3, "ignored": 4, "binary": 2, "special": 1}
    assert not selection.unreadable


def test_a_file_that_is_named_alone_is_taken_as_it_is(tmp_path: Path) -> None:
    put(tmp_path, ".env", "picture.png", data=b"\0")
    (tmp_path / "current").symlink_to(".env")
    assert names(tmp_path / ".env", tmp_path / "picture.png") == [".env", "picture.png"]
    assert names(tmp_path / "current") == ["current"]


def test_links_lead_nowhere(tmp_path: Path) -> None:
    put(tmp_path, "outside/secret.txt", "docs/own.txt")
    (tmp_path / "docs" / "file").symlink_to("../outside/secret.txt")
    (tmp_path / "docs" / "folder").symlink_to("../outside")
    (tmp_path / "docs" / "round").symlink_to(".")
    (tmp_path / "docs" / "nowhere").symlink_to("none")
    selection = select_files((tmp_path / "docs",))
    assert [file.name for file in selection.files] == ["docs/own.txt"]
    assert selection.left_out == {"linked": 4}
    (tmp_path / "linked").symlink_to("docs")
    assert names(tmp_path / "linked") == ["linked/own.txt"]


def test_a_file_that_changed_into_something_else_is_not_read(tmp_path: Path) -> None:
    put(tmp_path, "docs/a.md", "docs/b.md", "secret.txt")
    first, second = select_files((tmp_path / "docs",)).files
    first.path.unlink()
    first.path.symlink_to("../secret.txt")
    second.path.unlink()
    os.mkfifo(second.path)
    with pytest.raises(CannotRead, match="link"):
        read_file(first)
    with pytest.raises(CannotRead, match="no file"):
        read_file(second)
    second.path.unlink()
    with pytest.raises(CannotRead, match="no such file"):
        read_file(second)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_said(tmp_path: Path) -> None:
    put(tmp_path / "docs", "a.md", "sub/b.md")
    (tmp_path / "docs" / "a.md").chmod(0)
    (tmp_path / "docs" / "sub").chmod(0)
    assert [name for name, _ in select_files((tmp_path / "docs",)).unreadable] == ["docs/a.md", "docs/sub"]


def test_names_steer_no_terminal(tmp_path: Path) -> None:
    put(tmp_path, "docs/a\x1b[2J\u202egpj.md")
    (tmp_path / "docs" / os.fsdecode(b"\xff\xfe.md")).write_text("text")
    assert sorted(names(tmp_path / "docs")) == ["docs/  .md", "docs/a [2J gpj.md"]
