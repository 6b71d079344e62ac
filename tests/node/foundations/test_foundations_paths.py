"""Folders and private files. Modes are looked at, not tried out: tests may run as root."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from ryvion_node.errors import OperatorError
from ryvion_node.paths import (
    CannotUse,
    FileMissing,
    FileTooLarge,
    TooOpen,
    create_private_file,
    make_private_folder,
    read_private_file,
    replace_private_file,
    resolve_paths,
)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_home_goes_before_the_environment_and_that_before_the_platform(tmp_path: Path) -> None:
    environment = {"RYVION_HOME": str(tmp_path / "env")}
    assert resolve_paths(tmp_path / "flag", environment).home == tmp_path / "flag"
    assert resolve_paths(None, environment).config_file == tmp_path / "env" / "config.toml"
    platform = resolve_paths(None, {"RYVION_HOME": ""})
    assert platform.home.name == "ryvion-node"
    assert platform.home.is_absolute()


def test_every_state_file_lies_in_the_home(tmp_path: Path) -> None:
    paths = resolve_paths(tmp_path / "h", {})
    files = [paths.identity_file, paths.keys_file, paths.ledger_file, paths.control_file, paths.models_folder]
    assert {file.parent for file in files} == {tmp_path / "h"}
    assert len({file.name for file in files}) == 5
    assert not paths.home.exists()


def test_a_folder_is_made_private(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    make_private_folder(folder)
    make_private_folder(folder)
    assert mode(folder) == 0o700


@pytest.mark.parametrize("loose", [0o750, 0o705, 0o777, 0o710])
def test_a_folder_that_others_may_use_is_refused_with_the_mend(tmp_path: Path, loose: int) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(loose)
    with pytest.raises(TooOpen, match=f"mode {loose:04o}.*chmod 700 {folder}"):
        make_private_folder(folder)


def test_a_file_in_the_folders_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CannotUse, match="not a folder"):
        make_private_folder(tmp_path / "file")
    with pytest.raises(OperatorError, match=r"not a directory|file exists"):
        make_private_folder(tmp_path / "file" / "below")


def test_a_created_file_is_private_whole_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    assert create_private_file(path, b"first")
    assert not create_private_file(path, b"second")
    assert path.read_bytes() == b"first"
    assert mode(path) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["secret"]


def test_a_replaced_file_is_private_and_new(tmp_path: Path) -> None:
    path = tmp_path / "list"
    replace_private_file(path, b"one")
    before = path.stat().st_ino
    replace_private_file(path, b"two")
    assert (path.read_bytes(), mode(path)) == (b"two", 0o600)
    assert path.stat().st_ino != before
    assert [entry.name for entry in tmp_path.iterdir()] == ["list"]


def test_reading_refuses_what_is_missing_open_or_large(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    with pytest.raises(FileMissing, match="does not exist"):
        read_private_file(path, 10)
    create_private_file(path, b"x" * 11)
    with pytest.raises(FileTooLarge, match="10 bytes"):
        read_private_file(path, 10)
    assert read_private_file(path, 11) == b"x" * 11
    path.chmod(0o640)
    with pytest.raises(TooOpen, match=f"mode 0640.*chmod 600 {path}"):
        read_private_file(path, 11)


def test_a_folder_that_is_not_there_is_an_operator_error(tmp_path: Path) -> None:
    with pytest.raises(CannotUse, match="--home"):
        create_private_file(tmp_path / "gone" / "secret", b"x")
