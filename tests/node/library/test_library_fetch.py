"""Fetching models: whole and resumed, refused when anything is wrong, and tied to what sellers name."""

from __future__ import annotations

import fcntl
import hashlib
import resource
from pathlib import Path

import pytest

from ryvion_node.config import NodeConfig
from ryvion_node.engine.gguf_cut import cut_file
from ryvion_node.errors import OperatorError
from ryvion_node.library.adding import add_model
from ryvion_node.library.constants import MAX_FRUITLESS_TRIES
from ryvion_node.library.fetch import (
    ComesWithTheNode,
    DigestUnknown,
    DiskTooSmall,
    FetchBusy,
    FileInTheWay,
    NoModelInside,
    WrongDigest,
)
from ryvion_node.library.hub import Hub, SourceClosed, SourceHasNoFile, SourceUnreachable, TransferBroken
from ryvion_node.library.lookup import Library
from ryvion_node.library.manifest import Manifest, ModelNameTaken
from ryvion_node.models.catalogue import catalogue
from tests.node.library.conftest import FILE, SOURCE, World, bundled_bytes
from tests.node.library.fake_hub import REVISION, fake_hub

WRONG = "ab" * 32


def test_a_model_is_fetched_checked_and_listed(world: World) -> None:
    fetched = world.pull()
    assert world.target.read_bytes() == world.content
    assert fetched.fetched_bytes == len(world.content)
    assert fetched.vouchers == ("hub",)
    (listed,) = Manifest(world.paths).models()
    assert (listed.name, listed.sha256, listed.origin) == ("some-model", world.sha256, f"{SOURCE}@{REVISION}")
    found = Library(world.paths).find("some-model")
    assert found is not None
    assert (found.path, found.digest.hex()) == (world.target, world.sha256)
    assert {stage for stage, _, _ in world.steps} == {"fetching", "checking"}
    assert all(done <= total == len(world.content) for _, done, total in world.steps)


def test_the_catalogue_vouches_for_a_digest_that_it_names(world: World) -> None:
    assert world.pull(world.sha256).vouchers == ("catalogue", "hub")


def test_what_is_here_is_not_fetched_again(world: World) -> None:
    world.pull()
    assert world.pull().fetched_bytes == 0
    assert len(world.hub.transfers) == 1


def test_a_new_version_at_the_source_takes_the_place_of_the_old_one(world: World) -> None:
    world.pull()
    world.content = world.content[:-1] + bytes([world.content[-1] ^ 1])
    world.pull()
    assert world.target.read_bytes() == world.content
    assert [model.sha256 for model in Manifest(world.paths).models()] == [world.sha256]


def test_a_transfer_that_breaks_goes_on_in_the_same_call(world: World) -> None:
    world.hub.break_after = [1_000_000, 500_000]
    world.pull()
    assert world.target.read_bytes() == world.content
    starts = [int(asked.removeprefix("bytes=").split("-")[0]) for asked in world.hub.transfers]
    assert len(starts) == 3
    assert starts == sorted(set(starts))
    assert world.hub.sent_bytes < len(world.content) + 1_000_000


def test_a_fetch_that_was_given_up_goes_on_in_a_later_call(world: World) -> None:
    world.hub.break_after = [2_000_000, *[0] * MAX_FRUITLESS_TRIES]
    with pytest.raises(TransferBroken, match="goes on from there"):
        world.pull()
    assert not world.target.exists()
    (part,) = world.leftovers
    have = part.stat().st_size
    assert have > 1_000_000
    assert world.waits_s == sorted(world.waits_s) and len(world.waits_s) == MAX_FRUITLESS_TRIES
    fetched = world.pull()
    assert fetched.fetched_bytes == len(world.content) - have
    assert world.hub.transfers[-1].startswith(f"bytes={have}-")
    assert world.target.read_bytes() == world.content
    assert not world.leftovers


def test_a_server_without_ranges_is_read_again_from_the_start(world: World) -> None:
    world.hub.knows_ranges = False
    world.hub.break_after = [2_000_000]
    world.pull()
    assert world.target.read_bytes() == world.content


def test_the_beginning_of_an_older_version_is_not_gone_on_with(world: World) -> None:
    world.hub.break_after = [2_000_000, *[0] * MAX_FRUITLESS_TRIES]
    with pytest.raises(TransferBroken):
        world.pull()
    world.content = world.content[:-1] + bytes([world.content[-1] ^ 1])
    world.pull()
    assert world.target.read_bytes() == world.content
    assert not world.leftovers


