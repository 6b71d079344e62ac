"""`models`: the catalogue, and files that are what they should be or not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from ryvion_node.models.catalogue import catalogue
from tests.node.cli.conftest import Run
from tests.node.library.fake_hub import FakeHub, fake_hub


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
    assert {model["name"]: model["kind"] for model in listed["models"]}["ryvion-embed-tiny"] == "embedding"
    shown = run("models", "list").stdout
    assert "phi-4" in shown
    assert "embedding" in shown
    assert "bundled" in shown
    assert all(model.name in shown for model in catalogue().models)


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


def test_list_says_what_is_here(run: Run, tmp_path: Path) -> None:
    own = shutil.copy(bundled_file(), tmp_path / "own.gguf")
    assert run("models", "add", str(own), "--name", "phi-4").exit_code == 0
    assert run("models", "add", str(own), "--name", "mine", "--tokenizer-of", "ab" * 32).exit_code == 0
    listed = json.loads(run("models", "list", "--json").stdout)
    here = {model["name"]: model["here"] for model in listed["models"]}
    assert here == {model.name: "model" for model in catalogue().bundled()} | {
        "phi-4": "model",
        "ryvion-llama-3.2-3b": None,
    }
    assert [(model["name"], model["kind"], model["sha256_from"]) for model in listed["own"]] == [
        ("phi-4", "model", "file"),
        ("mine", "tokenizer", "owner"),
    ]
    assert listed["files"] == []
    assert "2 pulled or added" in run("models", "list").stdout


def test_add_verify_remove(run: Run, tmp_path: Path) -> None:
    own = Path(shutil.copy(bundled_file(), tmp_path / "own.gguf"))
    added = run("models", "add", str(own))
    assert "up --serve own" in added.stdout
    verified = run("models", "verify", "own")
    assert verified.exit_code == 0
    assert "your list of models" in verified.stdout
    assert "of memory with 4 slots of 1024 tokens" in verified.stdout
    listed = json.loads(run("models", "list", "--json").stdout)["own"][0]
    assert listed["size_bytes"] == own.stat().st_size < listed["memory_bytes"] < 64 * 1024 * 1024
    assert (listed["file_kind"], listed["file_quantisation"]) == ("chat", "Q8_0")
    own.write_bytes(own.read_bytes()[:-1] + b"!")
    assert run("models", "verify").exit_code == 1
    assert "left alone" in run("models", "remove", "own").stdout
    assert own.exists()
    assert run("models", "remove", "own").exit_code == 66
    assert run("models", "add", str(tmp_path / "none.gguf")).exit_code == 66


def test_a_cut_header_travels_to_a_buyer(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "header.gguf"
    cut = json.loads(run("models", "cut", str(bundled_file()), str(out), "--json", with_home=False).stdout)
    assert cut["bytes"] == out.stat().st_size < 64 * 1024
    digest = cut["sha256_of_whole"]
    assert run("models", "add", str(out)).exit_code == 65
    assert run("models", "add", str(out), "--name", "theirs", "--tokenizer-of", f"sha256:{digest}").exit_code == 0
    verified = run("models", "verify", "theirs")
    assert verified.exit_code == 0
    assert "only its header" in verified.stdout
    assert json.loads(run("models", "remove", "theirs", "--json").stdout)["deleted"]


def test_cut_refuses_what_it_would_destroy_or_cannot_read(run: Run, tmp_path: Path) -> None:
    own = Path(shutil.copy(bundled_file(), tmp_path / "own.gguf"))
    before = own.read_bytes()
    assert run("models", "cut", str(own), str(own), with_home=False).exit_code == 65
    assert own.read_bytes() == before
    assert run("models", "cut", str(tmp_path / "none"), str(tmp_path / "out"), with_home=False).exit_code == 65
    assert run("models", "cut", str(own), str(tmp_path / "no" / "out"), with_home=False).exit_code == 65


def test_what_cannot_be_pulled_is_said_without_a_network(run: Run, tmp_path: Path) -> None:
    assert "models add FILE" in str(run("models", "pull", "nothing").error)
    assert "up --serve" in str(run("models", "pull", "ryvion-tiny").error)
    assert run("models", "add", str(bundled_file()), "--name", "x", "--tokenizer-of", "12").exit_code == 64


def pull(hub: FakeHub, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """As an owner calls it: the hub's address is read when the program starts."""
    command = [sys.executable, "-m", "ryvion_node", "models", "pull", *arguments, "--home", str(home)]
    environment = os.environ | {"HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_pull_fetches_from_the_hub_that_the_environment_names(run: Run, home: Path) -> None:
    path = "microsoft/phi-4-gguf/phi-4-q4.gguf"
    with fake_hub(**{path: bundled_file().read_bytes() + bytes(32)}) as hub:
        header = pull(hub, home, "phi-4", "--tokenizer-only")
        assert header.returncode == 0, header.stderr
        assert "the hub says so, the whole file was not read" in header.stdout
        assert "tokenizer here" in run("models", "list").stdout
        whole = pull(hub, home, "phi-4", "--json")
        assert json.loads(whole.stdout)["also_said_by"] == ["hub"]
        again = pull(hub, home, "phi-4")
        assert "nothing fetched" in again.stdout
        assert "nobody has checked it" in again.stdout
        assert len(hub.transfers) == 2 and all(hub.transfers), "only the file, in ranges"
        hub.files.clear()
        gone = pull(hub, home, "ryvion-llama-3.2-3b")
        assert (gone.returncode, gone.stdout) == (66, "")
        assert "Traceback" not in gone.stderr
    assert run("models", "verify", "phi-4").exit_code == 0
    assert json.loads(run("models", "remove", "phi-4", "--json").stdout)["deleted"]
    assert [file.name for file in (home / "models").glob("*.gguf")] == []
