"""The owner's list of models: private, whole after a crash, strict when read; and the look-up that stands on it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import stat
from pathlib import Path

import pytest

from ryvion_node.config import NodeConfig, load_config
from ryvion_node.engine.gguf_cut import cut_file
from ryvion_node.errors import OperatorError
from ryvion_node.library.adding import (
    FileIsGone,
    NotAModelFile,
    NoWeights,
    add_model,
    add_tokenizer,
    remove_model,
)
from ryvion_node.library.constants import MAX_MODELS
from ryvion_node.library.lookup import Library, NotAtHand, TemplateNotUsable
from ryvion_node.library.manifest import (
    Manifest,
    ManifestBusy,
    ManifestCorrupt,
    ManifestModel,
    ModelNameInvalid,
    ModelNameTaken,
    ModelNotListed,
    TooManyModels,
)
from ryvion_node.models.catalogue import catalogue
from ryvion_node.paths import Paths, TooOpen, resolve_paths
from tests.node.library.conftest import bundled_bytes


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return resolve_paths(tmp_path / "home")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A model that no catalogue knows."""
    path = tmp_path / "own.gguf"
    path.write_bytes(bundled_bytes() + b"\0" * 32)
    return path


def sha256(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def serving(*tables: str) -> NodeConfig:
    return NodeConfig.model_validate({"executor": {"models": [{"name": name} for name in tables]}})


def sample(name: str, **changes: str) -> dict[str, str]:
    digest = "ab" * 32
    return {
        "name": name,
        "kind": "model",
        "file": "a.gguf",
        "sha256": digest,
        "sha256_from": "file",
        "file_sha256": digest,
        "origin": "",
    } | changes


def write(paths: Paths, *models: object, version: object = 1) -> None:
    paths.home.mkdir(mode=0o700, exist_ok=True)
    paths.manifest_file.write_text(json.dumps({"version": version, "models": models}))
    paths.manifest_file.chmod(0o600)


def test_an_added_file_stays_and_is_found_by_its_name(paths: Paths, own: Path) -> None:
    added = add_model(paths, own, None)
    assert (added.model.name, added.path) == ("own", own)
    found = Library(paths).find("own")
    assert found is not None
    assert (found.path, found.digest) == (own, sha256(own))
    (spec,) = Library(paths).specs(serving("own"))
    assert (spec.name, spec.path, spec.digest) == ("own", own, sha256(own))
    assert stat.S_IMODE(paths.manifest_file.stat().st_mode) == 0o600


def test_a_buyer_counts_with_an_added_file(paths: Paths, own: Path) -> None:
    add_model(paths, own, None)
    found = Library(paths).tokenizers(NodeConfig())
    assert found[sha256(own)] == own
    assert {model.digest for model in catalogue().bundled()} <= set(found)


def test_a_file_that_changed_keeps_the_digest_that_it_had(paths: Paths, own: Path) -> None:
    added = add_model(paths, own, None)
    own.write_bytes(bundled_bytes())
    (spec,) = Library(paths).specs(serving("own"))
    assert spec.digest is not None and spec.digest.hex() == added.model.sha256  # so the engine refuses to load it


def test_a_file_that_is_gone_does_not_stop_a_buyer(paths: Paths, own: Path) -> None:
    add_model(paths, own, None)
    own.unlink()
    assert set(Library(paths).tokenizers(NodeConfig())) == {model.digest for model in catalogue().bundled()}


def test_a_model_can_be_sold_under_another_name(paths: Paths, own: Path, tmp_path: Path) -> None:
    add_model(paths, own, None)
    file = tmp_path / "config.toml"
    file.write_text('[[executor.models]]\nname = "theirs"\nbundled = "own"\n')
    (spec,) = Library(paths).specs(load_config(file))
    assert (spec.name, spec.path) == ("theirs", own)


def test_a_template_is_pinned_when_the_node_starts(paths: Paths, tmp_path: Path) -> None:
    file, template = tmp_path / "config.toml", tmp_path / "own.jinja"
    file.write_text('[[executor.models]]\nname = "ryvion-tiny"\ntemplate = "own.jinja"\nload = "first-use"\n')
    with pytest.raises(TemplateNotUsable, match="leave it away"):
        Library(paths).specs(load_config(file))
    template.write_text("{{ messages }}")
    (spec,) = Library(paths).specs(load_config(file))
    assert (spec.template, spec.template_digest, spec.load) == (template, sha256(template), "first-use")
    template.write_bytes(b" " * 2_000_000)
    with pytest.raises(TemplateNotUsable, match="larger than"):
        Library(paths).specs(load_config(file))


@pytest.mark.parametrize(("name", "mend"), [("phi-4", "models pull phi-4"), ("nothing", " NAME=/path")])
def test_a_model_that_is_not_here_is_named_with_the_mend(paths: Paths, name: str, mend: str) -> None:
    with pytest.raises(NotAtHand, match=mend) as caught:
        Library(paths).specs(serving(name))
    assert "ryvion-tiny" in str(caught.value)


def test_a_name_of_the_catalogue_is_found_by_its_alias(paths: Paths, own: Path) -> None:
    add_model(paths, own, "ryvion-llama-3.2-3b")
    library = Library(paths)
    assert library.find("llama-3.2-3b-instruct") == library.find("ryvion-llama-3.2-3b") != None  # noqa: E711
    assert library.names() == ("ryvion-tiny", "tinyllama", "ryvion-embed-tiny", "ryvion-llama-3.2-3b")


@pytest.mark.parametrize("name", ["", "../x", "a b", "-a", "x" * 97, "ä", "a\n"])
def test_names_that_no_model_may_have(paths: Paths, own: Path, name: str) -> None:
    with pytest.raises(ModelNameInvalid):
        add_model(paths, own, name)


@pytest.mark.parametrize("name", ["ryvion-tiny", "ryvion-tiny-1bit"])
def test_bundled_names_are_taken(paths: Paths, own: Path, name: str) -> None:
    with pytest.raises(ModelNameTaken, match="comes with the node"):
        add_model(paths, own, name)


def test_a_name_is_given_once(paths: Paths, own: Path) -> None:
    add_model(paths, own, None)
    with pytest.raises(ModelNameTaken, match="models remove own"):
        add_model(paths, own, None)
    add_model(paths, own, "other")


def test_what_is_no_whole_model_is_not_added(paths: Paths, own: Path, tmp_path: Path) -> None:
    with pytest.raises(FileIsGone):
        add_model(paths, tmp_path / "none.gguf", None)
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(own.read_bytes()[:500])
    with pytest.raises(NotAModelFile, match="truncated"):
        add_model(paths, damaged, None)
    damaged.write_bytes(own.read_bytes()[:-2000])
    with pytest.raises(NotAModelFile, match="truncated"):
        add_model(paths, damaged, None)
    header = tmp_path / "header.gguf"
    header.write_bytes(cut_file(own))
    with pytest.raises(NoWeights, match="--tokenizer-of"):
        add_model(paths, header, None)
    assert Manifest(paths).models() == ()


def test_a_header_is_added_for_the_digest_that_its_owner_names(paths: Paths, own: Path, tmp_path: Path) -> None:
    header = tmp_path / "header.gguf"
    header.write_bytes(cut_file(own))
    added = add_tokenizer(paths, header, "theirs", sha256(own))
    header.unlink()
    assert Library(paths).tokenizers(NodeConfig())[sha256(own)] == added.path
    assert added.path.parent == paths.models_folder
    with pytest.raises(NotAtHand, match="more than the tokenizer"):
        Library(paths).specs(serving("theirs"))
    assert remove_model(paths, "theirs") == (added.model, added.path, True)
    assert not added.path.exists()


def test_removing_leaves_the_owners_file_alone(paths: Paths, own: Path) -> None:
    added = add_model(paths, own, None)
    assert remove_model(paths, "own") == (added.model, own, False)
    assert own.exists()
    assert Library(paths).find("own") is None
    with pytest.raises(ModelNotListed):
        remove_model(paths, "own")


def test_a_file_that_two_entries_need_is_kept(paths: Paths, own: Path) -> None:
    first = add_tokenizer(paths, own, "first", sha256(own))
    add_tokenizer(paths, own, "second", sha256(own))
    assert remove_model(paths, "first") == (first.model, first.path, False)
    add_tokenizer(paths, own, "third", sha256(own))
    own_word = ManifestModel(**sample("by-path", file=str(first.path)))  # type: ignore[arg-type]
    Manifest(paths).put(own_word, replace=False)
    assert not remove_model(paths, "second")[2] and not remove_model(paths, "third")[2]
    assert first.path.exists()


@pytest.mark.parametrize(
    "entry",
    [
        7,
        {},
        sample("a", extra="x"),
        sample("../a"),
        sample("a", kind="adapter"),
        sample("a", sha256_from="peer"),
        sample("a", sha256="AB" * 32),
        sample("a", file_sha256=""),
        sample("a", file="../identity.key"),
        sample("a", file="sub/a.gguf"),
        sample("a", file=".."),
        sample("a", file="a.bin"),
        sample("a", file="/a\0b"),
        sample("a") | {"origin": None},
    ],
)
def test_a_wrong_entry_is_refused(paths: Paths, entry: object) -> None:
    write(paths, sample("good"), entry)
    with pytest.raises(ManifestCorrupt, match="model 2"):
        Manifest(paths).models()


def test_a_wrong_file_is_refused_and_left_alone(paths: Paths, own: Path) -> None:
    for text in (
        "",
        "[]",
        '{"version": 1}',
        '{"version": 2, "models": []}',
        "[" * 100_000,
        '{"version": 1, "models": 3}',
    ):
        write(paths)
        paths.manifest_file.write_text(text)
        with pytest.raises(ManifestCorrupt):
            add_model(paths, own, None)
        assert paths.manifest_file.read_text() == text
    write(paths, sample("a"), sample("a"))
    with pytest.raises(ManifestCorrupt, match="same name"):
        Manifest(paths).models()


def test_a_list_that_others_may_write_is_refused(paths: Paths) -> None:
    write(paths, sample("a"))
    paths.manifest_file.chmod(0o660)
    with pytest.raises(TooOpen):
        Library(paths)


def test_one_editor_at_a_time(paths: Paths) -> None:
    write(paths)
    model = ManifestModel(**sample("a"))  # type: ignore[arg-type]  # texts of the right kind
    with (paths.home / "models.json.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ManifestBusy):
            Manifest(paths).put(model, replace=False)
    Manifest(paths).put(model, replace=False)


def test_the_list_has_an_end(paths: Paths) -> None:
    write(paths, *(sample(f"m{number}") for number in range(MAX_MODELS)))
    full: type[OperatorError] = TooManyModels
    with pytest.raises(full):
        Manifest(paths).put(ManifestModel(**sample("one-more")), replace=False)  # type: ignore[arg-type]
    Manifest(paths).put(ManifestModel(**sample("m0", origin="x/y@z")), replace=True)  # type: ignore[arg-type]
