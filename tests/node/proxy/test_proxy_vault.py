"""The vault: the same on disk and in memory, bounded, and forgetful after a day."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from ryvion_node.proxy import vault as vault_module
from ryvion_node.proxy.constants import ANSWER_LIFETIME_MS
from ryvion_node.proxy.sealed import Claim, NotOurs, Seal, StoredAnswer
from ryvion_node.proxy.vault import FolderVault, MemoryVault, Vault, VaultFull


@dataclass(slots=True)
class Clock:
    now_ms: int

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock() -> Clock:
    return Clock(1_800_000_000_000)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "home" / "answers"


@pytest.fixture(params=["folder", "memory"])
async def vault(request: pytest.FixtureRequest, folder: Path, clock: Clock) -> AsyncIterator[Vault]:
    opened: Vault = FolderVault(folder, clock_ms=clock) if request.param == "folder" else MemoryVault(clock_ms=clock)
    async with trio.open_nursery() as nursery:
        await nursery.start(opened.run)
        yield opened
        nursery.cancel_scope.cancel()


async def test_what_was_written_is_read(vault: Vault) -> None:
    await vault.write("aa", "claim", b"1")
    await vault.write("aa", "answer", b"22")
    await vault.write("aa", "claim", b"3")
    assert [await vault.read("aa", part) for part in ("claim", "answer")] == [b"3", b"22"]
    assert await vault.read("bb", "claim") is None
    assert await vault.read("bb", "answer") is None


async def test_it_forgets_after_a_day(vault: Vault, clock: Clock) -> None:
    await vault.write("aa", "claim", b"1")
    clock.now_ms += ANSWER_LIFETIME_MS - 1
    assert await vault.read("aa", "claim") == b"1"
    clock.now_ms += 1
    assert await vault.read("aa", "claim") is None


async def test_old_answers_make_room_and_their_claims_stay(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vault_module, "MAX_ANSWERS_BYTES", 10)
    for name in ("aa", "bb", "cc"):
        await vault.write(name, "claim", b"c")
        await vault.write(name, "answer", b"12345")
    assert [await vault.read(name, "answer") for name in ("aa", "bb", "cc")] == [None, b"12345", b"12345"]
    assert [await vault.read(name, "claim") for name in ("aa", "bb", "cc")] == [b"c"] * 3


async def test_claims_are_counted_and_room_comes_with_time(
    vault: Vault, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vault_module, "MAX_CLAIMS", 2)
    await vault.write("aa", "claim", b"1")
    await vault.write("bb", "claim", b"1")
    with pytest.raises(VaultFull):
        await vault.write("cc", "claim", b"1")
    await vault.write("bb", "claim", b"2")
    clock.now_ms += ANSWER_LIFETIME_MS
    await vault.write("cc", "claim", b"1")
    assert await vault.read("cc", "claim") == b"1"


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def left_over(folder: Path) -> Path:
    """A folder as an earlier run left it."""
    folder.mkdir(parents=True, mode=0o700)
    folder.parent.chmod(0o700)
    (folder / "a folder").mkdir()
    for name, hours in (("aa.claim", 1), ("bb.claim", 25), ("cc.answer", 23), (".dd.claim.0123", 1), ("notes.txt", 1)):
        path = folder / name
        path.touch(0o600)
        path.write_bytes(name.encode())
        at_s = path.stat().st_mtime - hours * 3600
        os.utime(path, (at_s, at_s))
    return folder


async def test_a_folder_is_opened_again_with_what_is_left_of_it(left_over: Path) -> None:
    opened = FolderVault(left_over)
    async with trio.open_nursery() as nursery:
        await nursery.start(opened.run)
        assert await opened.read("aa", "claim") == b"aa.claim"
        assert await opened.read("bb", "claim") is None
        assert await opened.read("cc", "answer") == b"cc.answer"
        await trio.testing.wait_all_tasks_blocked()
        assert names_in(left_over) == {"aa.claim", "cc.answer", "notes.txt", "a folder"}
        nursery.cancel_scope.cancel()


async def test_what_cannot_be_written_is_not_there(folder: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = FolderVault(folder, clock_ms=clock)

    def refuse(path: Path, data: bytes) -> None:
        raise OSError("disk full")

    async with trio.open_nursery() as nursery:
        await nursery.start(opened.run)
        monkeypatch.setattr(vault_module, "replace_private_file", refuse)
        with pytest.raises(OSError, match="disk full"):
            await opened.write("aa", "claim", b"1")
        assert await opened.read("aa", "claim") is None
        nursery.cancel_scope.cancel()


TEXT = st.text(max_size=40)


@given(TEXT, TEXT, st.binary(max_size=200), st.integers(200, 599))
def test_a_seal_opens_what_it_closed_and_no_other_does(token: str, key: str, body: bytes, status: int) -> None:
    seal = Seal(token, key)
    answer = StoredAnswer(status, (("content-type", "x"), ("a", "b")), body)
    claim = Claim("f", "chatcmpl-1")
    assert Seal(token, key).open_answer(seal.close_answer(answer)) == answer
    assert seal.open_claim(seal.close_claim(claim)) == claim
    for other in (Seal(token + "x", key), Seal(token, key + "x")):
        assert other.name != seal.name
        with pytest.raises(NotOurs):
            other.open_claim(seal.close_claim(claim))


def test_a_flipped_bit_opens_nothing() -> None:
    seal = Seal("token", "key")
    sealed = bytearray(seal.close_answer(StoredAnswer(200, (), b"text")))
    for position in range(len(sealed)):
        sealed[position] ^= 1
        with pytest.raises(NotOurs):
            seal.open_answer(bytes(sealed))
        sealed[position] ^= 1


def test_a_stream_shrinks() -> None:
    seal: Callable[[StoredAnswer], bytes] = Seal("token", "key").close_answer
    chunk = b'data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{"content":"word"}}]}\n\n'
    assert len(seal(StoredAnswer(200, (), chunk * 1000))) < len(chunk) * 100
