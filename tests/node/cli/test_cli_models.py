"""`models`: the catalogue, and files that are what they should be or not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from ryvion_node.models.catalogue import catalogue
from tests.node.cli.conftest import Run


def bundled_file() -> Path:
    path = catalogue().bundled()[0].path
    assert path is not None
    return path


def test_list_shows_every_model_and_own_files(run: Run, home: Path) -> None:
    (home / "models").mkdir(parents=True)
    (home / "models" / "mine.gguf").touch()
    listed = json.loads(run("models", "list", "--json").stdout)
    assert [model["name"] for model in listed["models"]] == [model.name for model in catalogue().models]
    assert listed["files"] == [str(home / "models" / "mine.gguf")]
    shown = run("models", "list").stdout
    assert "phi-4" in shown
    assert "comes with the node" in shown


def test_the_bundled_models_are_sound(run: Run) -> None:
    verified = run("models", "verify", "--json")
    assert verified.exit_code == 0
    assert [file["outcome"] for file in json.loads(verified.stdout)["files"]] == ["ok"] * len(catalogue().bundled())


def test_a_file_nobody_has_checked_is_no_failure(run: Run, tmp_path: Path) -> None:
    own = shutil.copy(bundled_file(), tmp_path / "own.gguf")
    verified = run("models", "verify", str(own))
    assert verified.exit_code == 0
    assert verified.stdout.startswith("not known")


def test_a_changed_file_is_wrong(run: Run, tmp_path: Path) -> None:
    changed = tmp_path / bundled_file().name
    data = bytearray(bundled_file().read_bytes())
    data[-1] ^= 1
    changed.write_bytes(data)
    verified = run("models", "verify", str(changed))
    assert verified.exit_code == 1
    assert "it should be" in verified.stdout


def test_a_damaged_file_is_wrong(run: Run, tmp_path: Path) -> None:
    damaged = tmp_path / "x.gguf"
    damaged.write_bytes(bundled_file().read_bytes()[:1000])
    assert run("models", "verify", str(damaged)).exit_code == 1


def test_what_is_not_there_is_said(run: Run) -> None:
    assert run("models", "verify", "nothing").exit_code == 66
    refused = run("models", "verify", "phi-4")
    assert "microsoft/phi-4-gguf" in str(refused.error)