def test_a_damaged_beginning_is_found_and_not_kept(world: World) -> None:
    world.hub.break_after = [2_000_000, *[0] * MAX_FRUITLESS_TRIES]
    with pytest.raises(TransferBroken):
        world.pull()
    (part,) = world.leftovers
    part.write_bytes(b"x" + part.read_bytes()[1:])
    with pytest.raises(WrongDigest, match="the hub says"):
        world.pull()
    assert not world.target.exists() and not world.leftovers
    world.pull()


def test_a_digest_other_than_the_catalogues_is_refused_before_anything_is_fetched(world: World) -> None:
    with pytest.raises(WrongDigest, match=f"{world.sha256}, but the catalogue says {WRONG}"):
        world.pull(WRONG)
    assert not world.hub.transfers and not Manifest(world.paths).models()


def test_a_digest_that_the_hub_does_not_say_is_checked_after_the_fetch(world: World) -> None:
    world.hub.says_sha256[f"{SOURCE}/{FILE}"] = ""
    with pytest.raises(WrongDigest, match="It was not kept"):
        world.pull(WRONG)
    assert not world.target.exists() and not world.leftovers
    assert world.pull().vouchers == ()


def test_a_hub_that_lies_about_its_own_file_is_found_out(world: World) -> None:
    world.hub.says_sha256[f"{SOURCE}/{FILE}"] = WRONG
    with pytest.raises(WrongDigest, match="the hub says"):
        world.pull()
    assert not world.target.exists() and not world.leftovers


def test_a_web_page_is_no_model(world: World) -> None:
    world.content = b"<html>Sign in</html>"
    with pytest.raises(NoModelInside, match="wrong magic"):
        world.pull()
    assert not world.leftovers


def test_a_full_disk_is_said_before_the_transfer(world: World) -> None:
    world.hub.says_size[f"{SOURCE}/{FILE}"] = 10**18
    with pytest.raises(DiskTooSmall, match=FILE):
        world.pull()
    assert not world.hub.transfers


def test_a_disk_that_fills_up_under_way_keeps_what_came(world: World) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))  # the error of a full disk, for larger files only
    try:
        with pytest.raises(DiskTooSmall):
            world.pull()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    (part,) = world.leftovers
    have = part.stat().st_size
    assert 0 < have <= 1_000_000
    assert world.pull().fetched_bytes == len(world.content) - have


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (404, "EntryNotFound", SourceHasNoFile),
        (404, "RevisionNotFound", SourceHasNoFile),
        (401, "RepoNotFound", SourceHasNoFile),
        (403, "GatedRepo", SourceClosed),
        (401, "", SourceClosed),
        (500, "", SourceUnreachable),
    ],
)
def test_what_the_hub_refuses_is_said(world: World, status: int, code: str, error: type[OperatorError]) -> None:
    world.hub.status, world.hub.error_code = status, code
    with pytest.raises(error):
        world.pull()
    assert not world.target.exists()


def test_a_refusal_in_the_middle_is_said_at_once(world: World) -> None:
    hub = Hub(world.hub.endpoint, sleep=world.waits_s.append)
    remote = hub.describe(SOURCE, FILE)
    world.hub.status = 403
    with pytest.raises(SourceClosed):
        list(hub.stream(remote, 0))
    world.hub.status = 503
    with pytest.raises(TransferBroken, match="it answered 503"):
        list(hub.stream(remote, 0))


