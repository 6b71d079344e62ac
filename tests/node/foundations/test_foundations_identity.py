"""One key per node: made once, kept private, never guessed at when the file is damaged."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from ryvion_node.identity import IdentityCorrupt, identity_from_seed, load_identity, load_or_create_identity
from ryvion_node.paths import FileMissing, TooOpen

SEED = bytes(range(32))
PUBLIC = "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "identity.key"


def test_it_is_made_once_and_stays(path: Path) -> None:
    made = load_or_create_identity(path)
    assert len(made.seed) == 32
    assert load_or_create_identity(path).public_key == made.public_key
    assert path.read_bytes() == made.seed
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_two_nodes_differ(path: Path, tmp_path: Path) -> None:
    assert load_or_create_identity(path).seed != load_or_create_identity(tmp_path / "other" / "identity.key").seed


def test_a_known_seed_has_its_known_key() -> None:
    assert identity_from_seed(SEED).public_key.hex() == PUBLIC


def test_the_seed_is_not_shown() -> None:
    assert SEED.hex() not in repr(identity_from_seed(SEED))
    assert repr(SEED) not in repr(identity_from_seed(SEED))


def test_an_open_file_or_folder_is_refused(path: Path) -> None:
    load_or_create_identity(path)
    path.chmod(0o604)
    with pytest.raises(TooOpen, match=f"chmod 600 {path}"):
        load_or_create_identity(path)
    path.chmod(0o600)
    path.parent.chmod(0o755)
    with pytest.raises(TooOpen, match=f"chmod 700 {path.parent}"):
        load_or_create_identity(path)


@pytest.mark.parametrize("content", [b"", SEED[:31], SEED + b"\n", bytes(32)])
def test_a_damaged_file_is_refused_and_kept(path: Path, content: bytes) -> None:
    load_or_create_identity(path)
    path.write_bytes(content)
    with pytest.raises(IdentityCorrupt, match="backup"):
        load_or_create_identity(path)
    assert path.read_bytes() == content


def test_loading_alone_creates_nothing(path: Path) -> None:
    with pytest.raises(FileMissing):
        load_identity(path)
    assert not path.parent.exists()
