"""Model files: header reading survives any damage, digests are computed once per version of a file."""

from __future__ import annotations

import hashlib
import os
import struct
from pathlib import Path

import llama_cpp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ryvion_node.engine import gguf
from ryvion_node.engine.files import DigestCache, file_digest
from ryvion_node.engine.gguf import GgufError, GgufHeader, read_header
from ryvion_node.engine.worker.processors import compute_threads


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def entry(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


ENTRIES = [
    entry("general.architecture", 8, text("llama")),
    entry("general.name", 8, text("Tiny")),
    entry("general.file_type", 4, struct.pack("<I", 7)),
    entry("llama.context_length", 4, struct.pack("<I", 512)),
    entry("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, 2) + text("a") + text("b")),
    entry("tokenizer.ggml.scores", 9, struct.pack("<IQ", 6, 2) + struct.pack("<ff", 0, 1)),
    entry("tokenizer.chat_template", 8, text("{{ x }}")),
]


def header(
    entries: list[bytes] = ENTRIES, *, magic: bytes = b"GGUF", version: int = 3, count: int | None = None
) -> bytes:
    return magic + struct.pack("<IQQ", version, 5, len(entries) if count is None else count) + b"".join(entries)


def refused(tmp_path: Path, data: bytes) -> str:
    path = tmp_path / "bad.gguf"
    path.write_bytes(data)
    with pytest.raises(GgufError) as caught:
        read_header(path)
    return str(caught.value)


def test_header_is_read(tmp_path: Path) -> None:
    path = tmp_path / "good.gguf"
    path.write_bytes(header())
    assert read_header(path) == GgufHeader("Tiny", "llama", "Q8_0", 512, has_template=True, tensors=5, pooling=0)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "truncated"),
        (header(magic=b"GGML"), "wrong magic"),
        (header(version=1), "version 1"),
        (header(count=2**63), "metadata entries"),
        (header([entry("k", 8, struct.pack("<Q", 2**62))]), "string of"),
        (header([entry("k", 9, struct.pack("<IQ", 8, 2**61))]), "array of"),
        (header([entry("k", 9, struct.pack("<IQ", 9, 1) * 9)]), "depth"),
        (header([entry("k", 99, b"")]), "value type 99"),
        (header([entry("k", 9, struct.pack("<IQ", 8, 1_000_000))]), "truncated"),
    ],
)
def test_damage_is_named_with_the_file(tmp_path: Path, data: bytes, reason: str) -> None:
    said = refused(tmp_path, data)
    assert reason in said
    assert "bad.gguf" in said


@given(st.integers(0, len(header()) - 1))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_every_truncation_is_found(tmp_path: Path, length: int) -> None:
    assert "bad.gguf" in refused(tmp_path, header()[:length])


@given(st.integers(0, len(header()) - 1), st.integers(0, 255))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
def test_any_changed_byte_gives_a_header_or_an_error(tmp_path: Path, place: int, value: int) -> None:
    data = bytearray(header())
    data[place] = value
    path = tmp_path / "flipped.gguf"
    path.write_bytes(data)
    try:
        read_header(path)
    except GgufError:
        return


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(GgufError, match="no such file"):
        read_header(tmp_path / "none.gguf")
    with pytest.raises(GgufError, match="no such file"):
        file_digest(tmp_path / "none.gguf")


def test_quantisations_are_named_as_in_llama_cpp() -> None:
    prefix = "LLAMA_FTYPE_MOSTLY_"
    theirs = {
        value: name.removeprefix(prefix)
        for name, value in vars(llama_cpp).items()
        if name.startswith(prefix) and isinstance(value, int)
    }
    ours = {value: name for value, name in gguf._QUANTISATIONS.items() if value in theirs}
    assert ours == {value: theirs[value] for value in ours}
    assert len(ours) > 30


def test_digest_is_cached_until_the_file_changes(tmp_path: Path) -> None:
    path, store = tmp_path / "model", tmp_path / "state" / "digests.json"
    path.write_bytes(b"one")
    cache = DigestCache(store)
    assert cache.get(path) is None
    assert cache.digest(path) == hashlib.sha256(b"one").digest()
    assert DigestCache(store).get(path) == hashlib.sha256(b"one").digest()
    path.write_bytes(b"two")
    os.utime(path, ns=(1, 1))
    assert cache.get(path) is None
    assert cache.digest(path) == hashlib.sha256(b"two").digest()


@pytest.mark.parametrize("content", ["", "nonsense", "[1]", '[["a", 1, 2, 3, "zz"]]', "{}"])
def test_a_damaged_cache_is_an_empty_one(tmp_path: Path, content: str) -> None:
    store = tmp_path / "digests.json"
    store.write_text(content)
    assert DigestCache(store).get(store) is None


def test_threads_are_cores_within_the_quota(tmp_path: Path) -> None:
    usable = sorted(os.sched_getaffinity(0))
    for cpu in usable:
        topology = tmp_path / f"cpu{cpu}" / "topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text("all of them\n")
    assert compute_threads(tmp_path, tmp_path) == 1
    assert compute_threads(tmp_path / "none", tmp_path) == len(usable)
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    assert compute_threads(tmp_path / "none", tmp_path) == 1