def test_the_owners_token_goes_to_the_hub_and_not_to_where_it_keeps_its_files(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_owner")
    with fake_hub(**world.hub.files) as storage:
        world.hub.redirect_to = storage.endpoint
        storage.break_after = [1_000_000]
        fetched = world.pull()
        assert fetched.vouchers == ("hub",)
        assert world.target.read_bytes() == world.content
        assert len(storage.transfers) == 2
        assert set(world.hub.tokens) == {"Bearer hf_of_the_owner"}
        assert set(storage.tokens) == {""}


@pytest.mark.parametrize("endpoint", ["nonsense", "http://[::1", "ftp://127.0.0.1"])
def test_an_endpoint_that_is_no_address(endpoint: str) -> None:
    with pytest.raises(SourceUnreachable):
        Hub(endpoint).describe(SOURCE, FILE)


def test_no_hub_at_all(world: World) -> None:
    with pytest.raises(SourceUnreachable):
        Hub("http://127.0.0.1:1").describe(SOURCE, FILE)


def test_a_file_of_the_owners_is_never_overwritten(world: World, tmp_path: Path) -> None:
    world.paths.home.mkdir(mode=0o700)
    world.paths.models_folder.mkdir()
    world.target.write_bytes(b"mine")
    with pytest.raises(FileInTheWay):
        world.pull()
    assert world.target.read_bytes() == b"mine"
    world.target.unlink()
    own = tmp_path / "own.gguf"
    own.write_bytes(bundled_bytes())
    add_model(world.paths, own, "some-model")
    with pytest.raises(ModelNameTaken):
        world.pull()


def test_a_file_that_lies_there_already_and_is_right_is_taken_over(world: World) -> None:
    world.paths.home.mkdir(mode=0o700)
    world.paths.models_folder.mkdir()
    world.target.write_bytes(world.content)
    assert world.pull().fetched_bytes == 0
    assert Library(world.paths).find("some-model") is not None


def test_two_fetches_of_one_file_do_not_meet(world: World) -> None:
    world.pull()
    with world.target.with_name(f".{FILE}.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(FetchBusy):
            world.pull()


def test_bundled_models_need_no_fetch(world: World) -> None:
    with pytest.raises(ComesWithTheNode):
        world.fetcher().model(catalogue().bundled()[0], lambda *_step: None)


# --- only the tokenizer -----------------------------------------------------------------------------------


def test_a_header_is_tied_to_the_digest_of_the_whole_model(world: World, tmp_path: Path) -> None:
    whole = tmp_path / "whole.gguf"
    whole.write_bytes(world.content)
    fetched = world.fetcher().tokenizer(world.entry())
    assert fetched.path.read_bytes() == cut_file(whole)
    assert fetched.path.name == f"{world.sha256}.header.gguf"
    assert (fetched.model.kind, fetched.model.sha256_from) == ("tokenizer", "hub")
    assert Library(world.paths).tokenizers(NodeConfig())[bytes.fromhex(world.sha256)] == _bundled_or(
        fetched.path, world
    )
    assert Library(world.paths).find("some-model") is None


def _bundled_or(path: Path, world: World) -> Path:
    """The content is a bundled model's, whose own file goes first."""
    bundled = {model.digest: model.path for model in catalogue().bundled()}
    return bundled.get(bytes.fromhex(world.sha256)) or path


def test_the_meter_finds_the_header_of_a_model_it_has_never_seen(world: World) -> None:
    world.content += b"\0" * 32
    fetched = world.fetcher().tokenizer(world.entry())
    digest = bytes.fromhex(world.sha256)
    assert Library(world.paths).tokenizers(NodeConfig())[digest] == fetched.path
    fetched.path.write_bytes(fetched.path.read_bytes()[:-1] + b"x")
    assert digest not in Library(world.paths).tokenizers(NodeConfig())


def test_only_the_beginning_of_a_large_file_is_fetched(world: World) -> None:
    world.content += b"\0" * 20_000_000
    fetched = world.fetcher().tokenizer(world.entry(world.sha256))
    assert fetched.model.sha256_from == "catalogue"
    assert fetched.vouchers == ("catalogue", "hub")
    assert fetched.fetched_bytes == world.hub.sent_bytes == 8 * 1024 * 1024


def test_a_header_without_a_digest_could_not_be_tied_to_a_model(world: World) -> None:
    world.hub.says_sha256[f"{SOURCE}/{FILE}"] = ""
    with pytest.raises(DigestUnknown):
        world.fetcher().tokenizer(world.entry())
    assert world.fetcher().tokenizer(world.entry(WRONG)).vouchers == ("catalogue",)


def test_a_broken_header_transfer_goes_on(world: World) -> None:
    world.hub.break_after = [10_000, 0, 300]
    assert world.fetcher().tokenizer(world.entry()).path.exists()


def test_no_header_comes_out_of_a_web_page(world: World) -> None:
    world.content = b"<html>Sign in</html>"
    with pytest.raises(NoModelInside):
        world.fetcher().tokenizer(world.entry())
    assert not Manifest(world.paths).models()


def test_a_header_of_a_new_version_takes_the_place_of_the_old_one(world: World) -> None:
    old = world.fetcher().tokenizer(world.entry()).path
    world.content += b"\0" * 32
    new = world.fetcher().tokenizer(world.entry()).path
    assert old != new and not old.exists() and new.exists()


def test_the_whole_model_takes_the_place_of_its_header(world: World) -> None:
    header = world.fetcher().tokenizer(world.entry()).path
    world.pull()
    assert not header.exists()
    assert [model.kind for model in Manifest(world.paths).models()] == ["model"]
    again = world.fetcher().tokenizer(world.entry())
    assert (again.model.kind, again.fetched_bytes) == ("model", 0)
    assert hashlib.sha256(again.path.read_bytes()).hexdigest() == world.sha256
